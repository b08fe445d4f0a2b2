"""What a fleet can do: operating points of a node, and its power as a function of tokens/s."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pals_grid.core.intervals import Interval


MIN_STEP_TOKENS_PER_S = 1e-3
"""Breakpoints of a curve are at least this far apart: closer ones are rounding, not data."""


class Origin(StrEnum):
    """Where a figure comes from; shown beside it everywhere."""

    MEASURED = "measured"
    MODELLED = "modelled"
    SIMULATED = "simulated"

    @staticmethod
    def weakest(origins: Iterable[Origin]) -> Origin:
        """Return that of a sum: the one farthest from a measurement; measured without any."""
        return max(origins, key=list(Origin).index, default=Origin.MEASURED)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One row of a power-performance table, all GPUs of the engine together, saturated.

    ``power_limit_w`` is per GPU; ``gpu_power_w`` the predicted draw of all of them;
    ``tokens_per_s`` counts output tokens; ``sm_clock_mhz`` is the clock that the GPUs are held
    to, None where they are free.
    """

    power_limit_w: float
    max_num_seqs: int
    tokens_per_s: float
    gpu_power_w: float
    ttft_s: float
    itl_s: float
    sm_clock_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class FrontierTable:
    """The operating points of one engine: GPU, model, parallelism and phase mix fixed.

    ``input_per_output`` is the workload's prompt tokens per output token.
    """

    gpu_model: str
    gpu_count: int
    model: str
    input_per_output: float
    origin: Origin
    points: tuple[OperatingPoint, ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise InvalidValue("points", 0, "a frontier table needs at least one operating point")


FLOOR_RATIO = 0.03
DRAW_NOISE_RATIO = 0.02


def floor_point(points: Iterable[OperatingPoint], itl_slo_s: float) -> OperatingPoint:
    """Return the point to fall back on: most throughput within 3 % of the least power.

    At the lowest power limit the batch hardly changes the draw; the smallest batch would save
    nothing and starve the engine. Points inside the ITL objective come first.
    """
    everything = tuple(points)
    least_w = min(point.gpu_power_w for point in everything)
    low = [point for point in everything if point.gpu_power_w <= least_w * (1 + FLOOR_RATIO)]
    return max(low, key=lambda point: (point.itl_s <= itl_slo_s, point.tokens_per_s))


def floor_power_w(points: Iterable[OperatingPoint], itl_slo_s: float) -> float:
    """GPU power that a serving engine can be held to: the floor point's and 2 % for noise."""
    return floor_point(points, itl_slo_s).gpu_power_w * (1 + DRAW_NOISE_RATIO)


@dataclass(frozen=True, slots=True)
class PowerCurve:
    """Power as a convex, rising, piecewise-linear function of output tokens/s.

    ``tokens_per_s[0]`` is 0 and ``power_w[0]`` the floor: the least power that its owner can be
    held to while it serves.
    Power is at the boundary that the curve's owner states (node or site).
    """

    tokens_per_s: tuple[float, ...]
    power_w: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.tokens_per_s) != len(self.power_w) or not self.tokens_per_s:
            raise InvalidValue("power_w", len(self.power_w), "needs one value per tokens_per_s")
        if self.tokens_per_s[0] != 0:
            raise InvalidValue("tokens_per_s[0]", self.tokens_per_s[0], "must be 0")
        rising = zip(self.tokens_per_s, self.tokens_per_s[1:], strict=False)
        if any(b - a < MIN_STEP_TOKENS_PER_S * 0.99 for a, b in rising):
            bound = f"must rise by at least {MIN_STEP_TOKENS_PER_S}"
            raise InvalidValue("tokens_per_s", self.tokens_per_s, bound)
        slopes = self.slopes_w_per_token_per_s
        if any(not math.isfinite(s) or s < 0 for s in slopes):
            raise InvalidValue("power_w", self.power_w, "must be finite and must not fall")
        if any(b < a - 1e-6 * max(1.0, a) for a, b in itertools.pairwise(slopes)):
            raise InvalidValue("power_w", self.power_w, "must be convex in tokens_per_s")

    @property
    def floor_w(self) -> float:
        """The least power."""
        return self.power_w[0]

    @property
    def max_power_w(self) -> float:
        """Power at full throughput."""
        return self.power_w[-1]

    @property
    def max_tokens_per_s(self) -> float:
        """Full throughput."""
        return self.tokens_per_s[-1]

    @property
    def slopes_w_per_token_per_s(self) -> tuple[float, ...]:
        """Marginal power of each segment."""
        return tuple(
            (p1 - p0) / (t1 - t0)
            for t0, t1, p0, p1 in zip(
                self.tokens_per_s,
                self.tokens_per_s[1:],
                self.power_w,
                self.power_w[1:],
                strict=False,
            )
        )

    def power_w_at(self, tokens_per_s: float) -> float:
        """Power needed for ``tokens_per_s``, held at the curve's ends."""
        if tokens_per_s <= 0:
            return self.floor_w
        if tokens_per_s >= self.max_tokens_per_s:
            return self.max_power_w
        i = bisect_right(self.tokens_per_s, tokens_per_s) - 1
        return self.power_w[i] + self._slope(i) * (tokens_per_s - self.tokens_per_s[i])

    def tokens_per_s_at(self, power_w: float) -> float:
        """Most tokens/s inside ``power_w``."""
        if power_w >= self.max_power_w:
            return self.max_tokens_per_s
        if power_w < self.floor_w:
            return 0.0
        i = max(0, bisect_left(self.power_w, power_w) - 1)
        slope = self._slope(i)
        if slope == 0:
            return self.tokens_per_s[i + 1]
        return self.tokens_per_s[i] + (power_w - self.power_w[i]) / slope

    def _slope(self, i: int) -> float:
        return (self.power_w[i + 1] - self.power_w[i]) / (
            self.tokens_per_s[i + 1] - self.tokens_per_s[i]
        )

    def within(self, least_w: float, most_w: float) -> PowerCurve:
        """Return the part of the curve that ``most_w`` allows, nowhere below ``least_w``.

        What is under its floor has no throughput: such a curve is one point at ``most_w``.
        """
        if most_w < max(self.floor_w, least_w):
            return PowerCurve((0.0,), (most_w,))
        if least_w <= self.floor_w and most_w >= self.max_power_w:
            return self
        raised = [(self.tokens_per_s_at(least_w), least_w)] if least_w > self.floor_w else []
        inside = [
            (tokens, power_w)
            for tokens, power_w in zip(self.tokens_per_s, self.power_w, strict=True)
            if least_w < power_w < most_w
        ]
        last = (self.tokens_per_s_at(most_w), min(most_w, self.max_power_w))
        return PowerCurve.lower_hull(max(self.floor_w, least_w), [*raised, *inside, last])

    @staticmethod
    def lower_hull(floor_w: float, points: Iterable[tuple[float, float]]) -> PowerCurve:
        """Lower convex hull of ``(tokens_per_s, power_w)`` points above ``(0, floor_w)``.

        Time-sharing between two neighbouring points reaches any point of the hull.
        """
        hull: list[tuple[float, float]] = [(0.0, floor_w)]
        for tokens, power in sorted(points):
            point = (tokens, max(power, floor_w))
            while len(hull) > 1 and _turns_down(hull[-2], hull[-1], point):
                hull.pop()
            if point[0] - hull[-1][0] >= MIN_STEP_TOKENS_PER_S:
                hull.append(point)
        rising = [hull[0]]
        for point in hull[1:]:
            rising.append((point[0], max(point[1], rising[-1][1])))
        return PowerCurve(tuple(p[0] for p in rising), tuple(p[1] for p in rising))

    @staticmethod
    def combined(curves: Sequence[PowerCurve]) -> PowerCurve:
        """Cheapest joint curve of several: their segments laid end to end by rising slope."""
        segments = sorted(
            (slope, curve.tokens_per_s[i + 1] - curve.tokens_per_s[i])
            for curve in curves
            for i, slope in enumerate(curve.slopes_w_per_token_per_s)
        )
        tokens = [0.0]
        power = [sum(curve.floor_w for curve in curves)]
        for slope, width in segments:
            tokens.append(tokens[-1] + width)
            power.append(power[-1] + slope * width)
        return PowerCurve(tuple(tokens), tuple(power))


def _turns_down(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - b[1]) <= (c[0] - b[0]) * (b[1] - a[1])


@dataclass(frozen=True, slots=True)
class Fleet:
    """Nodes that are planned as one, at the site's boundary.

    ``minimum_w`` is drawn whatever is served; ``maximum_w`` is never exceeded, and during a
    thermal limit's interval neither is that.
    """

    name: str
    curve: PowerCurve
    minimum_w: float = 0.0
    maximum_w: float = math.inf
    thermal_limits: tuple[tuple[Interval, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_w <= self.maximum_w:
            raise InvalidValue("minimum_w", self.minimum_w, f"must be from 0 to {self.maximum_w:g}")
        for _, limit_w in self.thermal_limits:
            if not 0 <= limit_w < math.inf:
                raise InvalidValue("thermal_limits", limit_w, "must be finite and not negative")

    def most_w(self, interval: Interval) -> float:
        """Most power at any time of ``interval``."""
        held = (limit_w for during, limit_w in self.thermal_limits if during.overlap_s(interval))
        return min((self.maximum_w, *held))


@dataclass(frozen=True, slots=True)
class NodeCapability:
    """What a node can be asked for, at the node's boundary (GPUs and everything around them)."""

    node_id: int
    name: str
    power_min_w: float
    power_max_w: float
    curve: PowerCurve
    online: bool = True


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node."""

    id: int
    site_id: int
    name: str
    hardware: str
    gpu_model: str
    gpu_count: int
    models: tuple[str, ...]
    origin: Origin
    capability: NodeCapability
    registered_at: datetime
    last_seen_at: datetime | None
