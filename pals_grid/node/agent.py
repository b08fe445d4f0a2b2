"""The node agent: one process that ticks, follows its lease, spools rows and restores limits."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import signal
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import ConfigurationError, InvalidValue
from pals_grid.core.site import Slo
from pals_grid.node.course import Course
from pals_grid.node.describe import describe_node
from pals_grid.node.devices import MAKERS
from pals_grid.node.files import hold_state_dir
from pals_grid.node.grants import GrantFile, LiveGrants
from pals_grid.node.helper.client import HelperClient, HelperOriginals, use_helper
from pals_grid.node.holds import BeatMaker
from pals_grid.node.lease import Lease
from pals_grid.node.link import HttpLink
from pals_grid.node.loop import ControlLoop
from pals_grid.node.meter import RowMeter
from pals_grid.node.meters.choose import MeterConfig
from pals_grid.node.real import ServerConfig, build_real_node, can_open_gpus
from pals_grid.node.restore import RestoreFile
from pals_grid.node.spool import Spool
from pals_grid.node.status import StatusBoard
from pals_grid.node.stopping import signals_taken
from pals_grid.node.strategies.options import make_options
from pals_grid.node.strategies.registry import DEFAULT_STRATEGY, STRATEGIES, make_strategy
from pals_grid.node.tables import use_table, use_tier
from pals_grid.node.uplink import Uplink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.ports import Clock
    from pals_grid.node.hardware import NodeHardware
    from pals_grid.node.report import ActiveEnvelope
    from pals_grid.node.restore import Originals
    from pals_grid.node.rows import Rows
    from pals_grid.node.strategy import Strategy
    from pals_grid.wire.messages import RegisterRequest

log = logging.getLogger(__name__)

LAST_UPLOAD_S = 1.0
EXIT_REFUSED = 3


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Settings of one agent.

    ``hardware`` is ``nvml``, ``amd``, ``intel``, ``sim`` or ``auto`` (all GPUs that answer).
    ``safe_power_w`` holds at node boundary while there never was a schedule; None means the
    node's least power. ``engine_metrics_url`` is a vLLM server's address, ``engine_channel`` the
    directory of its shared-memory channel, ``engine_batch_mode`` how its batch shrinks; ``slo``
    holds until the service gives its own. ``parent_fd`` is a pipe whose end of file means that
    the parent died. ``strategy`` and its options are those of ``node.strategies``.
    ``frontier_table`` is a file that ``profile fit`` wrote; it takes the place of the built-in
    table. ``max_loss_ratio`` is the priority tier of the node's engines. ``engine_gpus`` are the
    UUIDs of the engine's GPUs where it does not run on all of them; ``meter`` says how the whole
    node's power is known. ``helper_socket`` is the privileged helper's, which then writes in the
    agent's place; a dry run does not use it.
    """

    url: str
    enrolment_token: str
    name: str
    state_dir: Path
    hardware: str = "auto"
    safe_power_w: float | None = None
    engine_metrics_url: str | None = None
    engine_model: str | None = None
    engine_channel: Path | None = None
    engine_batch_mode: str = "drain"
    dry_run: bool = False
    parent_fd: int | None = None
    period_s: float = 0.5
    slo: Slo = field(default_factory=Slo)
    strategy: str = DEFAULT_STRATEGY
    strategy_options: Mapping[str, str] = field(default_factory=dict)
    frontier_table: Path | None = None
    max_loss_ratio: float = 0.0
    helper_socket: Path | None = None
    engine_gpus: tuple[str, ...] = ()
    meter: MeterConfig = field(default_factory=MeterConfig)


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
        ConfigurationError: when the state directory is in use, there is no hardware, the
            frontier table is for another engine, or a run without helper left limits behind.
        InvalidValue: for a strategy or an option that does not exist; names those that do.
        DeviceError: when ``hardware`` names a driver that does not answer.
    """
    stop = stop or threading.Event()
    clock = SystemClock()
    with hold_state_dir(config.state_dir), signals_taken(_stop_signals(), lambda _: stop.set()):
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
        self._clock = clock
        state = config.state_dir
        own = RestoreFile(state / "original-limits.json")
        self._originals: Originals = own
        self._helper: HelperClient | None = None
        self._dry_run = config.dry_run
        self._left_over = False
        if config.helper_socket is not None and not config.dry_run:
            _require_nothing_left(own, state)
            self._helper = HelperClient(config.helper_socket, config.name)
            hardware = use_helper(hardware, self._helper)
            self._originals = HelperOriginals(self._helper)
        self._hardware = hardware
        self._beats = BeatMaker(hardware)
        version = importlib.metadata.version("pals-grid")

        def describe(slo: Slo) -> RegisterRequest:
            request = describe_node(config.name, hardware, slo, version)
            self._course.most_w = request.power_max_w
            return request

        request = describe_node(config.name, hardware, config.slo, version)
        safe_w = config.safe_power_w if config.safe_power_w is not None else request.power_min_w
        self._lease = Lease(state / "schedule.json", safe_w)
        # A dry run carries nothing out: power that is lent must not count on it.
        grants = None if config.dry_run else LiveGrants(GrantFile(state / "grant.json"), clock)
        self._course = Course(self._lease, clock, grants, request.power_max_w)
        self._spool = Spool(state / "spool.sqlite3")
        self._loop = ControlLoop(
            hardware,
            self._course,
            clock,
            config.slo,
            self._originals,
            period_s=config.period_s,
            dry_run=config.dry_run,
            strategy=_make_strategy(config, hardware),
            announce=self._tell_helper if self._helper is not None else None,
        )
        self._meter = RowMeter()
        self._board = StatusBoard(takes_grants=grants is not None)
        link = HttpLink(config.url, config.enrolment_token)
        self._uplink = Uplink(
            link,
            request,
            self._lease,
            self._spool,
            self._loop.set_slo,
            # Without a table nothing depends on the objectives.
            describe=describe if any(unit.table for unit in hardware.units) else None,
            grants=grants,
        )

    def run(self) -> int:
        """Restore what a crash left, then tick until the stop."""
        if self._helper is None and not self._dry_run:
            self._restore_left_over()
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

    def _restore_left_over(self) -> None:
        """Restore what a crash left, but not in an event or under a grant: then afterwards.

        The helper, where there is one, does that by itself.
        """
        self._left_over = self._course.is_binding_at(self._clock.now())
        if self._left_over:
            return
        gpus = [gpu for unit in self._hardware.units for gpu in unit.gpus]
        for failure in self._originals.restore(gpus):
            log.warning("left over from an earlier run: %s", failure)

    def _tell_helper(self, envelope: ActiveEnvelope, at: datetime) -> None:
        """Before the writes of a tick tell the helper what holds without this agent."""
        assert self._helper is not None
        now_s = self._clock.monotonic_s()
        note = self._helper.beat(
            self._beats.beat_at(self._lease.schedule, at, envelope.held, now_s)
        )
        if note is not None:
            log.warning("%s", note)

    def _tick_until_stop(self) -> int:
        while not self._stop.wait(self._loop.seconds_until_next()):
            if self._left_over:
                self._restore_left_over()
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
        for part in (self._hardware.meter, *(unit.engine for unit in self._hardware.units)):
            close = getattr(part, "close", None)  # those that hold threads or files have one
            if close is not None:
                close()


def _require_nothing_left(originals: RestoreFile, state_dir: Path) -> None:
    if originals.pending or originals.pending_clocks:
        raise ConfigurationError(
            f"helper: {state_dir / 'original-limits.json'} holds limits that a run without helper "
            "left behind; run the agent once more without --helper, with the right to restore them"
        )


def _build_hardware(
    config: AgentConfig, clock: Clock, build_units: BuildUnits | None
) -> NodeHardware:
    known = ("auto", *MAKERS, "sim")
    if config.hardware not in known:
        raise ConfigurationError(
            f"hardware: must be one of {', '.join(known)}, got {config.hardware!r}"
        )
    table = load_table(config.frontier_table)
    if config.hardware in MAKERS or (config.hardware == "auto" and can_open_gpus()):
        server = ServerConfig(
            config.engine_metrics_url,
            config.engine_model,
            config.engine_channel,
            config.engine_batch_mode,
            config.engine_gpus,
        )
        hardware = build_real_node(
            server,
            config.slo,
            look_up_table=table is None,
            hardware=config.hardware,
            meter=config.meter,
        )
    elif build_units is None:
        raise ConfigurationError("hardware: no GPU answers and no simulation is built in")
    elif config.meter.kind not in {"auto", "linear"}:
        raise ConfigurationError(
            f"node_meter: must be auto or linear for a simulated node, got {config.meter.kind!r}"
        )
    else:
        hardware = build_units(config, clock)
    if table is not None:
        hardware = use_table(hardware, table)
    return use_tier(hardware, config.max_loss_ratio)


def load_table(path: Path | None) -> FrontierTable | None:
    """Read a frontier table; none without a file.

    Raises:
        InvalidValue: when it is not one.
        OSError: when it cannot be read.
    """
    if path is None:
        return None
    from pals_grid.powermodel.frontier_file import load_frontier  # noqa: PLC0415 - rarely needed

    return load_frontier(path)


def _make_strategy(config: AgentConfig, hardware: NodeHardware) -> Strategy:
    if config.strategy not in STRATEGIES:
        known = f"must be one of {', '.join(STRATEGIES)}"
        raise InvalidValue("strategy", config.strategy, known)
    make_options(config.strategy_options)  # an unknown name would else clash with an argument
    return make_strategy(
        config.strategy,
        hardware.units,
        hardware.overhead,
        config.slo,
        **config.strategy_options,
    )


def _stop_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT and a closed terminal; not that one where nohup wants the agent to run on."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def _watch_parent(descriptor: int, stop: threading.Event) -> None:
    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(descriptor, 1):
                pass
        stop.set()

    threading.Thread(target=watch, name="pals-grid-parent", daemon=True).start()
