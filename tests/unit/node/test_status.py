from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.ports import ClockReason
from pals_grid.node.status import StatusBoard

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.wire.messages import NodeStatus
    from tests.unit.node.conftest import Rig


def status_after(rig: Rig, ticks: int, tokens_per_s: float) -> NodeStatus:
    board = StatusBoard()
    for _ in range(ticks):
        status = board.add(rig.run(tokens_per_s=tokens_per_s))
    return status


def test_rates_are_over_the_last_five_seconds(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of(tokens=1200.0)
    rig.run(40, tokens_per_s=10.0)
    engine = status_after(rig, 30, 800.0).engines[0]
    assert engine.tokens_out_per_s == pytest.approx(800.0)
    drawn_w = sum(gpu.observe().power_draw_w for gpu in rig.gpus)
    assert engine.gpu_energy_j_per_token == pytest.approx(drawn_w / 800.0)
    assert engine.max_num_seqs == rig.engines[0].max_num_seqs


def test_without_tokens_there_is_no_energy_per_token(rig_of: Callable[..., Rig]) -> None:
    status = status_after(rig_of(), 4, 0.0)
    assert status.engines[0].gpu_energy_j_per_token is None
    assert status.mode == "following"
    assert status.node_power_w == pytest.approx(100 + 1.1 * status.gpu_power_w)


def test_silent_devices_are_shown_as_such(rig_of: Callable[..., Rig]) -> None:
    rig = rig_of()
    rig.engines[0].dead = True
    rig.gpus[0].lost = True
    status = status_after(rig, 3, 0.0)
    assert status.engines[0].reason == "the engine does not answer"
    assert [gpu.gpu_uuid for gpu in status.gpus] == ["GPU-1"]


def test_why_a_clock_is_low_and_where_node_power_comes_from_are_shown(
    rig_of: Callable[..., Rig],
) -> None:
    rig = rig_of()
    reasons = ClockReason.POWER_LIMIT | ClockReason.THERMAL
    rig.gpus[0].clock_reasons = reasons
    status = status_after(rig, 2, 0.0)
    assert [gpu.clock_reasons for gpu in status.gpus] == [["power_limit", "thermal"], None]
    assert status.node_power_source == "linear model"
    rig.gpus[0].clock_reasons = ClockReason(0)
    assert status_after(rig, 2, 0.0).gpus[0].clock_reasons == []
