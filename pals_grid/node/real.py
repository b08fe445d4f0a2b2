"""The real node: GPUs by NVML, engines by vLLM's /metrics or none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError, DeviceError, NotFound
from pals_grid.core.fleet import Origin
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.node_meter import LinearNodeMeter
from pals_grid.node.null_engine import NullEngine
from pals_grid.node.vllm.metrics import VllmMetricsEngine
from pals_grid.powermodel.overhead import NodeOverhead
from pals_grid.powermodel.table import build_frontier_table

if TYPE_CHECKING:
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.site import Slo
    from pals_grid.node.nvml import NvmlGpu

log = logging.getLogger(__name__)

INPUT_PER_OUTPUT = 5.5
"""Prompt tokens per output token assumed for the table: about the mean of the Azure LLM
inference trace 2023, conversation (1155 prompt and 211 output tokens per request)."""

OVERHEAD_PER_GPU_W = 105.0
OVERHEAD_RATIO = 0.15
"""ASSUMED like powermodel.overhead.FOUR_A100 (420 W for four GPUs, 15 %); not measured."""


def build_real_node(engine_url: str | None, engine_model: str | None, slo: Slo) -> NodeHardware:
    """Open this machine's GPUs. With an engine it runs on all of them, else each is observed.

    Raises:
        DeviceError: when NVML does not answer.
        ConfigurationError: when there is no GPU, or an engine without a model's name.
    """
    from pals_grid.node import nvml  # noqa: PLC0415 - pynvml is needed only where GPUs are

    gpus = nvml.open_gpus()
    if not gpus:
        raise ConfigurationError("NVML answers, but this machine has no GPU")
    if engine_url is None:
        units = tuple(
            EngineUnit(f"gpu-{gpu.uuid}", NullEngine(), (gpu,), None, gpu.energy_origin)
            for gpu in gpus
        )
    elif engine_model is None:
        raise ConfigurationError("engine_model: must be given together with engine_metrics_url")
    else:
        units = (_served_unit(engine_url, engine_model, gpus, slo),)
    overhead = NodeOverhead(OVERHEAD_PER_GPU_W * len(gpus), OVERHEAD_RATIO)
    models = sorted({gpu.model for gpu in gpus})
    return NodeHardware(
        description=f"{len(gpus)} x {', '.join(models)}",
        origin=Origin.MEASURED,
        units=units,
        meter=LinearNodeMeter(overhead),
        overhead=overhead,
    )


def can_open_gpus() -> bool:
    """Whether NVML answers and shows at least one GPU."""
    try:
        from pals_grid.node import nvml  # noqa: PLC0415 - as above

        return bool(nvml.open_gpus())
    except (ImportError, DeviceError) as error:
        log.info("no GPU through NVML: %s", error)
        return False


def _served_unit(url: str, model: str, gpus: tuple[NvmlGpu, ...], slo: Slo) -> EngineUnit:
    engine = VllmMetricsEngine(url, model, slo)
    engine.start()
    measured = all(gpu.energy_origin is Origin.MEASURED for gpu in gpus)
    origin = Origin.MEASURED if measured else Origin.MODELLED
    return EngineUnit("vllm", engine, gpus, _table(gpus, model), origin)


def _table(gpus: tuple[NvmlGpu, ...], model: str) -> FrontierTable | None:
    try:
        return build_frontier_table(gpus[0].model, model, len(gpus), INPUT_PER_OUTPUT)
    except NotFound as error:
        log.warning("%s: the node is observed only, no limit will be written", error)
        return None
