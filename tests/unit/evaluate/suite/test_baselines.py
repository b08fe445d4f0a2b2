from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.commands import NodeCommand
from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import NodePower
from pals_grid.core.site import Slo
from pals_grid.evaluate.suite import baselines, strategies
from pals_grid.node.decision import Decision
from pals_grid.node.observation import UnitObservation
from pals_grid.node.report import ActiveEnvelope
from pals_grid.powermodel.overhead import NodeOverhead

if TYPE_CHECKING:
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.strategy import Strategy

OVERHEAD = NodeOverhead(400.0, 0.25)


def decide(strategy: Strategy, unit: EngineUnit, envelope_w: float = 1e6) -> Decision:
    view = UnitObservation(tuple(g.observe() for g in unit.gpus), unit.engine.observe())
    envelope = ActiveEnvelope(1, 0.0, envelope_w, 0.0, Reason.DEMAND)
    return strategy.decide([view], envelope, NodePower(1000.0, Origin.SIMULATED), 0.5)[0]


def test_static_maximum_is_everything(unit: EngineUnit) -> None:
    command = baselines.static_max(unit)
    assert (command.power_limit_w, command.max_num_seqs, command.sm_clock_mhz) == (400.0, 16, None)


def test_static_limit_is_85_percent_of_the_natural_draw(unit: EngineUnit) -> None:
    # 1400 W over four GPUs, 85 % of it, floored.
    assert baselines.static_limit(unit).power_limit_w == 297.0


def test_max_q_keeps_97_percent(unit: EngineUnit) -> None:
    # 970 of 1000 tokens/s lies 70 % of the way from 300 W (900) to 400 W (1000).
    assert baselines.max_q(unit).power_limit_w == 370.0


def test_clock_lock_takes_the_lowest_clock_within_5_percent(unit: EngineUnit) -> None:
    command = baselines.clock_lock(unit)
    assert (command.sm_clock_mhz, command.power_limit_w) == (1000.0, 400.0)
    assert unit.table is not None
    free = tuple(p for p in unit.table.points if p.sm_clock_mhz is None)
    with pytest.raises(InvalidValue, match="no profile under a clock lock"):
        baselines.clock_lock(replace(unit, table=replace(unit.table, points=free)))


def test_equal_share_follows_the_envelope_inside_the_devices_range(unit: EngineUnit) -> None:
    strategy = baselines.EqualShare([unit], OVERHEAD)
    limits_w = []
    for envelope_w in (1400.0, 900.0, 5000.0):
        command = decide(strategy, unit, envelope_w).command
        assert command is not None
        limits_w.append(command.power_limit_w)
    # (1400 - 400) / 1.25 / 4 = 200; the others are beyond the range.
    assert limits_w == [200.0, 100.0, 400.0]


def test_fewer_knobs_leave_fewer_points(unit: EngineUnit) -> None:
    (batch,) = baselines.only([unit], baselines.batch_alone)
    (limit,) = baselines.only([unit], baselines.limit_alone)
    assert batch.table is not None
    assert limit.table is not None
    assert {(p.power_limit_w, p.max_num_seqs) for p in batch.table.points} == {(400, 8), (400, 16)}
    assert [p.power_limit_w for p in limit.table.points] == [200.0, 300.0, 400.0]
    assert all(p.sm_clock_mhz is None for p in limit.table.points)


def test_batch_only_never_lowers_the_limit(unit: EngineUnit) -> None:
    low = baselines.FixedSettings([NodeCommand(150.0, 8, "low")])
    command = decide(baselines.OpenLimit(low, [unit]), unit).command
    assert command is not None
    assert (command.power_limit_w, command.max_num_seqs) == (400.0, 8)
    nothing = baselines.OpenLimit(baselines.FixedSettings([]), [unit])
    nothing._inner._decisions = [Decision(0.0, None)]  # type: ignore[attr-defined]
    assert decide(nothing, unit).command is None


@pytest.mark.parametrize("name", sorted(set(strategies.SUMMARIES) - {strategies.ORACLE}))
def test_every_strategy_can_be_made_and_decides(name: str, unit: EngineUnit) -> None:
    strategy = strategies.maker(name)([unit], OVERHEAD, Slo())
    strategy.set_slo(Slo(1.0, 0.2))
    strategy.hold_batch(0, None, refused=False)
    command = decide(strategy, unit).command
    assert command is not None
    assert 100.0 <= command.power_limit_w <= 400.0


def test_an_unknown_strategy_lists_the_known() -> None:
    with pytest.raises(InvalidValue, match=r"strategy: must be one of static-max, .*'magic'"):
        strategies.known("magic")
