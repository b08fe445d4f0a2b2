"""The rivals, behind the same port as the production strategies.

All calibrations use the controller's own table: a rival knows as much as the controller does.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pals_grid.core.commands import NodeCommand
from pals_grid.core.errors import InvalidValue
from pals_grid.node.decision import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pals_grid.core.fleet import OperatingPoint
    from pals_grid.core.ports import NodePower
    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope
    from pals_grid.node.strategy import Strategy
    from pals_grid.powermodel.overhead import NodeOverhead

NATURAL_DRAW_RATIO = 0.85
MAX_Q_RATIO = 0.97
LOCK_SLOWDOWN_RATIO = 0.05


class FixedSettings:
    """The same command at every tick, one per unit; envelope and samples are not looked at."""

    def __init__(self, commands: Sequence[NodeCommand]) -> None:
        self._decisions = [Decision(0.0, command) for command in commands]

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Return the commands."""
        del seen, envelope, node_power, dt_s
        return self._decisions

    def set_slo(self, slo: Slo) -> None:
        """Take no notice."""

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        """Take no notice."""


class EqualShare(FixedSettings):
    """Every GPU's limit is its equal part of what the envelope leaves to the GPUs."""

    def __init__(self, units: Sequence[EngineUnit], overhead: NodeOverhead) -> None:
        super().__init__([static_max(unit) for unit in units])
        self._units = units
        self._overhead = overhead
        self._gpus = sum(len(unit.gpus) for unit in units)

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Return the equal part, inside each device's range; the batch stays at its most."""
        decisions = super().decide(seen, envelope, node_power, dt_s)
        share_w = self._overhead.gpu_power_w(envelope.power_max_w) / self._gpus
        return [
            Decision(0.0, replace(decision.command, power_limit_w=_inside(unit, share_w)))
            for unit, decision in zip(self._units, decisions, strict=True)
            if decision.command is not None
        ]


class OpenLimit:
    """Another strategy's decisions with the limit at its highest: the batch alone is left."""

    def __init__(self, inner: Strategy, units: Sequence[EngineUnit]) -> None:
        self._inner = inner
        self._high_w = [_range_w(unit)[1] for unit in units]

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Return the inner decisions, limits open."""
        return [
            replace(decision, command=replace(decision.command, power_limit_w=high_w))
            if decision.command is not None
            else decision
            for decision, high_w in zip(
                self._inner.decide(seen, envelope, node_power, dt_s), self._high_w, strict=True
            )
        ]

    def set_slo(self, slo: Slo) -> None:
        """Pass on."""
        self._inner.set_slo(slo)

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        """Pass on."""
        self._inner.hold_batch(index, max_num_seqs, refused=refused)


def static_max(unit: EngineUnit) -> NodeCommand:
    """Highest limit, largest batch, free clock: what a node does without any control."""
    return NodeCommand(_range_w(unit)[1], _most_seqs(unit), "static maximum")


def static_limit(unit: EngineUnit) -> NodeCommand:
    """85 % of the natural draw: of the draw per GPU at the highest limit and batch, saturated."""
    full = _column(unit)[-1]
    limit_w = NATURAL_DRAW_RATIO * full.gpu_power_w / len(unit.gpus)
    return NodeCommand(_inside(unit, limit_w), _most_seqs(unit), "85 % of natural draw")


def max_q(unit: EngineUnit) -> NodeCommand:
    """The lowest limit that keeps 97 % of the throughput of a saturated engine.

    After NVIDIA's Max-Q profile (at most 15 % energy at 97 % performance and more); the profile
    itself is not public, so this is our reading of its promise.
    """
    column = _column(unit)
    needed = MAX_Q_RATIO * column[-1].tokens_per_s
    limit_w = column[-1].power_limit_w
    for low, high in itertools.pairwise(column):
        if low.tokens_per_s < needed <= high.tokens_per_s:
            share = (needed - low.tokens_per_s) / (high.tokens_per_s - low.tokens_per_s)
            limit_w = low.power_limit_w + share * (high.power_limit_w - low.power_limit_w)
    return NodeCommand(_inside(unit, limit_w), _most_seqs(unit), "97 % of the throughput")


def clock_lock(unit: EngineUnit) -> NodeCommand:
    """The lowest SM clock that slows a saturated engine by 5 % at most; the limit stays open.

    Raises:
        InvalidValue: when the table has no point with a clock.
    """
    batch = _most_seqs(unit)
    free = _column(unit)[-1]
    locked = [
        point
        for point in _points(unit)
        if point.sm_clock_mhz is not None
        and point.max_num_seqs == batch
        and point.power_limit_w == free.power_limit_w
    ]
    if not locked:
        raise InvalidValue("sm_clock_mhz", None, f"{unit.name}: no profile under a clock lock")
    needed = free.tokens_per_s / (1 + LOCK_SLOWDOWN_RATIO)
    fit = [point for point in locked if point.tokens_per_s >= needed]
    chosen = min(fit, key=_clock_mhz) if fit else max(locked, key=_clock_mhz)
    command = static_max(unit)
    return replace(command, sm_clock_mhz=chosen.sm_clock_mhz, reason="fixed clock")


def only(
    units: Iterable[EngineUnit], keep: Callable[[EngineUnit, OperatingPoint], bool]
) -> list[EngineUnit]:
    """Units whose tables hold only the points that ``keep`` allows: fewer knobs."""
    found = []
    for unit in units:
        assert unit.table is not None
        points = tuple(point for point in unit.table.points if keep(unit, point))
        found.append(replace(unit, table=replace(unit.table, points=points)))
    return found


def batch_alone(unit: EngineUnit, point: OperatingPoint) -> bool:
    """Points at the highest limit with a free clock: the batch is the only knob."""
    return point.sm_clock_mhz is None and point.power_limit_w == _column(unit)[-1].power_limit_w


def limit_alone(unit: EngineUnit, point: OperatingPoint) -> bool:
    """Points at the largest batch with a free clock: the limit is the only knob."""
    return point.sm_clock_mhz is None and point.max_num_seqs == _most_seqs(unit)


def _points(unit: EngineUnit) -> tuple[OperatingPoint, ...]:
    assert unit.table is not None  # every unit of the suite has one
    return unit.table.points


def _column(unit: EngineUnit) -> list[OperatingPoint]:
    """Points at the largest batch and a free clock, by rising limit."""
    batch = _most_seqs(unit)
    found = [p for p in _points(unit) if p.max_num_seqs == batch and p.sm_clock_mhz is None]
    return sorted(found, key=lambda point: point.power_limit_w)


def _most_seqs(unit: EngineUnit) -> int:
    return max(point.max_num_seqs for point in _points(unit))


def _clock_mhz(point: OperatingPoint) -> float:
    return math.inf if point.sm_clock_mhz is None else point.sm_clock_mhz


def _range_w(unit: EngineUnit) -> tuple[float, float]:
    ranges = [gpu.limit_range for gpu in unit.gpus]
    return max(item.min_w for item in ranges), min(item.max_w for item in ranges)


def _inside(unit: EngineUnit, limit_w: float) -> float:
    low_w, high_w = _range_w(unit)
    return float(math.floor(min(max(limit_w, low_w), high_w)))
