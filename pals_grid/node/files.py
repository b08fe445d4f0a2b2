"""Small files that survive a crash: whole in their old or their new form, never torn."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace ``path`` and return only when both the content and its name are on the disk."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove ``path``; the removal is on the disk on return."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def keep_aside(path: Path) -> Path:
    """Move an unreadable file out of the way, beside itself, without overwriting another."""
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    path.rename(aside)
    sync_directory(path.parent)
    return aside


def sync_directory(directory: Path) -> None:
    """Force the directory's entries to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold_state_dir(state_dir: Path) -> Iterator[None]:
    """Hold a node's state directory alone: two programs would overwrite each other's originals.

    Raises:
        ConfigurationError: when another one holds it.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"state_dir: {state_dir} is in use by another agent, helper or profile run"
            ) from error
        yield
