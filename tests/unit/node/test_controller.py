from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import EngineSample, GpuSample, NodePower
from pals_grid.core.site import Slo
from pals_grid.node.controller import CHEAPEST, MOST, STUCK, NodeController
from pals_grid.node.deferral import MORE_PER_TICK
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.observation import UnitObservation
from pals_grid.node.report import ActiveEnvelope
from pals_grid.powermodel.overhead import NodeOverhead

if TYPE_CHECKING:
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.node.controller import Decision

OVERHEAD = NodeOverhead(0.0, 0.0)
POWER = NodePower(100.0, Origin.SIMULATED)


class _Bench:
    """One unit whose engine serves at a steady rate."""

    def __init__(self, table: FrontierTable) -> None:
        unit = EngineUnit("e", FakeEngine(), (FakeGpu("a"), FakeGpu("b")), table)
        self.controller = NodeController([unit], OVERHEAD, Slo())
        self.tokens = 0.0
        self.both_answer = True

    def run(
        self,
        envelope: ActiveEnvelope,
        *,
        running: int,
        deferrable: int,
        waiting: int = 0,
        ticks: int = 61,
    ) -> Decision:
        """Serve 10 tokens/s per running sequence; returns the last decision."""
        for _ in range(ticks):
            dt_s = 0.5 if self.tokens else 0.0
            self.tokens += 10.0 * running * 0.5
            sample = EngineSample(
                running, waiting, 0.0, self.tokens, int(self.tokens / 100), 0, 0, 64, 50, deferrable
            )
            gpu = GpuSample(POWER.power_w / 2, 0.0, 400.0)
            seen = UnitObservation((gpu, gpu if self.both_answer else None), sample)
            (decision,) = self.controller.decide([seen], envelope, POWER, dt_s)
        return decision


def planned(target_tokens_per_s: float) -> ActiveEnvelope:
    return ActiveEnvelope(1, 0.0, 10_000.0, target_tokens_per_s, Reason.DEMAND)


def seqs(decision: Decision) -> int | None:
    assert decision.command is not None
    return decision.command.deferrable_seqs


@pytest.mark.parametrize(
    ("granted_tokens_per_s", "deferrable", "wanted"),
    [
        (60.0, 0, 0),  # eight interactive sequences already serve 80
        (80.0, 0, 0),
        (95.0, 0, 2),  # 15 more at 10 each
        (60.0, 4, 2),  # of eight, four are deferrable: 40 interactive, 20 to add
    ],
)
def test_deferrable_work_fills_what_the_plan_grants(
    table: FrontierTable, granted_tokens_per_s: float, deferrable: int, wanted: int
) -> None:
    decision = _Bench(table).run(planned(granted_tokens_per_s), running=8, deferrable=deferrable)
    assert seqs(decision) == wanted


def test_deferrable_work_comes_in_two_at_a_tick_and_not_while_others_wait(
    table: FrontierTable,
) -> None:
    bench = _Bench(table)
    assert seqs(bench.run(planned(500.0), running=8, deferrable=3)) == 3 + MORE_PER_TICK
    assert seqs(bench.run(planned(500.0), running=8, deferrable=3, waiting=1)) == 3


def test_a_budget_between_two_points_is_used_whole_while_the_target_is_not_met(
    table: FrontierTable,
) -> None:
    """310 W hold the point of 150 W per GPU (285 W), not that of 200 W (320 W)."""
    envelope = ActiveEnvelope(1, 0.0, 310.0, 1500.0, Reason.DEMAND)
    command = _Bench(table).run(envelope, running=8, deferrable=0, waiting=9).command
    assert command is not None
    assert (command.reason, command.power_limit_w) == (MOST, 155.0)


def test_a_target_about_a_point_does_not_make_the_limit_flutter(table: FrontierTable) -> None:
    """Inside 310 W the best point gives 1089 tokens/s at 150 W."""
    bench, limits_w = _Bench(table), []
    for target in (1080.0, 1095.0, 1085.0, 1060.0, 1030.0, 1080.0):
        envelope = ActiveEnvelope(1, 0.0, 310.0, target, Reason.DEMAND)
        command = bench.run(envelope, running=8, deferrable=0, ticks=1).command
        assert command is not None
        limits_w.append(command.power_limit_w)
    assert limits_w == [150.0, 155.0, 155.0, 155.0, 150.0, 150.0]


def test_a_gpu_that_does_not_answer_keeps_its_share_of_the_budget(table: FrontierTable) -> None:
    bench = _Bench(table)
    bench.both_answer = False
    envelope = ActiveEnvelope(1, 0.0, 310.0 + POWER.power_w / 2, 1500.0, Reason.DEMAND)
    command = bench.run(envelope, running=8, deferrable=0, waiting=9).command
    assert command is not None
    assert command.power_limit_w == 155.0


@pytest.mark.parametrize(("over_w", "stuck"), [(1.0, False), (5.0, True)])
def test_above_the_envelope_is_said_only_beyond_the_noise(
    table: FrontierTable, over_w: float, stuck: bool
) -> None:
    envelope = ActiveEnvelope(1, 0.0, POWER.power_w - over_w, 1500.0, Reason.DEMAND)
    command = _Bench(table).run(envelope, running=8, deferrable=0).command
    assert command is not None
    assert command.reason == CHEAPEST + (STUCK if stuck else "")
    assert command.power_limit_w == 100.0


def test_tokens_of_a_silent_time_are_no_burst(table: FrontierTable) -> None:
    bench = _Bench(table)
    steady = bench.run(planned(0.0), running=8, deferrable=0).target_tokens_per_s
    for _ in range(120):
        bench.controller.decide([UnitObservation((None, None), None)], planned(0.0), POWER, 0.5)
    bench.tokens += 80.0 * 60
    after = bench.run(planned(0.0), running=8, deferrable=0, ticks=1).target_tokens_per_s
    assert after == pytest.approx(steady, rel=0.1)


def test_without_a_plan_nothing_is_held_back(table: FrontierTable) -> None:
    decision = _Bench(table).run(
        ActiveEnvelope(0, 0.0, 10_000.0, 0.0, None), running=8, deferrable=0
    )
    assert decision.command is not None
    assert decision.command.deferrable_seqs == decision.command.max_num_seqs


def test_an_idle_engine_is_given_one_sequence_to_learn_from(table: FrontierTable) -> None:
    assert seqs(_Bench(table).run(planned(50.0), running=0, deferrable=0)) == 1
    assert seqs(_Bench(table).run(planned(0.0), running=0, deferrable=0)) == 0


def test_what_waits_is_told_in_tokens(table: FrontierTable) -> None:
    decision = _Bench(table).run(planned(50.0), running=8, deferrable=0)
    assert decision.tokens_deferred == pytest.approx(50 * 100, rel=0.05)
