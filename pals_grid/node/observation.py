"""What one tick sees of one unit."""

from __future__ import annotations

from msgspec import Struct

from pals_grid.core.ports import EngineSample, GpuSample


class UnitObservation(Struct, frozen=True):
    """Samples of a unit's GPUs, in their order, and of its engine; None where none came."""

    gpus: tuple[GpuSample | None, ...]
    engine: EngineSample | None

    @property
    def power_draw_w(self) -> float:
        """Draw of the GPUs that answered."""
        return sum([gpu.power_draw_w for gpu in self.gpus if gpu is not None])

    @property
    def power_limit_w(self) -> float:
        """Limits of the GPUs that answered, summed."""
        return sum([gpu.power_limit_w for gpu in self.gpus if gpu is not None])

    @property
    def gpus_seen(self) -> int:
        """How many GPUs answered."""
        return len(self.gpus) - self.gpus.count(None)
