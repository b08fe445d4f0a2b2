"""Requests that may wait run as far as the plan grants them, and never in others' way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.site import Slo
from pals_grid.node.deferral import MORE_PER_TICK
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.strategies.registry import DEFAULT_STRATEGY, make_strategy
from pals_grid.powermodel.overhead import NodeOverhead
from tests.unit.node.strategies.world import engine_sample, envelope, hand_table, node_power, seen

if TYPE_CHECKING:
    from pals_grid.node.decision import Decision
    from pals_grid.node.report import ActiveEnvelope

WAITING = 50


class Bench:
    """An engine that serves 10 tokens/s per running sequence, 100 tokens a request."""

    def __init__(self) -> None:
        unit = EngineUnit("e", FakeEngine(), (FakeGpu("a"), FakeGpu("b")), hand_table())
        self.strategy = make_strategy(DEFAULT_STRATEGY, [unit], NodeOverhead(0.0, 0.0), Slo())
        self.tokens = 0.0

    def run(
        self,
        goal: ActiveEnvelope,
        *,
        running: int,
        deferrable: int = 0,
        waiting: int = 0,
        ticks: int = 61,
    ) -> Decision:
        for _ in range(ticks):
            dt_s = 0.5 if self.tokens else 0.0
            self.tokens += 10.0 * running * 0.5
            sample = replace(
                engine_sample(
                    running=running,
                    waiting=waiting,
                    tokens=self.tokens,
                    finished=int(self.tokens / 100),
                ),
                requests_deferred=WAITING,
                requests_running_deferrable=deferrable,
            )
            (decision,) = self.strategy.decide(
                [seen(sample, 100.0, 100.0)], goal, node_power(200.0), dt_s
            )
        return decision


def planned(target_tokens_per_s: float) -> ActiveEnvelope:
    return envelope(10_000.0, target_tokens_per_s)


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
def test_it_fills_what_the_plan_grants(
    granted_tokens_per_s: float, deferrable: int, wanted: int
) -> None:
    decision = Bench().run(planned(granted_tokens_per_s), running=8, deferrable=deferrable)
    assert seqs(decision) == wanted


def test_it_comes_in_two_at_a_tick_and_not_while_others_wait() -> None:
    bench = Bench()
    assert seqs(bench.run(planned(500.0), running=8, deferrable=3)) == 3 + MORE_PER_TICK
    assert seqs(bench.run(planned(500.0), running=8, deferrable=3, waiting=1)) == 3


def test_the_engine_is_made_ready_for_what_was_granted_only_while_something_may_wait() -> None:
    assert Bench().run(planned(900.0), running=8).target_tokens_per_s >= 900.0
    bench = Bench()
    for k in range(60):
        sample = engine_sample(running=8, tokens=40.0 * k, finished=(40 * k) // 100)
        (decision,) = bench.strategy.decide(
            [seen(sample, 100.0, 100.0)], planned(900.0), node_power(200.0), 0.5
        )
    assert decision.target_tokens_per_s < 200.0


def test_without_a_plan_nothing_is_held_back() -> None:
    decision = Bench().run(envelope(10_000.0, safe=True), running=8)
    assert decision.command is not None
    assert decision.command.deferrable_seqs == decision.command.max_num_seqs


def test_an_idle_engine_is_given_one_sequence_to_learn_from() -> None:
    assert seqs(Bench().run(planned(50.0), running=0)) == 1
    assert seqs(Bench().run(planned(0.0), running=0)) == 0


def test_what_waits_is_told_in_tokens() -> None:
    decision = Bench().run(planned(50.0), running=8)
    assert decision.tokens_deferred == pytest.approx(WAITING * 100, rel=0.05)
