from __future__ import annotations

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.node.actuate import RETRY_S, BatchActuator
from pals_grid.node.fake import FakeEngine


class Clamping(FakeEngine):
    """Takes no more than ``most``."""

    most = 64

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        result = super().apply_max_num_seqs(min(max_num_seqs, self.most))
        if max_num_seqs <= self.most:
            return result
        return ActuationResult(Outcome.CLAMPED, max_num_seqs, self.most)


def test_an_engine_that_clamped_is_not_asked_for_more_again() -> None:
    engine = Clamping(max_num_seqs=32)
    actuator = BatchActuator(engine)
    outcomes = []
    for wanted in (256, 256, 128, 16, 200, 64):
        if actuator.due(wanted, engine.max_num_seqs, 0.0):
            outcomes.append(actuator.write(wanted, 0.0).outcome)  # noqa: PERF401 - one by one
    assert outcomes == [Outcome.CLAMPED, Outcome.APPLIED, Outcome.APPLIED]
    assert engine.writes == [64, 16, 64]


def test_an_engine_that_was_started_again_may_take_more() -> None:
    engine = Clamping(max_num_seqs=32)
    actuator = BatchActuator(engine)
    actuator.write(256, 0.0)
    engine.most, engine.max_num_seqs = 512, 512
    assert actuator.due(256, engine.max_num_seqs, 0.0)
    assert actuator.write(256, 0.0).outcome is Outcome.APPLIED
    assert engine.max_num_seqs == 256


def test_a_refusal_is_tried_again_even_where_the_engine_stands_as_wanted() -> None:
    engine = FakeEngine(max_num_seqs=20)
    engine.refuses = True
    actuator = BatchActuator(engine)
    actuator.write(64, 0.0)
    assert actuator.refused
    assert not actuator.due(20, 20, RETRY_S - 1)
    assert actuator.due(20, 20, RETRY_S)
    engine.refuses = False
    actuator.write(20, RETRY_S)
    assert not actuator.refused
