"""Numbers as people type them: decimal point or comma, spaces between thousands."""

from __future__ import annotations

import re

from pals_grid.core.errors import InvalidValue

_EITHER = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")


def read_number(field: str, text: str) -> float:
    """Read what was typed into ``field``.

    Raises:
        InvalidValue: for no number, and for ``1,000``, which is a thousand to some and 1 to others.
    """
    plain = "".join(text.split())
    if _EITHER.fullmatch(plain):
        whole, point = plain.replace(",", ""), plain.replace(",", ".")
        raise InvalidValue(field, text, f"must be clear, write {whole} or {point}")
    try:
        return float(plain.replace(",", "."))
    except ValueError as error:
        raise InvalidValue(field, text, "must be a number") from error
