"""The GPUs of this machine, of every maker whose driver answers."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from pals_grid.core.errors import ConfigurationError, DeviceError
from pals_grid.core.ports import Gpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pals_grid.core.fleet import Origin

log = logging.getLogger(__name__)

MAKERS = ("nvml", "amd", "intel")


class RealGpu(Gpu, Protocol):
    """A GPU that says how its energy is known."""

    energy_origin: Origin


def open_gpus(hardware: str) -> tuple[RealGpu, ...]:
    """Open the GPUs behind one of ``MAKERS``, or with ``auto`` behind all that answer.

    Raises:
        DeviceError: when the one that is named does not answer; with ``auto`` never.
        ConfigurationError: for another name, or where the named one has no binding installed.
    """
    if hardware != "auto":
        return _open(hardware)
    gpus: list[RealGpu] = []
    for maker in MAKERS:
        try:
            gpus += _open(maker)
        except (ConfigurationError, DeviceError) as error:
            log.info("no GPU through %s: %s", maker, error)
    return tuple(gpus)


def describe_gpus(gpus: Iterable[RealGpu]) -> str:
    """Count the GPUs by model, for people; MIG instances are counted beside their parents."""
    gpus = list(gpus)
    models = Counter(gpu.model for gpu in gpus)
    text = ", ".join(f"{count} x {model}" for model, count in sorted(models.items()))
    instances = sum(len(mig_uuids(gpu)) for gpu in gpus)
    return f"{text}, {instances} MIG instances" if instances else text


def mig_uuids(gpu: Gpu) -> tuple[str, ...]:
    """UUIDs of a GPU's MIG instances; empty for one that has none."""
    found: tuple[str, ...] = getattr(gpu, "mig_uuids", ())
    return found


def is_mig(gpu: Gpu) -> bool:
    """Whether a GPU is divided: its power is then shared by several tenants."""
    return bool(getattr(gpu, "is_mig", False))


def place_engine(gpus: Sequence[RealGpu], wanted: Sequence[str]) -> tuple[RealGpu, ...]:
    """Return the GPUs that the engine runs on; ``wanted`` are UUIDs, of MIG instances too.

    Raises:
        ConfigurationError: for a UUID that is not here; names those that are.
    """
    chosen: dict[str, RealGpu] = {}
    for uuid in wanted:
        for gpu in gpus:
            if uuid == gpu.uuid or uuid in mig_uuids(gpu):
                chosen[gpu.uuid] = gpu
                break
        else:
            here = ", ".join(gpu.uuid for gpu in gpus)
            raise ConfigurationError(f"engine_gpu: must be one of {here}, got {uuid!r}")
    return tuple(chosen.values()) if chosen else tuple(gpus)


def _open(maker: str) -> tuple[RealGpu, ...]:
    # Each binding is imported only where it is wanted: none of them is small.
    if maker == "nvml":
        try:
            from pals_grid.node import nvml  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(f"hardware: nvml needs nvidia-ml-py: {error}") from error
        return nvml.open_gpus()
    if maker == "amd":
        from pals_grid.node import amd  # noqa: PLC0415

        return amd.open_gpus()
    if maker == "intel":
        from pals_grid.node import intel  # noqa: PLC0415

        return intel.open_gpus()
    known = ", ".join(("auto", *MAKERS))
    raise ConfigurationError(f"hardware: must be one of {known}, got {maker!r}")
