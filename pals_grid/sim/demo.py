"""The simulated node that a demo runs when there is no real GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pals_grid.powermodel.overhead import FOUR_A100
from pals_grid.sim.arrivals import (
    AZURE_RATE_PER_S,
    AZURE_TOKENS_IN,
    AZURE_TOKENS_OUT,
    poisson,
)
from pals_grid.sim.plant import NodeSpec, SimNode

if TYPE_CHECKING:
    from pals_grid.core.ports import Clock

#: Four A100 that serve DeepSeek-MoE 16B: the Azure trace's mean load is 47 % of what they can
#: serve at full power with 64 sequences, inside the default objectives.
DEMO_SPEC = NodeSpec(
    name="simulated-node",
    gpu_model="NVIDIA A100-SXM4-80GB",
    model="deepseek-ai/deepseek-moe-16b-base",
    gpu_count=4,
    overhead=FOUR_A100,
    max_num_seqs=64,
)
DEMO_INPUT_PER_OUTPUT = AZURE_TOKENS_IN / AZURE_TOKENS_OUT
#: Half of what the node can serve, on average; a burst at the busiest hour still fits.
_RATE_PER_S = 1.1 * AZURE_RATE_PER_S
_BURST_RATIO = 1.3
_DEFERRABLE_RATIO = 0.3
DEMO_TOKENS_PER_S = _RATE_PER_S * AZURE_TOKENS_OUT


def demo_node(clock: Clock, *, name: str = DEMO_SPEC.name, seed: int = 1) -> SimNode:
    """Make a node under a synthetic load with a daily shape and short bursts."""
    arrivals = poisson(
        _RATE_PER_S,
        clock.now(),
        seed=seed,
        burst_ratio=_BURST_RATIO,
        deferrable_ratio=_DEFERRABLE_RATIO,
    )
    return SimNode(clock, replace(DEMO_SPEC, name=name), arrivals, seed)
