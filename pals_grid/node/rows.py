"""One engine's and one GPU's sums over a 5-s row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import Struct

from pals_grid.core.fleet import Origin
from pals_grid.wire.messages import EngineRow, GpuRow

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.ports import GpuSample
    from pals_grid.node.report import EngineTick, TickReport


@dataclass(frozen=True, slots=True)
class Rows:
    """Finished rows; false when there are none."""

    engine_rows: tuple[EngineRow, ...] = ()
    gpu_rows: tuple[GpuRow, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.engine_rows or self.gpu_rows)


class EngineAmounts(Struct, frozen=True):
    """What one engine used and did between two ticks; energies in joules at the boundary named.

    ``estimated`` says that a part of the GPU energy is power times time, not a counter's.
    """

    gpu_energy_j: float
    node_energy_j: float
    tokens_in: float
    tokens_out: float
    requests_arrived: int
    requests_finished: int
    ttft_misses: int
    itl_misses: int
    estimated: bool


@dataclass(slots=True)
class EngineSum:
    """Grows from the pieces of tick-to-tick stretches that fall into one row."""

    engine: str
    model: str
    origin: Origin
    node_origin: Origin
    seconds: float = 0.0
    ticks: int = 0
    over_envelope: int = 0
    gpu_energy_j: float = 0.0
    node_energy_j: float = 0.0
    idle_energy_j: float = 0.0
    power_draw_max_w: float = 0.0
    limit_ws: float = 0.0
    envelope_ws: float = 0.0
    running_s: float = 0.0
    waiting_s: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    requests_arrived: int = 0
    requests_finished: int = 0
    ttft_misses: int = 0
    itl_misses: int = 0
    max_num_seqs: int = 0

    def add_piece(
        self,
        tick: EngineTick,
        report: TickReport,
        amounts: EngineAmounts,
        ratio: float,
        dt_s: float,
    ) -> None:
        """Add ``ratio`` of a stretch of ``dt_s`` that ended with ``tick``."""
        part_s = ratio * dt_s
        self.seconds += part_s
        self.gpu_energy_j += ratio * amounts.gpu_energy_j
        self.node_energy_j += ratio * amounts.node_energy_j
        self.tokens_in += ratio * amounts.tokens_in
        self.tokens_out += ratio * amounts.tokens_out
        self.limit_ws += part_s * tick.power_limit_w
        self.envelope_ws += part_s * report.envelope.power_max_w
        if tick.sample is not None:
            self.running_s += part_s * tick.sample.requests_running
            self.waiting_s += part_s * tick.sample.requests_waiting
        if tick.sample is None or tick.sample.requests_running == 0:
            self.idle_energy_j += ratio * amounts.node_energy_j
        if amounts.estimated and self.origin is Origin.MEASURED:
            self.origin = Origin.MODELLED
        if self.node_origin is Origin.MEASURED:  # a sum carries the weakest label of its parts
            self.node_origin = report.node_power.origin

    def add_tick(self, tick: EngineTick, report: TickReport, amounts: EngineAmounts) -> None:
        """Add what belongs to the tick's own instant: counts, the maximum, the batch size."""
        self.ticks += 1
        self.over_envelope += report.node_power.power_w > report.envelope.power_max_w
        self.power_draw_max_w = max(self.power_draw_max_w, tick.power_draw_w)
        self.requests_arrived += amounts.requests_arrived
        self.requests_finished += amounts.requests_finished
        self.ttft_misses += amounts.ttft_misses
        self.itl_misses += amounts.itl_misses
        if tick.sample is not None and tick.sample.max_num_seqs is not None:
            self.max_num_seqs = tick.sample.max_num_seqs

    def row(self, start_at: datetime, end_at: datetime) -> EngineRow:
        """Return the finished row."""
        seconds = self.seconds or 1.0
        return EngineRow(
            engine=self.engine,
            model=self.model,
            start_at=start_at,
            end_at=end_at,
            ticks=self.ticks,
            gpu_energy_j=self.gpu_energy_j,
            node_energy_j=self.node_energy_j,
            idle_energy_j=self.idle_energy_j,
            energy_origin=self.origin,
            node_energy_origin=self.node_origin,
            power_draw_w=self.gpu_energy_j / seconds,
            power_draw_max_w=self.power_draw_max_w,
            power_limit_w=self.limit_ws / seconds,
            power_envelope_w=self.envelope_ws / seconds,
            ticks_over_envelope=self.over_envelope,
            max_num_seqs=self.max_num_seqs,
            requests_running=self.running_s / seconds,
            requests_waiting=self.waiting_s / seconds,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            requests_arrived=self.requests_arrived,
            requests_finished=self.requests_finished,
            ttft_misses=self.ttft_misses,
            itl_misses=self.itl_misses,
        )


@dataclass(slots=True)
class GpuSum:
    """One GPU's part of a row."""

    uuid: str
    seconds: float = 0.0
    energy_j: float = 0.0
    limit_ws: float = 0.0
    last: GpuSample | None = None

    def add_piece(self, sample: GpuSample, energy_j: float, ratio: float, dt_s: float) -> None:
        """Add ``ratio`` of a stretch of ``dt_s`` that ended with ``sample``."""
        self.seconds += ratio * dt_s
        self.energy_j += ratio * energy_j
        self.limit_ws += ratio * dt_s * sample.power_limit_w
        self.last = sample

    def row(self, start_at: datetime, end_at: datetime) -> GpuRow:
        """Return the finished row."""
        seconds = self.seconds or 1.0
        return GpuRow(
            gpu_uuid=self.uuid,
            start_at=start_at,
            end_at=end_at,
            energy_j=self.energy_j,
            power_draw_w=self.energy_j / seconds,
            power_limit_w=self.limit_ws / seconds,
            temperature_c=self.last.temperature_c if self.last else None,
            sm_clock_mhz=self.last.sm_clock_mhz if self.last else None,
        )


@dataclass(slots=True)
class OpenRow:
    """All sums of the row that is being filled; starts and ends on the wall clock's grid."""

    start_at: datetime
    end_at: datetime
    engines: dict[str, EngineSum] = field(default_factory=dict)
    gpus: dict[str, GpuSum] = field(default_factory=dict)

    def close(self, end_at: datetime | None = None) -> Rows:
        """Return the rows, cut at ``end_at`` where the last one is not complete."""
        end = end_at if end_at is not None and self.start_at < end_at < self.end_at else self.end_at
        return Rows(
            tuple(item.row(self.start_at, end) for item in self.engines.values()),
            tuple(item.row(self.start_at, end) for item in self.gpus.values()),
        )
