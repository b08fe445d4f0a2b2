"""How much and how often a GPU may be written: the operator's bounds, not the agent's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from pals_grid.core.ports import PowerLimitRange


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits that an agent may set, inside those that the device accepts anyway.

    ``min_power_w`` and ``max_power_w`` are per GPU. ``writes_per_s`` is per GPU and knob, over
    time; ``burst`` may come at once.
    """

    min_power_w: float = 0.0
    max_power_w: float = 1e6
    writes_per_s: float = 4.0
    burst: float = 8.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_power_w <= self.max_power_w <= 1e6:
            bound = f"must be from min_power_w ({self.min_power_w:g}) to 1e6"
            raise InvalidValue("max_power_w", self.max_power_w, bound)
        if not 0 < self.writes_per_s <= 1000:
            raise InvalidValue("writes_per_s", self.writes_per_s, "must be above 0, up to 1000")
        if not 1 <= self.burst <= 10_000:
            raise InvalidValue("burst", self.burst, "must be from 1 to 10000")

    def clamp_w(self, power_limit_w: float, device: PowerLimitRange) -> float:
        """Bring a limit inside the operator's bounds and the device's range."""
        low_w = max(self.min_power_w, device.min_w)
        high_w = max(min(self.max_power_w, device.max_w), device.min_w)
        return min(max(power_limit_w, low_w), high_w)


class RateLimit:
    """A bucket of writes for each key, filled evenly."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, key: str, now_s: float) -> float:
        """Take one out of the bucket; the time until there is one, 0 where it was there."""
        level, then_s = self._buckets.get(key, (self._burst, now_s))
        level = min(self._burst, level + (now_s - then_s) * self._per_s)
        if level < 1:
            self._buckets[key] = (level, now_s)
            return (1 - level) / self._per_s
        self._buckets[key] = (level - 1, now_s)
        return 0.0
