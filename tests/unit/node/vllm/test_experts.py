from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pals_grid.node.vllm.experts import ExpertLoads
from pals_grid.node.vllm.step_meter import StepMeter

numpy = pytest.importorskip("numpy", reason="numpy comes with vLLM and is not part of the node")


def routed(experts: list[list[list[int]]], times: int = 16) -> Any:  # noqa: ANN401 - numpy's
    return numpy.array(experts * times)


def test_few_tokens_tell_nothing() -> None:
    loads = ExpertLoads()
    loads.add(routed([[[0, 1]]], times=31), 0.0)
    assert loads.imbalance == -1.0


def test_even_use_is_1_and_one_busy_expert_is_as_many_as_there_are() -> None:
    loads = ExpertLoads()
    loads.add(routed([[[0, 1], [0, 1]], [[2, 3], [2, 3]]]), 0.0)
    assert loads.imbalance == pytest.approx(1.0)
    busy = ExpertLoads()
    busy.add(routed([[[3]], [[3]]]), 0.0)
    assert busy.imbalance == pytest.approx(4.0)


def test_one_output_a_second_is_looked_at() -> None:
    loads = ExpertLoads()
    loads.add(routed([[[0, 1]], [[0, 1]]]), 0.0)
    loads.add(routed([[[1, 1]], [[1, 1]]]), 0.5)
    assert loads.imbalance == pytest.approx(1.0)
    loads.add(routed([[[1, 1]], [[1, 1]]]), 1.0)
    assert loads.imbalance > 1.2


def test_outputs_with_experts_are_looked_at_whether_finished_or_not() -> None:
    meter = StepMeter()
    item = SimpleNamespace(
        new_token_ids=[1], finish_reason=None, routed_experts=routed([[[0]], [[1]]])
    )
    output = SimpleNamespace(total_num_scheduled_tokens=1)
    meter.updated(output, {0: SimpleNamespace(outputs=[item])}, 0.0)
    assert meter.experts.imbalance == pytest.approx(1.0)
