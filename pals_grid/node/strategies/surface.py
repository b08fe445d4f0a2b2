"""A frontier table as a surface: power and throughput at any limit, for any number of requests.

The table's points are saturated: always ``n`` requests inside the engine. With open-loop
arrivals ``n`` is not a setting but follows from the load: by Little's law the engine that serves
``x`` output tokens/s holds the ``n`` at which it would serve just ``x`` if it were saturated. So
the same points tell, for a load and a limit, the running batch, the power and the latency.

Between two batches the time of a round, ``n / tokens_per_s`` (each request gets one token, and
its part of prefill is done), and the energy of a round are straight lines in ``n``; between two
limits they are straight lines in the limit. Below the smallest batch the engine is busy for a
part of the time and idle for the rest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.fleet import OperatingPoint

STEPS = 60
"""Levels that the range of limits is cut into at least, for each clock."""
IDLE_RATIO = 0.55
"""ASSUMED: draw of an idle engine's GPUs against the table's least power (55 W of 100 W on the
A100). It only ranks limits at loads below one request."""


class State(NamedTuple):
    """An engine with ``running`` requests inside: all GPUs together, output tokens."""

    running: float
    tokens_per_s: float
    gpu_power_w: float
    itl_s: float
    ttft_s: float


class Level:
    """One limit at one clock, over the batches of the table."""

    __slots__ = (
        "_batches",
        "_itl_s",
        "_round_j",
        "_round_s",
        "_slowest_itl_s",
        "_slowest_ttft_s",
        "_ttft_s",
        "limit_w",
        "most_running",
        "sm_clock_mhz",
        "tokens_per_s",
    )

    def __init__(self, limit_w: float, clock_mhz: float | None, states: Sequence[State]) -> None:
        self.limit_w = limit_w
        self.sm_clock_mhz = clock_mhz
        self._batches = [state.running for state in states]
        self.most_running = self._batches[-1]
        self.tokens_per_s = _rising([state.tokens_per_s for state in states])
        self._round_s = [n / x for n, x in zip(self._batches, self.tokens_per_s, strict=True)]
        powers = (state.gpu_power_w for state in states)
        self._round_j = [p * t for p, t in zip(powers, self._round_s, strict=True)]
        self._itl_s = [state.itl_s for state in states]
        self._ttft_s = [state.ttft_s for state in states]
        self._slowest_itl_s = max(self._itl_s)
        self._slowest_ttft_s = max(self._ttft_s)

    def at(self, running: float) -> State:
        """State with ``running`` requests inside, held at the largest batch."""
        batches = self._batches
        if running <= batches[0]:
            busy = running / batches[0]
            power_w = self._round_j[0] / self._round_s[0]
            tokens = self.tokens_per_s[0] * busy
            return State(running, tokens, power_w, self._itl_s[0], self._ttft_s[0])
        if running >= batches[-1]:
            i, part, running = len(batches) - 2, 1.0, batches[-1]
            if i < 0:
                i, part = 0, 0.0
        else:
            i = bisect_right(batches, running) - 1
            part = (running - batches[i]) / (batches[i + 1] - batches[i])
        j = min(i + 1, len(batches) - 1)
        rest = 1 - part
        round_s = self._round_s[i] * rest + self._round_s[j] * part
        round_j = self._round_j[i] * rest + self._round_j[j] * part
        return State(
            running,
            running / round_s,
            round_j / round_s,
            self._itl_s[i] * rest + self._itl_s[j] * part,
            self._ttft_s[i] * rest + self._ttft_s[j] * part,
        )

    def power_w(self, running: float) -> float:
        """Draw with ``running`` requests inside; under work also below the smallest batch."""
        batches = self._batches
        if running <= batches[0]:
            return self._round_j[0] / self._round_s[0]
        if running >= batches[-1]:
            return self._round_j[-1] / self._round_s[-1]
        i = bisect_right(batches, running) - 1
        part = (running - batches[i]) / (batches[i + 1] - batches[i])
        round_s = self._round_s[i] + (self._round_s[i + 1] - self._round_s[i]) * part
        return (self._round_j[i] + (self._round_j[i + 1] - self._round_j[i]) * part) / round_s

    def running_at(self, tokens_per_s: float) -> float:
        """Requests inside at a load (Little's law); the largest batch where it is too much."""
        xs = self.tokens_per_s
        if tokens_per_s <= xs[0]:
            return max(0.0, tokens_per_s / xs[0]) * self._batches[0]
        if tokens_per_s >= xs[-1]:
            return self._batches[-1]
        i = bisect_left(xs, tokens_per_s) - 1
        n0, n1 = self._batches[i], self._batches[i + 1]
        slope_s = (self._round_s[i + 1] - self._round_s[i]) / (n1 - n0)
        # n / (a + b * n) = x, with the round's time a + b * n on this stretch.
        start_s = self._round_s[i] - slope_s * n0
        return min(n1, max(n0, tokens_per_s * start_s / (1 - tokens_per_s * slope_s)))

    def load_power_w(self, tokens_per_s: float, idle_w: float) -> float:
        """Mean draw at a load, idle for a part of the time below the smallest batch."""
        running = self.running_at(tokens_per_s)
        power_w = self.power_w(running)
        if running >= self._batches[0]:
            return power_w
        return idle_w + (power_w - idle_w) * running / self._batches[0]

    def most_within(self, itl_s: float, ttft_s: float) -> float:
        """Most requests inside that keep both latencies; 0 where even the smallest batch fails."""
        most = self.most_running
        if self._slowest_itl_s <= itl_s and self._slowest_ttft_s <= ttft_s:
            return most
        by_itl = most if self._slowest_itl_s <= itl_s else self._last(self._itl_s, itl_s)
        by_ttft = most if self._slowest_ttft_s <= ttft_s else self._last(self._ttft_s, ttft_s)
        return min(by_itl, by_ttft)

    def _last(self, values: list[float], bound: float) -> float:
        return _last_below(self._batches, values, bound)


class Surface:
    """All levels of one engine, ``tracks`` by clock, each by rising limit."""

    def __init__(
        self,
        points: Sequence[OperatingPoint],
        low_w: float,
        high_w: float,
        *,
        clocks: bool = True,
        interpolate: bool = True,
    ) -> None:
        usable = [p for p in points if clocks or p.sm_clock_mhz is None] or list(points)
        inside = [p for p in usable if low_w <= p.power_limit_w <= high_w] or usable
        keys = {p.sm_clock_mhz for p in inside}
        self.tracks = {
            key: Track(
                [p for p in inside if p.sm_clock_mhz == key],
                key,
                interpolate=interpolate and key is None,
            )
            for key in sorted(keys, key=lambda clock: float("inf") if clock is None else clock)
        }
        self.levels = [level for track in self.tracks.values() for level in track.levels]
        self.idle_w = IDLE_RATIO * min(p.gpu_power_w for p in inside)
        self.most_running = max(level.most_running for level in self.levels)

    def track(self, sm_clock_mhz: float | None) -> Track:
        """Levels at a clock; the freest where the table has none for it."""
        found = self.tracks.get(sm_clock_mhz)
        return found if found is not None else list(self.tracks.values())[-1]


class Track:
    """The levels of one clock by rising limit."""

    def __init__(
        self, points: Sequence[OperatingPoint], clock_mhz: float | None, *, interpolate: bool
    ) -> None:
        by_limit: dict[float, dict[int, State]] = {}
        for p in points:
            state = State(p.max_num_seqs, p.tokens_per_s, p.gpu_power_w, p.itl_s, p.ttft_s)
            by_limit.setdefault(p.power_limit_w, {})[p.max_num_seqs] = state
        known = sorted(by_limit)
        self.levels: list[Level] = []
        for low_w, high_w in zip(known, [*known[1:], None], strict=True):
            low = by_limit[low_w]
            self.levels.append(Level(low_w, clock_mhz, [low[n] for n in sorted(low)]))
            if high_w is not None and interpolate:
                step_w = (known[-1] - known[0]) / STEPS
                count = max(1, round((high_w - low_w) / step_w))
                self.levels += [
                    _between(low_w, low, high_w, by_limit[high_w], k / count, clock_mhz)
                    for k in range(1, count)
                    if low.keys() & by_limit[high_w].keys()
                ]
        self.limits_w = [level.limit_w for level in self.levels]

    def at(self, limit_w: float, running: float) -> State:
        """State under any limit, held at the ends."""
        i, part = self._place(limit_w)
        low = self.levels[i].at(running)
        if part <= 0:
            return low
        high = self.levels[i + 1].at(running)
        return State(*(a + (b - a) * part for a, b in zip(low, high, strict=True)))

    def limit_for_w(self, power_w: float, running: float) -> float:
        """Highest limit whose draw with ``running`` requests stays inside ``power_w``."""
        levels = self.levels
        low, high = 0, len(levels) - 1
        if levels[high].power_w(running) <= power_w:
            return levels[high].limit_w
        below_w = levels[0].power_w(running)
        if below_w >= power_w:
            return levels[0].limit_w
        above_w = power_w
        while high - low > 1:
            middle = (low + high) // 2
            found_w = levels[middle].power_w(running)
            if found_w <= power_w:
                low, below_w = middle, found_w
            else:
                high, above_w = middle, found_w
        if above_w == power_w:
            above_w = levels[high].power_w(running)
        part = (power_w - below_w) / (above_w - below_w) if above_w > below_w else 0.0
        return levels[low].limit_w + (levels[high].limit_w - levels[low].limit_w) * part

    def _place(self, limit_w: float) -> tuple[int, float]:
        limits = self.limits_w
        i = bisect_right(limits, limit_w) - 1
        if i < 0:
            return 0, 0.0
        if i >= len(limits) - 1:
            return len(limits) - 1, 0.0
        return i, (limit_w - limits[i]) / (limits[i + 1] - limits[i])


def _between(
    low_w: float,
    low: dict[int, State],
    high_w: float,
    high: dict[int, State],
    part: float,
    clock_mhz: float | None,
) -> Level:
    states = [
        State(*(a + (b - a) * part for a, b in zip(low[n], high[n], strict=True)))
        for n in sorted(low.keys() & high.keys())
    ]
    return Level(low_w + (high_w - low_w) * part, clock_mhz, states)


def _rising(values: list[float]) -> list[float]:
    """Throughput never falls with the batch: where a table says so, by noise, it stands still."""
    out: list[float] = []
    for value in values:
        out.append(max(value, out[-1] * (1 + 1e-9)) if out else max(value, 1e-9))
    return out


def _last_below(batches: list[float], values: list[float], bound: float) -> float:
    """Largest batch, in between too, up to which ``values`` stay at or below ``bound``."""
    if values[0] > bound:
        return 0.0
    for i in range(1, len(values)):
        if values[i] > bound:
            part = (bound - values[i - 1]) / (values[i] - values[i - 1])
            return batches[i - 1] + (batches[i] - batches[i - 1]) * part
    return batches[-1]
