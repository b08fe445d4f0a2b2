"""From ticks to 5-s rows on the wall clock's grid: no joule and no token lost or doubled.

Between two ticks energy and tokens are spread evenly over time, so a stretch that crosses a
row's edge is cut there. Counts go to the row of the tick that saw them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.intervals import floor_to
from pals_grid.node.rows import EngineAmounts, EngineSum, GpuSum, OpenRow, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pals_grid.core.ports import EngineSample, GpuSample
    from pals_grid.node.report import EngineTick, TickReport


class RowMeter:
    """Sums ticks.

    A wall clock that steps back stands still here until it has caught up; one that jumps ahead
    leaves a gap, and what was used on the way falls just before its new time.
    """

    def __init__(self, row_s: float = 5.0) -> None:
        self._step = timedelta(seconds=row_s)
        self._open: OpenRow | None = None
        self._before: TickReport | None = None
        self._at: datetime | None = None
        self._gpus: dict[str, GpuSample] = {}
        self._engines: dict[str, EngineSample] = {}
        self.counter_resets = 0

    def add(self, report: TickReport) -> Rows:
        """Take a tick; returns the rows that it completed."""
        before, self._before = self._before, report
        from_at = self._at
        at = self._at = report.at if from_at is None else max(from_at, report.at)
        if before is None or from_at is None:
            self._learn(report)
            return Rows()
        dt_s = report.monotonic_s - before.monotonic_s
        energies = {
            gpu.uuid: self._energy_j(gpu.uuid, gpu.sample, dt_s)
            for tick in report.engines
            for gpu in tick.gpus
            if gpu.sample is not None
        }
        amounts = self._amounts(report, energies, dt_s)
        done: list[Rows] = []
        from_at = self._without_jump(from_at, at, dt_s, done)
        for row, ratio in self._pieces(from_at, at, done):
            for tick in report.engines:
                _engine_sum(row, tick, report).add_piece(
                    tick, report, amounts[tick.name], ratio, dt_s
                )
                for gpu in tick.gpus:
                    if gpu.sample is not None:
                        energy_j, _ = energies[gpu.uuid]
                        total = row.gpus.get(gpu.uuid)
                        if total is None:
                            total = row.gpus[gpu.uuid] = GpuSum(gpu.uuid)
                        total.add_piece(gpu.sample, energy_j, ratio, dt_s)
        for tick in report.engines:
            row = self._row_at(at)
            _engine_sum(row, tick, report).add_tick(tick, report, amounts[tick.name])
        self._learn(report)
        return _joined(done)

    def flush(self) -> Rows:
        """Return the open row, cut where its last tick was: for a clean end."""
        row, at = self._open, self._at
        self._open = self._before = self._at = None
        return row.close(at) if row is not None else Rows()

    def _without_jump(
        self, from_at: datetime, at: datetime, dt_s: float, done: list[Rows]
    ) -> datetime:
        """Return where the stretch begins; a row that a jump left behind goes to ``done``."""
        elapsed = timedelta(seconds=dt_s)
        if at - from_at <= elapsed + self._step:
            return from_at
        if self._open is not None:
            done.append(self._open.close(from_at))
            self._open = None
        return at - elapsed

    def _pieces(
        self, from_at: datetime, at: datetime, done: list[Rows]
    ) -> Iterator[tuple[OpenRow, float]]:
        """Cut ``[from_at, at)`` at row edges; rows that end on the way go to ``done``."""
        if at == from_at:
            yield self._row_at(at), 1.0
            return
        cursor = from_at
        while cursor < at:
            row = self._row_at(cursor)
            edge = min(row.end_at, at)
            yield row, (edge - cursor) / (at - from_at)
            if edge == row.end_at:
                done.append(row.close())
                self._open = None
            cursor = edge

    def _row_at(self, at: datetime) -> OpenRow:
        # A first row starts at its first tick, not on the grid: a restart inside one grid slot
        # must not give two rows the same start.
        if self._open is None:
            self._open = OpenRow(at, floor_to(at, self._step) + self._step)
        return self._open

    def _amounts(
        self, report: TickReport, energies: dict[str, tuple[float, bool]], dt_s: float
    ) -> dict[str, EngineAmounts]:
        """Divide a stretch: the node's overhead by GPU energy, evenly where there was none."""
        by_engine = {
            tick.name: [energies[gpu.uuid] for gpu in tick.gpus if gpu.sample is not None]
            for tick in report.engines
        }
        gpu_j = {name: sum(j for j, _ in parts) for name, parts in by_engine.items()}
        whole_j = sum(gpu_j.values())
        around_j = max(0.0, report.node_power.power_w - report.gpu_power_w) * dt_s
        result: dict[str, EngineAmounts] = {}
        for tick in report.engines:
            share = gpu_j[tick.name] / whole_j if whole_j > 0 else 1 / len(gpu_j)
            result[tick.name] = self._engine_amounts(
                tick,
                gpu_j[tick.name],
                gpu_j[tick.name] + around_j * share,
                estimated=any(guess for _, guess in by_engine[tick.name]),
            )
        return result

    def _engine_amounts(
        self, tick: EngineTick, gpu_energy_j: float, node_energy_j: float, *, estimated: bool
    ) -> EngineAmounts:
        now, before = tick.sample, self._engines.get(tick.name)
        if now is None or before is None:
            return EngineAmounts(gpu_energy_j, node_energy_j, 0.0, 0.0, 0, 0, 0, 0, estimated)
        finished = int(self._increase(before.requests_finished_total, now.requests_finished_total))
        return EngineAmounts(
            gpu_energy_j,
            node_energy_j,
            self._increase(before.tokens_in_total, now.tokens_in_total),
            self._increase(before.tokens_out_total, now.tokens_out_total),
            max(0, finished + _inside(now) - _inside(before)),
            finished,
            int(self._increase(before.ttft_misses_total, now.ttft_misses_total)),
            int(self._increase(before.itl_misses_total, now.itl_misses_total)),
            estimated,
        )

    def _energy_j(self, uuid: str, sample: GpuSample, dt_s: float) -> tuple[float, bool]:
        """Energy since the last look, and whether it is power times time: no counter to compare."""
        before = self._gpus.get(uuid)
        if before is not None and sample.energy_j >= before.energy_j:
            return sample.energy_j - before.energy_j, False
        if before is not None:
            self.counter_resets += 1
        return sample.power_draw_w * dt_s, True

    def _increase(self, before: float, now: float) -> float:
        """Rise of a counter; one that fell began again at zero."""
        if now >= before:
            return now - before
        self.counter_resets += 1
        return now

    def _learn(self, report: TickReport) -> None:
        for tick in report.engines:
            if tick.sample is not None:
                self._engines[tick.name] = tick.sample
            for gpu in tick.gpus:
                if gpu.sample is not None:
                    self._gpus[gpu.uuid] = gpu.sample


def _inside(sample: EngineSample) -> int:
    return sample.requests_running + sample.requests_waiting + sample.requests_deferred


def _engine_sum(row: OpenRow, tick: EngineTick, report: TickReport) -> EngineSum:
    total = row.engines.get(tick.name)
    if total is None:
        total = EngineSum(tick.name, tick.model, tick.origin, report.node_power.origin)
        row.engines[tick.name] = total
    return total


def _joined(done: list[Rows]) -> Rows:
    return Rows(
        tuple(row for rows in done for row in rows.engine_rows),
        tuple(row for rows in done for row in rows.gpu_rows),
    )
