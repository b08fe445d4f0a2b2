"""``pals``: the algorithm of PALS (arXiv 2605.21427) and nothing else.

Every tick: (1) the (limit, batch) pairs whose predicted power exceeds the budget are dropped;
(2) of those that meet the throughput target the highest tokens/J is taken; (3) where none meets
it, the highest throughput inside the budget; (4) a PID corrects the limit when throughput is off
the target by more than 5 %, and starts afresh when budget or target change.

What the paper leaves open, and is chosen here: without a target in the envelope the target is
what arrived over the last 30 s in output tokens/s, or the most there is while a queue stands;
where nothing fits, the pair of least predicted power is taken; the throughput is a mean over
5 s; several engines share budget and target by their highest throughput. Latency, forecasts,
measured power and the SM clock play no part.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.core.commands import NodeCommand
from pals_grid.core.errors import InvalidValue
from pals_grid.node.decision import Decision
from pals_grid.node.report import Mode
from pals_grid.node.strategies.pid import ThroughputPid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pals_grid.core.fleet import OperatingPoint
    from pals_grid.core.ports import EngineSample, NodePower
    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope
    from pals_grid.powermodel.overhead import NodeOverhead

THROUGHPUT_TAU_S = 5.0
ARRIVALS_TAU_S = 30.0

BEST = "highest tokens/J that meets the target"
MOST = "highest throughput inside the budget"
LEAST = "least predicted power: nothing fits the budget"
CORRECTED = "; corrected by PID"


class PaperStrategy:
    """PALS for all units of a node."""

    def __init__(self, units: Sequence[EngineUnit], overhead: NodeOverhead) -> None:
        self._units = [_Unit(unit) if unit.table is not None else None for unit in units]
        self._overhead = overhead
        self._most = sum(unit.most_tokens_per_s for unit in self._units if unit is not None)

    def set_slo(self, slo: Slo) -> None:
        """Take no notice: the paper knows no latency objectives."""

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        """Choose among the pairs of the batches that unit ``index``'s engine lets be set."""
        unit = self._units[index]
        if unit is not None:
            unit.hold_batch(max_num_seqs, refused=refused)

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Decide for every unit; ``node_power`` is not looked at."""
        del node_power
        budget_w = self._overhead.gpu_power_w(envelope.power_max_w)
        planned = envelope.mode is Mode.FOLLOWING and envelope.target_tokens_per_s > 0
        decisions: list[Decision] = []
        for unit, view in zip(self._units, seen, strict=True):
            if unit is None or view.engine is None or view.gpus_seen == 0:
                decisions.append(Decision(0.0, None))
                continue
            part = unit.most_tokens_per_s / self._most
            unit.observe(view.engine, dt_s)
            target = envelope.target_tokens_per_s * part if planned else unit.asked(view.engine)
            decisions.append(unit.decide(budget_w * part, target, dt_s))
        return decisions


def choose_pair(
    points: Iterable[OperatingPoint], budget_w: float, target_tokens_per_s: float
) -> tuple[OperatingPoint, str]:
    """Steps 1 to 3 over ``points`` sorted by falling tokens/J; with the reason.

    ``budget_w`` is GPU power, all GPUs of the engine together. A tie in tokens/J keeps the
    first, one in throughput goes to the higher tokens/J.
    """
    most: OperatingPoint | None = None
    for point in points:
        if point.gpu_power_w > budget_w:
            continue
        if point.tokens_per_s >= target_tokens_per_s:
            return point, BEST
        if most is None or point.tokens_per_s > most.tokens_per_s:
            most = point
    if most is not None:
        return most, MOST
    return min(points, key=lambda point: point.gpu_power_w), LEAST


def efficiency(point: OperatingPoint) -> float:
    """Output tokens per joule of GPU energy."""
    return point.tokens_per_s / point.gpu_power_w if point.gpu_power_w > 0 else math.inf


class _Unit:
    def __init__(self, unit: EngineUnit) -> None:
        assert unit.table is not None
        free = [p for p in unit.table.points if p.sm_clock_mhz is None]
        if not free:
            raise InvalidValue("points", unit.name, "pals needs points with a free clock")
        self._points = sorted(free, key=lambda p: (-efficiency(p), p.gpu_power_w))
        self._all = self._points
        self._gpu_count = len(unit.gpus)
        self._low_w = max(gpu.limit_range.min_w for gpu in unit.gpus)
        self._high_w = min(gpu.limit_range.max_w for gpu in unit.gpus)
        self._pid = ThroughputPid()
        self._throughput: float | None = None
        self._arrivals_per_s: float | None = None
        self._before: EngineSample | None = None
        self.most_tokens_per_s = max(p.tokens_per_s for p in free)

    def hold_batch(self, max_num_seqs: int | None, *, refused: bool) -> None:
        batches = sorted({p.max_num_seqs for p in self._all})
        most = batches[-1]
        if max_num_seqs is not None:
            most = max((b for b in batches if b <= max_num_seqs), default=batches[0])
        low = most if refused else batches[0]
        self._points = [p for p in self._all if low <= p.max_num_seqs <= most]

    def observe(self, engine: EngineSample, dt_s: float) -> None:
        before, self._before = self._before, engine
        if before is None or dt_s <= 0:
            return
        tokens = max(0.0, engine.tokens_out_total - before.tokens_out_total)
        finished = max(0, engine.requests_finished_total - before.requests_finished_total)
        inside = engine.requests_running + engine.requests_waiting
        arrived = finished + inside - before.requests_running - before.requests_waiting
        self._throughput = _blend(self._throughput, tokens / dt_s, dt_s / THROUGHPUT_TAU_S)
        self._arrivals_per_s = _blend(self._arrivals_per_s, arrived / dt_s, dt_s / ARRIVALS_TAU_S)

    def asked(self, engine: EngineSample) -> float:
        """Output tokens/s that clients ask for; the most there is while a queue stands."""
        if engine.requests_waiting > 0:
            return self.most_tokens_per_s
        if engine.requests_finished_total <= 0:
            return self._throughput or 0.0
        size = engine.tokens_out_total / engine.requests_finished_total
        return min(self.most_tokens_per_s, max(0.0, self._arrivals_per_s or 0.0) * size)

    def decide(self, budget_w: float, target: float, dt_s: float) -> Decision:
        point, reason = choose_pair(self._points, budget_w, target)
        limit_w = point.power_limit_w
        if reason is not LEAST:
            throughput = self._throughput if self._throughput is not None else target
            limit_w = self._pid.correct(
                point.power_limit_w,
                (target - throughput) / target if target > 0 else 0.0,
                dt_s,
                basis=(point.power_limit_w, budget_w, target),
                low_w=self._low_w,
                high_w=min(self._high_w, max(point.power_limit_w, budget_w / self._gpu_count)),
            )
            if abs(limit_w - point.power_limit_w) >= 1.0:
                reason += CORRECTED
        limit_w = min(max(limit_w, self._low_w), self._high_w)
        return Decision(target, NodeCommand(limit_w, point.max_num_seqs, reason))


def _blend(before: float | None, value: float, steps: float) -> float:
    if before is None:
        return value
    return before + (value - before) * (1 - math.exp(-steps))
