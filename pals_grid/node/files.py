"""Small files that survive a crash: whole in their old or their new form, never torn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
