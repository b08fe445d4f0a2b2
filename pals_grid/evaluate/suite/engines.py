"""Engines of the scenarios, and the nodes that they stand in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pals_grid.evaluate.suite.tables import TableKey
from pals_grid.powermodel import coefficients
from pals_grid.powermodel.overhead import EIGHT_B200, EIGHT_H100, FOUR_A100, NodeOverhead

if TYPE_CHECKING:
    from pals_grid.powermodel.physics import EngineModel

A100_SEQS = 64
"""Largest batch of the measured A100 table."""

A100_CLOCKS_MHZ: tuple[float, ...] = (705.0, 810.0, 915.0, 1020.0, 1125.0, 1230.0, 1335.0)


def paper_engines() -> tuple[EngineModel, ...]:
    """Five MoE and three dense models on four A100."""
    return coefficients.PAPER_ENGINES


def clock_engines() -> tuple[EngineModel, ...]:
    """MoE models on H100 and B200; their response to limit and clock is modelled."""
    return coefficients.CLOCK_LOCK_ENGINES


def named(text: str) -> EngineModel:
    """The paper's engine whose model name holds ``text``, in any case."""
    return next(e for e in paper_engines() if text.lower() in e.model.lower())


def a100_key(model: str, tokens_in: float, tokens_out: float) -> TableKey:
    """The profile of one of the paper's engines, clocks included, for a workload."""
    return TableKey(named(model), A100_SEQS, tokens_in, tokens_out, A100_CLOCKS_MHZ)


def short_name(engine: EngineModel) -> str:
    """The model's name without its publisher and what every one of them is."""
    name = engine.model.rsplit("/", 1)[-1]
    return re.sub(r"-(Instruct|base|Chat)\b.*", "", name, flags=re.IGNORECASE)


def overhead_of(engine: EngineModel) -> NodeOverhead:
    """The node's overhead, ASSUMED: of an eight-GPU node the part of the engine's GPUs."""
    if "A100" in engine.gpu_model:
        return FOUR_A100
    whole = EIGHT_B200 if "B200" in engine.gpu_model else EIGHT_H100
    return NodeOverhead(whole.base_w * engine.gpu_count / 8, whole.per_gpu_w_ratio)
