"""The loop on a meter that is late, averages, and differs from the model: it holds the envelope.

The node is the simulated plant; its meter reads another base and slope than the model assumes.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.fleet import Origin
from pals_grid.core.site import Slo
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.meters.polled import PolledNodeMeter
from pals_grid.node.restore import RestoreFile
from pals_grid.powermodel.overhead import NodeOverhead
from pals_grid.powermodel.table import BATCHES, build_frontier_table
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import DEMO_INPUT_PER_OUTPUT, DEMO_SPEC, demo_node
from pals_grid.wire.messages import EnvelopeInterval, EnvelopeSchedule

MODEL = DEMO_SPEC.overhead
TRUE = NodeOverhead(MODEL.base_w + 150.0, MODEL.per_gpu_w_ratio - 0.05)
START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class Baseboard:
    """Mean power of the last two seconds, told every two seconds."""

    name = "baseboard (simulated)"
    is_whole = True
    poll_s = 2.0

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=4)

    def read_w(self) -> float:
        return sum(self.recent) / len(self.recent)


@pytest.mark.parametrize("envelope_w", [1250.0, 1350.0, 1450.0])
def test_a_late_meter_makes_the_loop_neither_swing_nor_exceed(envelope_w: float) -> None:
    clock = SimClock(START_AT, 100.0)
    node = demo_node(clock)
    table = build_frontier_table(
        DEMO_SPEC.gpu_model,
        DEMO_SPEC.model,
        DEMO_SPEC.gpu_count,
        DEMO_INPUT_PER_OUTPUT,
        max_num_seqs=[batch for batch in BATCHES if batch <= DEMO_SPEC.max_num_seqs],
    )
    board = Baseboard()
    meter = PolledNodeMeter([board], MODEL, monotonic_s=clock.monotonic_s)
    unit = EngineUnit("engine", node.engine, node.gpus, table, Origin.SIMULATED)
    lease = Lease(None, 5000.0)
    loop = ControlLoop(
        NodeHardware("late", Origin.SIMULATED, (unit,), meter, MODEL),
        lease,
        clock,
        Slo(),
        RestoreFile(None),
    )
    lease.store(
        EnvelopeSchedule(
            node_id=1,
            version=1,
            issued_at=START_AT,
            safe_power_w=5000.0,
            intervals=[
                EnvelopeInterval(
                    start_at=START_AT + timedelta(seconds=at_s),
                    end_at=START_AT + timedelta(seconds=at_s + 60),
                    power_min_w=0.0,
                    power_max_w=power_w,
                    target_tokens_per_s=8000.0,
                    reason=Reason.DEMAND,
                )
                for at_s, power_w in ((0, 5000.0), (60, envelope_w))
            ],
        )
    )
    true_w: list[float] = []
    for tick in range(230):
        clock.advance(0.5)
        report = loop.tick()
        gpu_w = sum(gpu.power_w for gpu in node.gpus)
        true_w.append(TRUE.node_power_w(gpu_w))
        board.recent.append(true_w[-1])
        if tick % 4 == 3:
            meter.poll()
    assert report.node_power.origin is Origin.MEASURED
    # With bare readings it falls 165 to 345 W below and gives away 630 to 1100 J in these 10 s.
    assert 0.5 * sum(max(0.0, envelope_w - power_w) for power_w in true_w[120:140]) < 100
    held = true_w[140:]  # from 10 s after the step on
    assert sum(true_w[100:118]) / 18 > envelope_w * 1.05  # the envelope does bind
    assert max(sum(held[i : i + 10]) / 10 for i in range(len(held) - 10)) <= envelope_w * 1.02
    assert sum(held) / len(held) >= envelope_w * 0.9
