"""Files in shared memory through which the agent and vLLM talk. Standard library only.

A directory belongs to one vLLM server. In it

* ``rank-N`` is made by the scheduler of data-parallel rank N: the agent's ``Control`` and the
  scheduler's ``StepTelemetry``, a `Record` each;
* ``front-N-PID`` is made by the stat logger of API process PID for rank N: its ``LatencyTotals``;
* ``agent.lock`` is held by the one agent that may write.

A file appears whole, by a rename, and its maker holds a lock on it for life: who can take that
lock knows that the maker died, whatever user or container it ran in. Forked children inherit such
a lock, so a maker whose process is visible is also checked by process id and start time.

Both sides have to be the same user, or share the directory's group: see `prepare_directory`.
Linux only.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission
from pals_grid.node.vllm.layout import CONTROL, LATENCY, TELEMETRY, VERSION
from pals_grid.node.vllm.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_DIRECTORY = Path("/dev/shm/pals-grid")  # noqa: S108 - its owner and mode are checked
DIRECTORY_VARIABLE = "PALS_GRID_CHANNEL_DIR"
GROUP_VARIABLE = "PALS_GRID_CHANNEL_GROUP"

_MAGIC = b"PALSGRID"
_HEAD = struct.Struct("<8sIIQQQ")
_CONTROL_AT = 64
_TELEMETRY_AT = 192
_LATENCY_AT = 64


class Maker(NamedTuple):
    """The process that made a file: in which pid namespace (its inode), which, since when."""

    namespace: int
    pid: int
    started_ticks: int

    @classmethod
    def this(cls) -> Self:
        """Return this process."""
        return cls(_namespace(), os.getpid(), _started_ticks(os.getpid()) or 0)

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; False where it cannot be seen."""
        if self.namespace == 0 or self.namespace != _namespace():
            return False
        started_ticks = _started_ticks(self.pid)
        if started_ticks is None:  # or another user's, and hidden (hidepid, ProtectProc)
            return not _exists(self.pid)
        return started_ticks != self.started_ticks


class ChannelFile:
    """A mapped file of a channel. ``create`` it as its maker, ``open`` it as the other side."""

    def __init__(self, path: Path, descriptor: int, *, own: bool) -> None:
        self.path = path
        self._own = own
        self._group: int | None = None
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self._identity = status.st_dev, status.st_ino
        self.memory = mmap.mmap(descriptor, status.st_size)
        head = _HEAD.unpack_from(self.memory)
        self.maker = Maker(*head[3:])

    @classmethod
    def create(cls, path: Path, size: int, *, group: int | None = None) -> Self:
        """Make the file anew, instead of one whose maker died or is this process.

        Raises:
            DeviceLost: when another living process has made it, or it cannot be made.
        """
        prepare_directory(path.parent, group)
        cls._require_free(path, size)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(draft, flags, 0o600)
        try:
            _share(descriptor, path.parent)
            os.posix_fallocate(descriptor, 0, size)
            os.pwrite(descriptor, _HEAD.pack(_MAGIC, VERSION, size, *Maker.this()), 0)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(path)
            made = cls(path, descriptor, own=True)
        except BaseException:
            os.close(descriptor)
            draft.unlink(missing_ok=True)
            raise
        made._group = group
        return made

    @classmethod
    def _require_free(cls, path: Path, size: int) -> None:
        try:
            found = cls.open(path, size)
        except FileNotFoundError:
            return
        except DeviceLost:
            if _is_locked(path):
                raise
            return  # of another version, whose maker died
        with found:
            if found.is_alive() and found.maker != Maker.this():
                raise DeviceLost(f"{path}: process {found.maker.pid} uses it already")

    @classmethod
    def open(cls, path: Path, size: int) -> Self:
        """Map what another process has made.

        Raises:
            FileNotFoundError: when nobody has.
            DevicePermission: when this user may not, or people outside could have made it.
            DeviceLost: when it is not such a file, or of another version.
        """
        require_private(path.parent)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except PermissionError as error:
            raise DevicePermission(f"{path}: {error.strerror}") from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DeviceLost(f"{path}: {error.strerror}") from error
        try:
            _require_channel(path, descriptor, size)
            return cls(path, descriptor, own=False)
        except BaseException:
            os.close(descriptor)
            raise

    def is_alive(self) -> bool:
        """Whether its maker still runs and has not made it anew."""
        if self.maker.is_gone():
            return False
        try:
            status = self.path.stat()
        except OSError:
            return False
        if (status.st_dev, status.st_ino) != self._identity:
            return False
        if self._own:
            return True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False

    def restored(self) -> Self:
        """Return itself, or for its maker a new one where somebody has removed the file."""
        if os.path.lexists(self.path):
            return self
        try:
            anew = self.create(self.path, len(self.memory), group=self._group)
        except (DeviceError, OSError):
            return self
        self.close()
        return anew

    def close(self) -> None:
        """Let go of it; the maker removes it."""
        if self._descriptor < 0:
            return
        if self._own and self.is_alive():
            self.path.unlink(missing_ok=True)
        self.memory.close()
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RankFile(ChannelFile):
    """The agent's control and the scheduler's telemetry of one data-parallel rank."""

    SIZE = 512

    def __init__(self, path: Path, descriptor: int, *, own: bool) -> None:
        super().__init__(path, descriptor, own=own)
        self.control = Record(self.memory, _CONTROL_AT, CONTROL)
        self.telemetry = Record(self.memory, _TELEMETRY_AT, TELEMETRY)

    @classmethod
    def create_rank(cls, directory: Path, rank: int, group: int | None = None) -> Self:
        """Make the file of a rank; errors as for ``create``."""
        return cls.create(directory / f"rank-{rank}", cls.SIZE, group=group)


class FrontFile(ChannelFile):
    """The latencies that one API process saw of one rank."""

    SIZE = _LATENCY_AT + LATENCY.size

    def __init__(self, path: Path, descriptor: int, *, own: bool) -> None:
        super().__init__(path, descriptor, own=own)
        self.latency = Record(self.memory, _LATENCY_AT, LATENCY)

    @classmethod
    def create_front(cls, directory: Path, rank: int, group: int | None = None) -> Self:
        """Make this process's file and remove those of the dead; errors as for ``create``."""
        for path in directory.glob("front-*"):
            with contextlib.suppress(DeviceError, OSError), cls.open(path, cls.SIZE) as found:
                if not found.is_alive():
                    path.unlink(missing_ok=True)
        return cls.create(directory / f"front-{rank}-{os.getpid()}", cls.SIZE, group=group)


def prepare_directory(directory: Path, group: int | None = None) -> None:
    """Make the directory: 0700, or 2770 for a ``group``. One that is there has to be as private.

    Raises:
        DevicePermission: when everybody may write to it, or strangers own it.
        DeviceLost: when it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        if group is not None and status.st_uid == os.geteuid():
            os.chown(directory, -1, group)
            directory.chmod(0o2770)
    except OSError as error:
        raise DeviceLost(f"{directory}: {error.strerror}") from error
    require_private(directory)


@contextlib.contextmanager
def hold_agent_lock(directory: Path) -> Iterator[None]:
    """Be the one agent that writes to this directory's channels, until the end of the block.

    Raises:
        DevicePermission: when another agent is, or the lock cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(directory / "agent.lock", flags, 0o600)
    except OSError as error:
        raise DevicePermission(f"{directory}/agent.lock: {error.strerror}") from error
    try:
        _share(descriptor, directory)  # so that the next agent may be another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DevicePermission(f"{directory}: another agent writes to it") from error
        yield
    finally:
        os.close(descriptor)


def require_private(directory: Path) -> None:
    """Check that nobody but this user, root and a group of this user's may write there.

    Raises:
        DevicePermission: when others may, or it is theirs.
        OSError: when it is not there, or cannot be looked at.
    """
    status = directory.stat()
    if status.st_mode & stat.S_IWOTH:
        raise DevicePermission(f"{directory}: must not be writable by everybody")
    shared = status.st_mode & stat.S_IWGRP and status.st_gid in {os.getegid(), *os.getgroups()}
    if status.st_uid not in {0, os.geteuid()} and not shared:
        raise DevicePermission(
            f"{directory}: must belong to this user, to root, or to a group of this user that "
            f"may write, got user {status.st_uid}, group {status.st_gid}"
        )


def _share(descriptor: int, directory: Path) -> None:
    """Open a file of this user's to the group that may write to its directory, if one may."""
    status, own = directory.stat(), os.fstat(descriptor)
    if not status.st_mode & stat.S_IWGRP or own.st_uid != os.geteuid():
        return
    with contextlib.suppress(PermissionError):  # an owner need not be in the group
        os.fchown(descriptor, -1, status.st_gid)
    os.fchmod(descriptor, 0o660)


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the file's lock, or that cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _require_channel(path: Path, descriptor: int, size: int) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_mode & stat.S_IWOTH:
        raise DevicePermission(f"{path}: must be a file that not everybody may write")
    head = os.pread(descriptor, _HEAD.size, 0)
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        raise DeviceLost(f"{path}: is no channel of this project")
    _, version, found, *_ = _HEAD.unpack(head)
    if (version, found, status.st_size) != (VERSION, size, size):
        raise DeviceLost(
            f"{path}: layout must be version {VERSION} of {size} bytes, got version {version} of "
            f"{status.st_size}: install the same pals-grid on both sides"
        )


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - of the link's target
    except OSError:
        return 0


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _started_ticks(pid: int) -> int | None:
    """Return the start time in clock ticks since boot; 0 of a zombie, None of none to be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])
