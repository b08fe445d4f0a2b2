"""An engine that takes fewer requests in than its table has, through the production loop."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.site import Slo
from pals_grid.node.strategies.batch_cap import PINNED_TICKS, BatchCap
from pals_grid.sim.arrivals import saturating
from tests.unit.node.strategies.world import (
    SEQS,
    TICK_S,
    Load,
    closed,
    deepseek,
    engine_sample,
    model_table,
)

if TYPE_CHECKING:
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.ports import EngineSample
    from pals_grid.sim.engine import SimEngine
    from tests.unit.node.strategies.world import Closed

MIX = (200.0, 100.0)
PATIENT = Slo(ttft_s=30.0, itl_s=1.0)
FEW = 32


class ReadOnly:
    """A simulated engine as ``/metrics`` shows one: no batch size, and none can be set."""

    def __init__(self, engine: SimEngine) -> None:
        self._engine = engine
        self.model = engine.model

    def observe(self) -> EngineSample:
        return replace(self._engine.observe(), max_num_seqs=None)

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        return ActuationResult(Outcome.REFUSED, max_num_seqs, None, "read only")


@cache
def table() -> FrontierTable:
    return model_table(deepseek(), *MIX)


def most(batch: int) -> float:
    """Tokens/s of the table's largest throughput at a batch."""
    return max(p.tokens_per_s for p in table().points if p.max_num_seqs == batch)


def full() -> Load:
    return Load(saturating(*MIX, seed=1, waiting=4), table())


def saturated(**options: object) -> Closed:
    node = closed(
        "pals-grid",
        full(),
        slo=PATIENT,
        options={"correction": False},
        max_num_seqs=FEW,
        **options,  # type: ignore[arg-type]
    )
    node.grant((1e4, 1e5, 1e6))
    return node


def planned(node: Closed) -> float:
    """The throughput that the strategy holds possible: no more is asked for."""
    return node.reports[-1].engines[0].target_tokens_per_s


def batch(node: Closed) -> int:
    command = node.reports[-1].engines[0].command
    assert command is not None
    return command.max_num_seqs


def test_the_table_has_more_to_offer_than_the_engine_takes() -> None:
    assert most(SEQS) > 1.2 * most(FEW)


def test_a_clamped_batch_is_planned_with_from_the_next_tick_on() -> None:
    node = saturated()
    node.run(TICK_S)
    assert batch(node) == SEQS
    node.run(TICK_S)
    assert batch(node) == FEW
    assert planned(node) == pytest.approx(most(FEW))


def test_an_engine_started_again_with_more_is_noticed() -> None:
    node = saturated()
    node.run(10 * TICK_S)
    assert batch(node) == FEW
    engine = node.nodes[0].engine
    engine._most_seqs = engine._max_num_seqs = SEQS  # as a new process would come up
    node.run(2 * TICK_S)
    assert batch(node) == SEQS
    assert planned(node) == pytest.approx(most(SEQS))
    assert engine.observe().max_num_seqs == SEQS


def test_an_engine_started_again_with_less_is_noticed() -> None:
    node = saturated()
    node.run(10 * TICK_S)
    engine = node.nodes[0].engine
    engine._most_seqs = engine._max_num_seqs = FEW // 2
    node.run(3 * TICK_S)
    assert batch(node) == FEW // 2
    assert planned(node) == pytest.approx(most(FEW // 2))


def test_an_engine_that_tells_nothing_shows_its_batch_by_what_runs_while_others_wait() -> None:
    node = saturated(as_seen=ReadOnly)
    node.run(2 * TICK_S)
    assert planned(node) == pytest.approx(most(SEQS))
    node.run(2 * PINNED_TICKS * TICK_S)
    assert planned(node) == pytest.approx(most(FEW))


def test_without_a_queue_nothing_is_concluded_from_what_runs() -> None:
    cap = BatchCap()
    cap.hold(None, refused=True)
    for k in range(3 * PINNED_TICKS):
        cap.observe(engine_sample(running=20, tokens=100.0 * k, finished=k))
    assert cap.most == float("inf")


def queue(cap: BatchCap, running: int, ticks: int, *, tokens: float = 1e6) -> None:
    for _ in range(ticks):
        cap.observe(engine_sample(running=running, waiting=3, tokens=tokens, finished=9))


def test_more_that_run_or_counters_that_begin_again_lift_a_batch_that_was_concluded() -> None:
    cap = BatchCap()
    cap.hold(None, refused=True)
    queue(cap, 20, PINNED_TICKS + 1)
    assert cap.most == 20.0
    queue(cap, 18, 2)
    assert cap.most == 20.0
    queue(cap, 25, 1)
    assert cap.most == float("inf")
    queue(cap, 25, PINNED_TICKS)
    assert cap.most == 25.0
    queue(cap, 4, 1, tokens=10.0)
    assert cap.most == float("inf")


def test_a_batch_that_refusal_held_is_free_once_it_is_taken() -> None:
    cap = BatchCap()
    cap.hold(20, refused=True)
    assert cap.most == 20.0
    cap.hold(None, refused=False)
    assert cap.most == float("inf")
    cap.hold(32, refused=False)
    assert cap.most == 32.0
