"""The node agent: one process that ticks, follows its lease, spools rows and restores limits."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import logging
import os
import signal
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import ConfigurationError
from pals_grid.core.site import Slo
from pals_grid.node.describe import describe_node
from pals_grid.node.lease import Lease
from pals_grid.node.link import HttpLink
from pals_grid.node.loop import ControlLoop
from pals_grid.node.meter import RowMeter
from pals_grid.node.real import build_real_node, can_open_gpus
from pals_grid.node.restore import RestoreFile
from pals_grid.node.spool import Spool
from pals_grid.node.status import StatusBoard
from pals_grid.node.uplink import Uplink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pals_grid.core.ports import Clock
    from pals_grid.node.hardware import NodeHardware
    from pals_grid.node.rows import Rows
    from pals_grid.wire.messages import RegisterRequest

log = logging.getLogger(__name__)

LAST_UPLOAD_S = 1.0
EXIT_REFUSED = 3


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Settings of one agent.

    ``hardware`` is ``nvml``, ``sim`` or ``auto`` (NVML where it answers). ``safe_power_w`` holds
    at node boundary while there never was a schedule; None means the node's least power.
    ``engine_metrics_url`` is a vLLM server's address; ``slo`` holds until the service gives its
    own. ``parent_fd`` is a pipe whose end of file means that the parent died.
    """

    url: str
    enrolment_token: str
    name: str
    state_dir: Path
    hardware: str = "auto"
    safe_power_w: float | None = None
    engine_metrics_url: str | None = None
    engine_model: str | None = None
    dry_run: bool = False
    parent_fd: int | None = None
    period_s: float = 0.5
    slo: Slo = field(default_factory=Slo)


if TYPE_CHECKING:
    BuildUnits = Callable[[AgentConfig, Clock], NodeHardware]


def run_agent(
    config: AgentConfig,
    *,
    build_units: BuildUnits | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Run until SIGTERM, SIGINT, the parent's end or ``stop``; returns the exit code.

    ``build_units`` makes the simulated node. 0: stopped, limits restored; 1: some limit could
    not be restored; 3: the service refused the token and no schedule is on the disk.

    Raises:
        ConfigurationError: when the state directory is in use, or there is no hardware.
        DeviceError: when ``hardware`` is ``nvml`` and NVML does not answer.
    """
    stop = stop or threading.Event()
    clock = SystemClock()
    with _own(config.state_dir), _stop_signals(stop):
        if config.parent_fd is not None:
            _watch_parent(config.parent_fd, stop)
        hardware = _build_hardware(config, clock, build_units)
        return _Agent(config, hardware, clock, stop).run()


class _Agent:
    """The parts of a running agent."""

    def __init__(
        self, config: AgentConfig, hardware: NodeHardware, clock: Clock, stop: threading.Event
    ) -> None:
        self._stop = stop
        self._hardware = hardware
        state = config.state_dir
        version = importlib.metadata.version("pals-grid")

        def describe(slo: Slo) -> RegisterRequest:
            return describe_node(config.name, hardware, slo, version)

        request = describe(config.slo)
        safe_w = config.safe_power_w if config.safe_power_w is not None else request.power_min_w
        self._restore = RestoreFile(state / "original-limits.json")
        self._lease = Lease(state / "schedule.json", safe_w)
        self._spool = Spool(state / "spool.sqlite3")
        self._loop = ControlLoop(
            hardware,
            self._lease,
            clock,
            config.slo,
            self._restore,
            period_s=config.period_s,
            dry_run=config.dry_run,
        )
        self._meter = RowMeter()
        self._board = StatusBoard()
        link = HttpLink(config.url, config.enrolment_token)
        self._uplink = Uplink(
            link,
            request,
            self._lease,
            self._spool,
            self._loop.set_slo,
            # Without a table nothing depends on the objectives.
            describe=describe if any(unit.table for unit in hardware.units) else None,
        )

    def run(self) -> int:
        """Restore what a crash left, then tick until the stop."""
        for failure in self._loop.restore():
            log.warning("left over from an earlier run: %s", failure)
        self._uplink.start()
        failures: tuple[str, ...] = ()
        try:
            code = self._tick_until_stop()
        finally:
            failures = self._loop.restore()
            for failure in failures:
                log.error("not restored: %s", failure)
            self._finish()
        return code or (1 if failures else 0)

    def _tick_until_stop(self) -> int:
        while not self._stop.wait(self._loop.seconds_until_next()):
            report = self._loop.tick()
            for note in report.notes:
                log.warning("%s", note)
            if report.skipped:
                log.warning("%d ticks skipped, late by %.3f s", report.skipped, report.lag_s)
            self._keep(self._meter.add(report))
            self._uplink.show(self._board.add(report))
            if self._uplink.refused is not None and self._lease.version == 0:
                log.error("the service refuses this node: %s", self._uplink.refused)
                return EXIT_REFUSED
        return 0

    def _keep(self, rows: Rows) -> None:
        if not rows:
            return
        try:
            self._spool.append(rows)
        except sqlite3.Error as error:
            count = len(rows.engine_rows) + len(rows.gpu_rows)
            log.error("%d rows are lost, the spool takes none: %s", count, error)  # noqa: TRY400 - the message says it all
        self._uplink.rows_waiting()

    def _finish(self) -> None:
        self._keep(self._meter.flush())
        self._uplink.drain_within(LAST_UPLOAD_S)
        self._uplink.stop()


def _build_hardware(
    config: AgentConfig, clock: Clock, build_units: BuildUnits | None
) -> NodeHardware:
    if config.hardware not in {"auto", "nvml", "sim"}:
        raise ConfigurationError(f"hardware: must be auto, nvml or sim, got {config.hardware!r}")
    if config.hardware == "nvml" or (config.hardware == "auto" and can_open_gpus()):
        return build_real_node(config.engine_metrics_url, config.engine_model, config.slo)
    if build_units is None:
        raise ConfigurationError("hardware: NVML does not answer and no simulation is built in")
    return build_units(config, clock)


@contextlib.contextmanager
def _own(state_dir: Path) -> Iterator[None]:
    """Hold the state directory alone: two agents would overwrite each other's originals."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"state_dir: {state_dir} is in use by another agent"
            ) from error
        yield


@contextlib.contextmanager
def _stop_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM, SIGINT and a closed terminal set ``stop``; only the main thread takes signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants it to run on
        names.append(signal.SIGHUP)
    before = [signal.signal(name, lambda *_: stop.set()) for name in names]
    try:
        yield
    finally:
        for name, previous in zip(names, before, strict=True):
            signal.signal(name, previous)


def _watch_parent(descriptor: int, stop: threading.Event) -> None:
    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(descriptor, 1):
                pass
        stop.set()

    threading.Thread(target=watch, name="pals-grid-parent", daemon=True).start()
