"""A GPU seen through another object: read as it is; who writes it is up to the subclass."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.core.ports import Gpu, GpuSample, PowerLimitRange


class ReadThroughGpu:
    """Everything of a GPU but its writes."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    @property
    def uuid(self) -> str:
        """The GPU's."""
        return self._gpu.uuid

    @property
    def model(self) -> str:
        """The GPU's."""
        return self._gpu.model

    @property
    def limit_range(self) -> PowerLimitRange:
        """The GPU's; who writes may have narrower bounds, and then clamps."""
        return self._gpu.limit_range

    def observe(self) -> GpuSample:
        """Read the GPU; raises what it raises."""
        return self._gpu.observe()
