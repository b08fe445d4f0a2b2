from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import EngineSample, GpuSample, NodePower
from pals_grid.core.site import Slo
from pals_grid.node.controller import NodeController
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
        unit = EngineUnit("e", FakeEngine(), (FakeGpu("a"),), table)
        self.controller = NodeController([unit], OVERHEAD, Slo())
        self.tokens = 0.0

    def run(self, envelope: ActiveEnvelope, *, running: int, deferrable: int) -> Decision:
        """Serve 10 tokens/s per running sequence for 30 s; returns the last decision."""
        for _ in range(60):
            self.tokens += 5.0 * running
            sample = EngineSample(
                running, 0, 0.0, self.tokens, int(self.tokens / 100), 0, 0, 64, 50, deferrable
            )
            seen = UnitObservation((GpuSample(100.0, 0.0, 400.0),), sample)
            (decision,) = self.controller.decide([seen], envelope, POWER, 0.5)
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
