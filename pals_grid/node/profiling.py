"""Measuring a unit's operating points: set a cell, let it settle, count tokens and joules.

Throughput and power come from counters that only rise, differenced over a window: output tokens
of the engine, and the GPUs' energy, which NVML renews every 20 to 100 ms, so that a window of a
second or more loses at most a few percent of its first and last sample. A cell is measured until
its windows stand for a steady state (``profile_window``), for after a change of the batch the
engine first works off prompts, or the sequences of the batch before.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError, InvalidValue
from pals_grid.core.ports import ClockLock
from pals_grid.node.profile_window import AGREE_RATIO, Reading, Window, choose_window
from pals_grid.node.restore import RestoreFile
from pals_grid.powermodel.profile import ProfileRow

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from pals_grid.core.commands import ActuationResult
    from pals_grid.core.ports import Clock, EngineSample, GpuSample
    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.powermodel.sampling import Cell

MAX_TEMPERATURE_C = 85.0
"""Ours, below where current data-centre boards slow down by themselves (about 87 to 90 C)."""

MIN_MEASURE_S = 2.0
_POLL_S = 0.5
_DRAIN_S = 180.0
_MOST_HALVES = 16
_OTHER_MIX_RATIO = 0.25
_SATURATED_RATIO = 0.9
_FULL_RATIO = 0.95
_LIMIT_TOLERANCE_W = 0.5
_CLOCK_TOLERANCE_MHZ = 16.0
_MOST_FAILURES = 3


class _Skipped(Exception):
    """This cell gives no row; the message says why."""


class _TooHot(_Skipped):
    """A GPU reached the temperature at which profiling leaves a cell."""


def profile_unit(  # noqa: PLR0913 - the ports, and how long to look
    unit: EngineUnit,
    cells: Iterable[Cell],
    *,
    clock: Clock,
    wait: Callable[[float], None],
    input_per_output: float | None,
    slo: Slo | None = None,
    settle_s: float = 2.0,
    measure_s: float = 8.0,
    restore: RestoreFile | None = None,
    tell: Callable[[str], None] | None = None,
    fixed_batch: int | None = None,
    max_temperature_c: float = MAX_TEMPERATURE_C,
) -> Generator[ProfileRow, None, None]:
    """Measure ``cells`` one by one, in steady state of a saturated engine.

    ``cells`` may be a generator that looks at the rows so far: each cell is asked for after the
    row before it was given. ``wait`` lets so many seconds pass; what it raises ends the profile.
    ``input_per_output`` is the mix of the load; None takes it as found. With an ``slo`` (its
    ITL; p99 where the engine tells, else the mean) a row that breaks it is the last of its
    batch: lower limits, lower clocks and larger batches are passed over, as are limits as high
    once a GPU is at ``max_temperature_c``. ``fixed_batch`` is the batch size of an engine that
    takes none. ``tell`` hears of each cell that gave no row, and why, and of what could not be
    restored.

    Limits, clocks and batch are put back at the end, however it comes; ``restore`` has the
    originals on the disk before the first write. Close the generator, by
    ``contextlib.closing``, where it is not run to its end.

    Raises:
        InvalidValue: for times that measure nothing.
        DeviceError: when the same device fails three cells running.
        OSError: when the originals cannot be stored; nothing was written then.
    """
    if not settle_s >= 0:
        raise InvalidValue("settle_s", settle_s, "must be 0 or more")
    if not MIN_MEASURE_S <= measure_s < math.inf:
        raise InvalidValue("measure_s", measure_s, f"must be {MIN_MEASURE_S:g} or more")
    sweep = _Sweep(
        _Bench(unit, clock, wait, fixed_batch, max_temperature_c),
        restore or RestoreFile(None),
        slo,
        input_per_output,
        tell or (lambda _: None),
    )
    return sweep.rows(cells, settle_s, measure_s)


class _Sweep:
    """Goes from cell to cell: what is passed over, what is told, what is put back."""

    def __init__(
        self,
        bench: _Bench,
        restore: RestoreFile,
        slo: Slo | None,
        input_per_output: float | None,
        tell: Callable[[str], None],
    ) -> None:
        self._bench = bench
        self._restore = restore
        self._slo = slo
        self._input_per_output = input_per_output
        self._tell = tell
        self._too_slow: list[Cell] = []
        self._too_hot: list[Cell] = []

    def rows(
        self, cells: Iterable[Cell], settle_s: float, measure_s: float
    ) -> Generator[ProfileRow, None, None]:
        """Yield a row for each cell that gives one."""
        failures = 0
        try:
            for cell in cells:
                try:
                    row = self._row(cell, settle_s, measure_s)
                except _Skipped as reason:
                    self._tell(f"{show_cell(cell)}: no row: {reason}")
                except DeviceError as error:
                    self._tell(f"{show_cell(cell)}: no row: {error}")
                    failures += 1
                    if failures >= _MOST_FAILURES:
                        raise
                else:
                    failures = 0
                    yield row
        finally:
            for failure in self._bench.restore(self._restore):
                self._tell(f"not restored: {failure}")

    def _row(self, cell: Cell, settle_s: float, measure_s: float) -> ProfileRow:
        if any(_is_slower(cell, broken) for broken in self._too_slow):
            raise _Skipped("a faster cell broke the latency objective")
        if any(_is_hotter(cell, broken) for broken in self._too_hot):
            raise _Skipped("a cooler cell was too hot")
        bench = self._bench
        self._restore.remember(*bench.originals(cell))
        bench.set(cell)
        try:
            bench.settle(cell, settle_s)
            window, off = bench.measure(cell, measure_s, self._input_per_output)
        except _TooHot:
            self._too_hot.append(cell)
            raise
        if off > AGREE_RATIO:
            self._tell(f"{show_cell(cell)}: {100 * off:.0f} % off a steady state")
        itl_s = window.itl_p99_s if window.itl_p99_s is not None else window.itl_s
        if self._slo is not None and itl_s is not None and itl_s > self._slo.itl_s:
            self._tell(f"{show_cell(cell)}: ITL {itl_s * 1000:.0f} ms breaks the objective")
            self._too_slow.append(cell)
        return self._labelled(cell, window)

    def _labelled(self, cell: Cell, window: Window) -> ProfileRow:
        unit = self._bench.unit
        return ProfileRow(
            gpu_model=unit.gpus[0].model,
            gpu_count=len(unit.gpus),
            model=unit.engine.model,
            power_limit_w=cell.power_limit_w,
            max_num_seqs=cell.max_num_seqs,
            tokens_per_s=window.tokens_per_s,
            gpu_power_w=window.power_w,
            tensor_parallel=len(unit.gpus),
            sm_clock_mhz=cell.sm_clock_mhz,
            input_per_output=(
                window.input_per_output
                if self._input_per_output is None
                else self._input_per_output
            ),
            ttft_s=window.ttft_s,
            itl_s=window.itl_s,
            origin=unit.origin,
        )


class _Bench:
    """The unit under test: sets, waits, reads, puts back."""

    def __init__(
        self,
        unit: EngineUnit,
        clock: Clock,
        wait: Callable[[float], None],
        fixed_batch: int | None,
        max_temperature_c: float,
    ) -> None:
        self.unit = unit
        self._clock = clock
        self._wait = wait
        self._fixed_batch = fixed_batch
        self._max_temperature_c = max_temperature_c
        self._locked = False
        self._free = {gpu.uuid for gpu in unit.gpus}
        self._original_batch: int | None = None

    def originals(self, cell: Cell) -> tuple[dict[str, float], tuple[str, ...]]:
        """Limits as they are, and the GPUs whose clock the cell locks."""
        limits_w = {gpu.uuid: gpu.observe().power_limit_w for gpu in self.unit.gpus}
        uuids = tuple(gpu.uuid for gpu in self.unit.gpus if isinstance(gpu, ClockLock))
        return limits_w, uuids if cell.sm_clock_mhz is not None else ()

    def set(self, cell: Cell) -> None:
        """Write the cell to every device, batch first: it is what may be refused for good."""
        self._set_batch(cell.max_num_seqs)
        for gpu in self.unit.gpus:
            _require_done(gpu.apply_power_limit(cell.power_limit_w), f"GPU {gpu.uuid}", "W")
        if cell.sm_clock_mhz is None and not self._locked:
            return
        for gpu in self.unit.gpus:
            if not isinstance(gpu, ClockLock):
                raise _Skipped(f"GPU {gpu.uuid}: its SM clock cannot be locked")
            self._locked = True
            result = gpu.apply_clock_limit(cell.sm_clock_mhz)
            if result.outcome is not Outcome.REFUSED:
                self._free.discard(gpu.uuid)
            _require_done(result, f"GPU {gpu.uuid}", "MHz")
        self._locked = cell.sm_clock_mhz is not None

    def settle(self, cell: Cell, settle_s: float) -> None:
        """Wait until the batch is drained and the GPUs are cool enough, then ``settle_s``."""
        deadline_s = self._clock.monotonic_s() + _DRAIN_S
        while self._clock.monotonic_s() < deadline_s:
            hot = self._hottest_c(self._check_gpus(cell, settled=False)) >= self._max_temperature_c
            running = self._engine(cell).requests_running
            if running <= cell.max_num_seqs and not hot:
                self._keep(cell, settle_s)
                return
            self._wait(_POLL_S)
        if hot:
            raise _TooHot(f"a GPU does not cool below {self._max_temperature_c:g} C")
        raise _Skipped(f"{running} sequences still run after {_DRAIN_S:g} s")

    def _keep(self, cell: Cell, seconds: float) -> None:
        """Wait, and look at the engine all the while: its batch size may be a lease."""
        end_s = self._clock.monotonic_s() + seconds
        while (left_s := end_s - self._clock.monotonic_s()) > 1e-6:
            self._wait(min(_POLL_S, left_s))
            self._engine(cell)

    def measure(
        self, cell: Cell, measure_s: float, input_per_output: float | None
    ) -> tuple[Window, float]:
        """Measure halves of ``measure_s`` until they are steady; how far off they stayed."""
        halves = [self._window(cell, measure_s / 2)]
        off = math.inf
        while off > AGREE_RATIO and len(halves) < _MOST_HALVES:
            halves.append(self._window(cell, measure_s / 2))
            window, off = choose_window(halves, input_per_output)
        if window.saturated < _SATURATED_RATIO * window.polls:
            raise _Skipped("the engine is not saturated: it needs a queue or a full batch")
        if window.tokens_per_s <= 0 or window.power_w <= 0:
            raise _Skipped("no token came out, or a counter fell")
        if input_per_output and off > _OTHER_MIX_RATIO:
            found = f"{window.input_per_output:.2f} prompt tokens per output token"
            raise _Skipped(f"{found}, where {input_per_output:.2f} were expected")
        return window, off

    def restore(self, originals: RestoreFile) -> tuple[str, ...]:
        """Put everything back; returns what could not be proven."""
        with contextlib.suppress(OSError):  # then they are released all the same
            originals.forget_clocks(self._free)
        failures = originals.restore(self.unit.gpus)
        if self._original_batch is None:
            return failures
        result = self.unit.engine.apply_max_num_seqs(self._original_batch)
        if result.outcome is Outcome.APPLIED:
            return failures
        text = f"engine {self.unit.name}: original max_num_seqs {self._original_batch}"
        return (*failures, f"{text}: {result.outcome} {result.detail}".rstrip())

    def _set_batch(self, wanted: int) -> None:
        if self._fixed_batch is not None:
            if wanted != self._fixed_batch:
                raise _Skipped(f"max_num_seqs is fixed at {self._fixed_batch}")
            return
        engine = self.unit.engine
        found = engine.observe().max_num_seqs
        if self._original_batch is None:
            self._original_batch = found
        if found != wanted:
            _require_done(engine.apply_max_num_seqs(wanted), "max_num_seqs", "sequences")

    def _window(self, cell: Cell, seconds: float) -> Window:
        first = self._reading(self._engine(cell), self._check_gpus(cell, settled=True))
        window = Window(first, first)
        while (left_s := first.at_s + seconds - self._clock.monotonic_s()) > 1e-6:
            self._wait(min(_POLL_S, left_s))
            engine = self._engine(cell)
            window.last = self._reading(engine, self._check_gpus(cell, settled=True))
            window.polls += 1
            window.saturated += _is_saturated(engine, cell.max_num_seqs)
            window.running += engine.requests_running
            window.itl_p99_s = engine.itl_p99_s
        return window

    def _engine(self, cell: Cell) -> EngineSample:
        sample = self.unit.engine.observe()
        if sample.max_num_seqs not in {None, cell.max_num_seqs}:
            raise _Skipped(f"max_num_seqs reads back as {sample.max_num_seqs}")
        return sample

    def _check_gpus(self, cell: Cell, *, settled: bool) -> list[GpuSample]:
        """Read the GPUs; none may stand elsewhere than was set or, once settled, be too hot."""
        samples = [gpu.observe() for gpu in self.unit.gpus]
        for gpu, sample in zip(self.unit.gpus, samples, strict=True):
            name, clock_mhz = f"GPU {gpu.uuid}", sample.sm_clock_mhz
            if abs(sample.power_limit_w - cell.power_limit_w) > _LIMIT_TOLERANCE_W:
                raise _Skipped(f"{name}: its limit reads back as {sample.power_limit_w:g} W")
            if settled and (clock_mhz or 0.0) > _clock_mhz(cell) + _CLOCK_TOLERANCE_MHZ:
                raise _Skipped(f"{name}: its SM clock is {clock_mhz:g} MHz, above the lock")
        if settled and self._hottest_c(samples) >= self._max_temperature_c:
            raise _TooHot(f"a GPU is at {self._hottest_c(samples):g} C")
        return samples

    @staticmethod
    def _hottest_c(samples: list[GpuSample]) -> float:
        return max((sample.temperature_c or 0.0) for sample in samples)

    def _reading(self, engine: EngineSample, gpus: list[GpuSample]) -> Reading:
        energy_j = sum(gpu.energy_j for gpu in gpus)
        now_s = self._clock.monotonic_s()
        return Reading(
            now_s,
            engine.tokens_in_total,
            engine.tokens_out_total,
            energy_j,
            engine.requests_finished_total,
            engine.prefills_total,
            engine.prefill_s_total,
        )


def show_cell(cell: Cell) -> str:
    """One cell as people read it."""
    clock = "" if cell.sm_clock_mhz is None else f", {cell.sm_clock_mhz:g} MHz"
    return f"{cell.power_limit_w:g} W, batch {cell.max_num_seqs}{clock}"


def _is_slower(cell: Cell, other: Cell) -> bool:
    """Whether ``cell`` is nowhere faster than ``other``."""
    return (
        cell.max_num_seqs >= other.max_num_seqs
        and cell.power_limit_w <= other.power_limit_w
        and _clock_mhz(cell) <= _clock_mhz(other)
    )


def _is_hotter(cell: Cell, other: Cell) -> bool:
    """Whether ``cell`` lets the GPUs draw no less than ``other``."""
    return (
        cell.max_num_seqs >= other.max_num_seqs
        and cell.power_limit_w >= other.power_limit_w
        and _clock_mhz(cell) >= _clock_mhz(other)
    )


def _clock_mhz(cell: Cell) -> float:
    return math.inf if cell.sm_clock_mhz is None else cell.sm_clock_mhz


def _is_saturated(engine: EngineSample, max_num_seqs: int) -> bool:
    waiting = engine.requests_waiting + engine.requests_deferred
    return waiting > 0 or engine.requests_running >= _FULL_RATIO * max_num_seqs


def _require_done(result: ActuationResult, name: str, unit: str) -> None:
    """Pass what was applied; a clock that cannot be proven yet is checked once it has settled."""
    if result.outcome in {Outcome.CLAMPED, Outcome.REFUSED}:
        found = "" if result.read_back is None else f", reads back {result.read_back:g} {unit}"
        text = f"{name}: {result.requested:g} {unit} {result.outcome}{found}"
        raise _Skipped(f"{text}: {result.detail}" if result.detail else text)
