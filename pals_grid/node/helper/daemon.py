"""The privileged helper: one process that may write power limits and SM clocks, nothing else."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import ConfigurationError, InvalidValue
from pals_grid.node.files import hold_state_dir
from pals_grid.node.helper.bounds import Bounds
from pals_grid.node.helper.keeper import Keeper, KeeperOptions
from pals_grid.node.helper.leases import LeaseFile
from pals_grid.node.helper.server import HelperServer
from pals_grid.node.helper.systemd import Notifier, inherited_listener
from pals_grid.node.restore import RestoreFile
from pals_grid.node.stopping import signals_taken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pals_grid.core.ports import Clock, Gpu
    from pals_grid.node.helper.server import Allowed

log = logging.getLogger(__name__)

DEFAULT_SOCKET = Path("/run/pals-grid/helper.sock")
DEFAULT_STATE_DIR = Path("/var/lib/pals-grid/helper")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
RESTARTED_AFTER = frozenset({"signal", "core-dump", "watchdog", "exit-code", "oom-kill"})
"""systemd's $SERVICE_RESULT after which ``Restart=always`` starts the helper again."""


@dataclass(frozen=True, slots=True)
class HelperConfig:
    """Settings of the helper. ``uuids`` empty: every GPU of the machine may be written.

    ``socket_path`` is used where systemd hands over no socket. With ``socket_gid`` only that
    group can open it; without, anybody can, and is turned away by user and group.
    """

    allowed: Allowed
    state_dir: Path = DEFAULT_STATE_DIR
    socket_path: Path = DEFAULT_SOCKET
    socket_gid: int | None = None
    uuids: frozenset[str] = frozenset()
    bounds: Bounds = field(default_factory=Bounds)
    grace_s: float = 10.0
    silent_s: float = 8.0
    boot_id_file: Path = BOOT_ID_FILE


if TYPE_CHECKING:
    OpenGpus = Callable[[], Sequence[Gpu]]


def run_helper(
    config: HelperConfig,
    *,
    open_gpus: OpenGpus,
    environment: Mapping[str, str],
    stop: threading.Event | None = None,
) -> int:
    """Serve until SIGTERM, SIGINT or ``stop``; returns 0, or 1 where a limit is not restored.

    What has to be held is held before the socket answers, and before systemd is told so.

    Raises:
        ConfigurationError: when the state directory is in use, the socket cannot be made, or a
            GPU of the list is not there.
        DeviceError: when the GPUs do not answer.
    """
    stop = stop or threading.Event()
    clock = SystemClock()
    notifier = Notifier(environment)
    with hold_state_dir(config.state_dir), signals_taken(STOP_SIGNALS, lambda _: stop.set()):
        keeper = _make_keeper(config, open_gpus, clock)
        keeper.look()
        with _listening(config, environment) as listener:
            server = HelperServer(listener, keeper, config.allowed, clock)
            notifier.tell("READY=1")
            try:
                server.serve(stop.is_set, lambda: notifier.tell("WATCHDOG=1"))
            finally:
                notifier.tell("STOPPING=1")
                server.close()
                failures = keeper.close()
        return _tell(keeper, failures)


def restore_offline(
    config: HelperConfig,
    *,
    open_gpus: OpenGpus,
    now_whatever: bool = False,
    service_result: str | None = None,
) -> int:
    """Restore what a helper that no longer runs has left; returns as ``run_helper``.

    A hold that is active stays, unless ``now_whatever``. ``service_result`` is systemd's: where
    the helper died and is started again, that decides, and nothing is done here.

    Raises:
        ConfigurationError: when a helper runs, or the state directory cannot be used.
        DeviceError: when the GPUs do not answer.
    """
    if service_result in RESTARTED_AFTER:
        log.warning("the helper died (%s) and is started again; it decides", service_result)
        return 0
    clock = SystemClock()
    with hold_state_dir(config.state_dir):
        if now_whatever:
            originals = RestoreFile(config.state_dir / "original-limits.json")
            with contextlib.suppress(FileNotFoundError):
                (config.state_dir / "leases.json").unlink()
            failures = originals.restore(open_gpus())
            for failure in failures:
                log.error("not restored: %s", failure)
            return 1 if failures else 0
        keeper = _make_keeper(config, open_gpus, clock)
        return _tell(keeper, keeper.close())


def _tell(keeper: Keeper, failures: Sequence[str]) -> int:
    for failure in failures:
        log.error("not restored: %s", failure)
    if keeper.held_until is not None:
        log.warning(
            "limits are held until %s; start the helper, or `pals-grid helper restore --now`",
            keeper.held_until,
        )
    return 1 if failures else 0


def _make_keeper(config: HelperConfig, open_gpus: OpenGpus, clock: Clock) -> Keeper:
    gpus = open_gpus()
    missing = config.uuids - {gpu.uuid for gpu in gpus}
    if missing:
        found = ", ".join(gpu.uuid for gpu in gpus) or "none"
        raise InvalidValue("gpu", min(missing), f"must be a GPU of this machine ({found})")
    state = config.state_dir
    return Keeper(
        [gpu for gpu in gpus if not config.uuids or gpu.uuid in config.uuids],
        RestoreFile(state / "original-limits.json"),
        LeaseFile(state / "leases.json"),
        clock,
        KeeperOptions(
            boot_id=config.boot_id_file.read_text().strip(),
            bounds=config.bounds,
            grace_s=config.grace_s,
            silent_s=config.silent_s,
        ),
    )


@contextlib.contextmanager
def _listening(config: HelperConfig, environment: Mapping[str, str]) -> Iterator[socket.socket]:
    given = inherited_listener(environment)
    if given is not None:
        yield given
        return
    path = config.socket_path
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # what a crash left; the state directory is ours alone
        before = os.umask(0o111 if config.socket_gid is None else 0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if config.socket_gid is not None:
            os.chown(path, -1, config.socket_gid)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"socket: cannot listen on {path}: {error}") from error
    try:
        yield listener
    finally:
        path.unlink(missing_ok=True)
