"""Secrets by reference: the reference is stored, the secret never is."""

from __future__ import annotations

import os
from pathlib import Path

from pals_grid.core.errors import FeedRejected, InvalidValue

FORM = "must be env:NAME or file:/absolute/path"


def check_secret_ref(ref: str) -> None:
    """Check the form alone, so that a reference can be stored before its secret is there.

    Raises:
        InvalidValue: for another form. What was given is not quoted: it may be the secret.
    """
    scheme, _, name = ref.partition(":")
    well_formed = (scheme == "env" and name.isidentifier()) or (
        scheme == "file" and Path(name).is_absolute()
    )
    if not well_formed:
        raise InvalidValue("secret_ref", "something else (not shown)", FORM)


def read_secret(ref: str) -> str:
    """Read the secret behind ``env:NAME`` or ``file:/absolute/path``, outer space stripped.

    Raises:
        InvalidValue: for a reference of another form.
        FeedRejected: when nothing is there, or only space.
    """
    check_secret_ref(ref)
    scheme, _, name = ref.partition(":")
    if scheme == "env":
        secret = os.environ.get(name, "")
    else:
        try:
            secret = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FeedRejected(f"the secret {ref} cannot be read: {_reason(error)}") from error
    if not secret.strip():
        raise FeedRejected(f"the secret {ref} is not set")
    return secret.strip()


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error.strerror)
