"""The data directory of an embedded server: where it lies, who has it, what was left there."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError
from pals_grid.store.binaries import SYSTEM_DIR, short_hash

if TYPE_CHECKING:
    from pals_grid.store.binaries import ServerUser

_log = logging.getLogger(__name__)

MAX_SOCKET_DIR_LENGTH = 90  # sockaddr_un holds 104 bytes on macOS, the file's name takes 14
SUPERUSER = "pals_grid"
OWN_SHUTDOWN_S = 3.0
ASKED_SHUTDOWN_S = 20.0


@dataclass(frozen=True, slots=True)
class ClusterDirs:
    """Everything that one embedded server keeps."""

    root: Path
    user: ServerUser | None

    @property
    def data(self) -> Path:
        """What PostgreSQL calls PGDATA."""
        return self.root / "cluster"

    @property
    def log(self) -> Path:
        """The server's messages since its last start."""
        return self.root / "server.log"

    @property
    def socket(self) -> Path:
        """Folder of the Unix socket, short enough for the kernel."""
        wanted = self.root / "socket"
        if len(os.fsencode(wanted)) <= MAX_SOCKET_DIR_LENGTH:
            return wanted
        return Path("/tmp") / f"pals-grid-{short_hash(self.root)}"  # noqa: S108  # owner is checked

    @property
    def version(self) -> str | None:
        """PostgreSQL's major version of the data; None before the first start."""
        try:
            return (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise ConfigurationError(
                f"data directory {self.root}: belongs to another user; start as that user"
            ) from error


def place_cluster(data_dir: Path, user: ServerUser | None) -> ClusterDirs:
    """Make the folders for ``data_dir``, elsewhere when ``user`` could not enter them there.

    Raises:
        ConfigurationError: when they cannot be made, or the socket's folder is somebody else's.
    """
    root = data_dir.absolute()
    if user is not None and not user.may_enter(root):
        root = SYSTEM_DIR / short_hash(root)
        _log.warning("user %s cannot enter %s: the data lie in %s", user.name, data_dir, root)
    dirs = ClusterDirs(root, user)
    try:
        if root.parent == SYSTEM_DIR:
            SYSTEM_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        _own_private(dirs.socket, user)
    except OSError as error:
        raise ConfigurationError(f"data directory {root}: cannot be made: {error}") from error
    return dirs


def lock_cluster(dirs: ClusterDirs) -> IO[str]:
    """Lock file, held until it is closed or its process dies.

    Raises:
        ConfigurationError: when another process holds it.
    """
    try:
        lock = (dirs.root / "lock").open("a+")
    except OSError as error:
        raise ConfigurationError(f"data directory {dirs.root}: is not ours: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigurationError(
            f"data directory {dirs.root}: is in use by process {holder}; "
            "stop it, or set another data directory or PALS_GRID_DATABASE_URL"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def create_cluster(dirs: ClusterDirs, bin_dir: Path, env: dict[str, str]) -> None:
    """Run initdb beside the final place, so that a torn first start leaves nothing there.

    Raises:
        ConfigurationError: with initdb's own words.
    """
    for leftover in dirs.root.glob("initdb-*"):
        shutil.rmtree(leftover)
    unfinished = Path(tempfile.mkdtemp(prefix="initdb-", dir=dirs.root))
    _own_private(unfinished, dirs.user)
    user = dirs.user
    answer = subprocess.run(  # noqa: S603  # our own command
        [
            *(bin_dir / "initdb", "-D", unfinished, "-U", SUPERUSER, "-E", "UTF8", "--no-locale"),
            *("--auth-local=trust", "--auth-host=reject"),
        ],
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise ConfigurationError(f"initdb in {dirs.root} failed: {answer.stderr.strip()[-500:]}")
    unfinished.rename(dirs.data)


def settle_previous_server(dirs: ClusterDirs) -> None:
    """Wait for, or stop, a server that outlived its supervisor; drop a stale pid file.

    The caller holds the cluster's lock, so no supervisor is left for it.

    Raises:
        ConfigurationError: when it does not go.
    """
    pid_file = dirs.data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().partition("\n")[0])
    except (FileNotFoundError, ValueError):
        return
    if _ends_within(pid, dirs, OWN_SHUTDOWN_S):
        # A pid that now belongs to another program would make PostgreSQL refuse to start.
        pid_file.unlink(missing_ok=True)
        return
    _log.warning("postgres %d on %s has no supervisor: stopping it", pid, dirs.data)
    os.kill(pid, signal.SIGINT)
    if not _ends_within(pid, dirs, ASKED_SHUTDOWN_S):
        raise ConfigurationError(f"data directory {dirs.root}: postgres {pid} does not stop")


def _ends_within(pid: int, dirs: ClusterDirs, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while _is_server(pid, dirs):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_server(pid: int, dirs: ClusterDirs) -> bool:
    """Whether ``pid`` is a live postgres of this data directory."""
    if pid <= 0:
        return False
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        command = subprocess.run(  # noqa: S603  # macOS has no /proc
            ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    return "postgres" in command and str(dirs.data) in command


def _own_private(folder: Path, user: ServerUser | None) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = folder.stat().st_uid
    expected = {os.geteuid(), user.uid if user else os.geteuid()}
    if folder.is_symlink() or owner not in expected:
        raise ConfigurationError(f"folder {folder}: belongs to user {owner}, not to us")
    if user is not None:
        os.chown(folder, user.uid, user.gid)
    folder.chmod(0o700)
