"""What a node power meter reads from: one figure, asked for away from the control loop."""

from __future__ import annotations

import math
from typing import Protocol

from pals_grid.core.errors import DeviceError

MOST_W = 1e6


class PowerSource(Protocol):
    """A place where power can be read, slowly; used by one background thread alone."""

    @property
    def name(self) -> str:
        """What is shown and reported as the figure's source."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether the figure is the whole node's; else it is the CPUs' and memory's alone."""
        ...

    @property
    def poll_s(self) -> float:
        """How often it is worth asking."""
        ...

    def read_w(self) -> float:
        """Read the power in watts; may take seconds.

        Raises:
            DeviceError: when there is no figure now.
        """
        ...


def checked_w(value: float, what: str) -> float:
    """Return a figure that can be a node's power.

    Raises:
        DeviceError: names the bound and the value.
    """
    if not (math.isfinite(value) and 0 < value <= MOST_W):
        raise DeviceError(f"{what}: must be above 0 and at most {MOST_W:g} W, got {value!r}")
    return value
