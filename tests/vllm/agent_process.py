"""The real agent in a process of its own, on a real vLLM and a GPU that is SIMULATED.

``python -m tests.vllm.agent_process STATE CHANNEL MODEL MODE``. The GPU's power follows the real
scheduler's telemetry by a straight line; nothing is measured. The agent finds its schedule on the
disk and no service.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.core.ports import GpuSample, PowerLimitRange
from pals_grid.node.agent import AgentConfig, run_agent
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.real import open_engine
from pals_grid.node.vllm.ranks import ChannelDirectory
from pals_grid.powermodel.overhead import NodeOverhead

if TYPE_CHECKING:
    from pals_grid.core.ports import Clock

IDLE_W = 90.0
PER_SEQ_W = 12.0
BATCHES = (1, 2, 4, 6, 8, 10, 12, 14, 16)
GPU_MODEL = "simulated from vLLM's telemetry"


def power_w(running: int) -> float:
    """Draw of the simulated GPU with so many requests in its batch."""
    return IDLE_W + PER_SEQ_W * running


class SimulatedGpu:
    """Draws by the batch that the real scheduler runs; its limit takes writes and does nothing."""

    uuid = "GPU-simulated-0"
    model = GPU_MODEL
    limit_range = PowerLimitRange(100.0, 400.0, 400.0)

    def __init__(self, channel: Path) -> None:
        self._channel = ChannelDirectory(channel)
        self._limit_w = 400.0
        self._energy_j = 0.0
        self._at_s = time.monotonic()

    def observe(self) -> GpuSample:
        self._channel.refresh()
        told = [rank.telemetry.read() for rank in self._channel.ranks.values()]
        draw_w = power_w(sum(step.running for step in told if step is not None))
        now_s = time.monotonic()
        self._energy_j += draw_w * (now_s - self._at_s)
        self._at_s = now_s
        return GpuSample(draw_w, self._energy_j, self._limit_w)

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        self._limit_w = min(max(power_limit_w, 100.0), 400.0)
        same = self._limit_w == power_limit_w
        outcome = Outcome.APPLIED if same else Outcome.CLAMPED
        return ActuationResult(outcome, power_limit_w, self._limit_w)


def make_table(model: str) -> FrontierTable:
    """Make the table that fits the simulated GPU: the batch is the only thing that counts."""
    points = tuple(
        OperatingPoint(
            power_limit_w=400.0,
            max_num_seqs=batch,
            tokens_per_s=batch / (0.015 + 0.0015 * batch),
            gpu_power_w=power_w(batch),
            ttft_s=0.1,
            itl_s=0.015 + 0.0015 * batch,
        )
        for batch in BATCHES
    )
    return FrontierTable(GPU_MODEL, 1, model, 0.5, Origin.SIMULATED, points)


def main(state: Path, channel: Path, model: str, mode: str) -> int:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(created)f %(levelname)s %(message)s"
    )

    def build(config: AgentConfig, _: Clock) -> NodeHardware:
        engine = open_engine(None, model, config.slo, channel, mode)
        unit = EngineUnit(
            "vllm", engine, (SimulatedGpu(channel),), make_table(model), Origin.SIMULATED
        )
        overhead = NodeOverhead(0.0, 0.0)
        meter = LinearNodeMeter(overhead)
        return NodeHardware("simulated GPU", Origin.SIMULATED, (unit,), meter, overhead)

    config = AgentConfig(
        url="http://127.0.0.1:9",
        enrolment_token="none",
        name="vllm-test",
        state_dir=state,
        hardware="sim",
        strategy="pals",
    )
    return run_agent(config, build_units=build)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
