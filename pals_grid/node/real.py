"""The real node: the GPUs of this machine; engines by vLLM's channel, its /metrics or none."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError, DeviceError, NotFound
from pals_grid.core.fleet import Origin
from pals_grid.node.devices import describe_gpus, is_mig, open_gpus, place_engine
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.node.meters.choose import MeterConfig, make_meter
from pals_grid.node.null_engine import NullEngine
from pals_grid.node.vllm.engine import VllmChannelEngine
from pals_grid.node.vllm.layout import BatchMode
from pals_grid.node.vllm.metrics import VllmMetricsEngine
from pals_grid.powermodel.overhead import NodeOverhead
from pals_grid.powermodel.table import build_frontier_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.ports import Engine
    from pals_grid.core.site import Slo
    from pals_grid.node.devices import RealGpu

log = logging.getLogger(__name__)

INPUT_PER_OUTPUT = 5.5
"""Prompt tokens per output token assumed for the table: about the mean of the Azure LLM
inference trace 2023, conversation (1155 prompt and 211 output tokens per request)."""

OVERHEAD_PER_GPU_W = 105.0
OVERHEAD_RATIO = 0.15
"""ASSUMED like powermodel.overhead.FOUR_A100 (420 W for four GPUs, 15 %); not measured."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A vLLM server on this machine, or none: neither ``metrics_url`` nor ``channel``.

    ``channel`` is the directory of its shared-memory channel and ``batch_mode`` how its batch
    shrinks, see ``node.vllm``. ``gpus`` are the UUIDs of its GPUs, of MIG instances too; empty:
    all of the machine.
    """

    metrics_url: str | None = None
    model: str | None = None
    channel: Path | None = None
    batch_mode: str = "drain"
    gpus: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        """Whether there is a server to look at."""
        return self.metrics_url is not None or self.channel is not None


def build_real_node(
    server: ServerConfig,
    slo: Slo,
    *,
    look_up_table: bool = True,
    hardware: str = "auto",
    meter: MeterConfig | None = None,
) -> NodeHardware:
    """Open this machine's GPUs; each that no engine runs on is observed.

    Where no GPUs are named and those of the machine are of several models, the engine is taken to
    run on the ones of the only model that has a table for it. ``look_up_table`` False leaves the
    engine without a table, for the caller has another one. ``meter`` None is the linear model.

    Raises:
        DeviceError: when the ``hardware`` that is named does not answer.
        ConfigurationError: when there is no GPU, an engine without a model's name, or a setting
            that cannot be used.
    """
    gpus = open_gpus(hardware)
    if not gpus:
        raise ConfigurationError("this machine has no GPU that its driver shows")
    if not server.is_there:
        if server.gpus:
            raise ConfigurationError(
                "engine_gpu: must be given together with engine_metrics_url or engine_channel"
            )
        units = tuple(_observed_unit(gpu) for gpu in gpus)
    elif server.model is None:
        raise ConfigurationError(
            "engine_model: must be given together with engine_metrics_url or engine_channel"
        )
    else:
        own, table = _find_own(gpus, server.gpus, server.model, look_up_table=look_up_table)
        engine = open_engine(
            server.metrics_url, server.model, slo, server.channel, server.batch_mode
        )
        served = _served_unit(engine, own, table)
        units = (served, *(_observed_unit(gpu) for gpu in gpus if gpu not in own))
    settings = meter or MeterConfig(kind="linear")
    base_w = OVERHEAD_PER_GPU_W * len(gpus) if settings.base_w is None else settings.base_w
    ratio = OVERHEAD_RATIO if settings.per_gpu_w_ratio is None else settings.per_gpu_w_ratio
    overhead = NodeOverhead(base_w, ratio)
    return NodeHardware(
        description=describe_gpus(gpus),
        origin=Origin.MEASURED,
        units=units,
        meter=make_meter(settings, overhead),
        overhead=overhead,
    )


def can_open_gpus(hardware: str = "auto") -> bool:
    """Whether a driver answers and shows at least one GPU."""
    try:
        return bool(open_gpus(hardware))
    except (ConfigurationError, DeviceError) as error:
        log.info("no GPU through %s: %s", hardware, error)
        return False


def open_engine(
    url: str | None, model: str, slo: Slo, channel: Path | None, batch_mode: str = "drain"
) -> Engine:
    """Open a vLLM server: by its channel, its /metrics or both.

    Raises:
        InvalidValue: for a mode that does not exist.
    """
    metrics = None
    if url is not None:
        metrics = VllmMetricsEngine(url, model, slo)
        metrics.start()
        if channel is None:
            return metrics
    assert channel is not None  # one of both is given
    return VllmChannelEngine(channel, model, slo, mode=BatchMode.parse(batch_mode), metrics=metrics)


def _observed_unit(gpu: RealGpu) -> EngineUnit:
    return EngineUnit(f"gpu-{gpu.uuid}", NullEngine(), (gpu,), None, gpu.energy_origin)


def _served_unit(
    engine: Engine, gpus: tuple[RealGpu, ...], table: FrontierTable | None
) -> EngineUnit:
    measured = all(gpu.energy_origin is Origin.MEASURED for gpu in gpus)
    origin = Origin.MEASURED if measured else Origin.MODELLED
    return EngineUnit("vllm", engine, gpus, table, origin)


def _find_own(
    gpus: tuple[RealGpu, ...], wanted: Sequence[str], model: str, *, look_up_table: bool
) -> tuple[tuple[RealGpu, ...], FrontierTable | None]:
    """Return the engine's GPUs and the table for it on them, where there is one."""
    own = place_engine(gpus, wanted)
    if not look_up_table:
        return own, None
    kinds = sorted({gpu.model for gpu in own})
    if len(kinds) == 1:
        return own, _table(own, model)
    groups = [tuple(gpu for gpu in own if gpu.model == kind) for kind in kinds]
    fitting = [(group, table) for group in groups if (table := _table(group, model)) is not None]
    if len(fitting) == 1 and not wanted:
        group, table = fitting[0]
        log.warning(
            "GPUs of several models (%s): the engine is taken to run on the %d x %s",
            ", ".join(kinds),
            len(group),
            group[0].model,
        )
        return group, table
    log.warning(
        "the engine's GPUs are of several models (%s): the node is observed only; name its GPUs "
        "with --engine-gpu where it runs on one model",
        ", ".join(kinds),
    )
    return own, None


def _table(gpus: tuple[RealGpu, ...], model: str) -> FrontierTable | None:
    divided = [gpu.uuid for gpu in gpus if is_mig(gpu)]
    if divided:
        log.warning(
            "%s in MIG mode: the node is observed only, tables are for whole GPUs",
            ", ".join(divided),
        )
        return None
    try:
        return build_frontier_table(gpus[0].model, model, len(gpus), INPUT_PER_OUTPUT)
    except NotFound as error:
        log.warning("%s: the node is observed only, no limit will be written", error)
        return None
