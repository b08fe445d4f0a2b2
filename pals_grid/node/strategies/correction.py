"""On-line correction of the table: what was measured against what it says, by limit.

Over windows without disturbance the engine's tokens and energy are compared with the surface's
for the requests that were inside (so part load tells as much as saturation). Each clock's range
of limits has knots; a knot that was never visited takes after its neighbours. Corrections are
multiplicative, slow and bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.node.strategies.surface import State, Track

KNOTS = 30
WINDOW_S = 4.0
MOST_WINDOWS = 8.0
"""A knot's value is a mean over its last windows, about so many."""
FADE = 0.8
"""How much of a neighbour's weight an unvisited knot takes over, per knot of distance."""
LOW, HIGH = 0.6, 1.6


class TrackCorrection:
    """Of one clock. ``tokens_ratio`` and ``power_ratio`` are measured / table."""

    def __init__(self, track: Track) -> None:
        self._low_w = track.limits_w[0]
        self._step_w = max(1.0, (track.limits_w[-1] - self._low_w) / KNOTS)
        count = KNOTS + 1
        self._weights = [0.0] * count
        self._tokens = [1.0] * count
        self._power = [1.0] * count
        self._tokens_out = [1.0] * count
        self._power_out = [1.0] * count

    def windows(self, limit_w: float) -> float:
        """How many windows back the correction near ``limit_w``."""
        return self._weights[self._knot(limit_w)]

    @property
    def doubt_ratio(self) -> float:
        """How far tokens/J of the visited knots lie from the table's, on average."""
        total = sum(self._weights)
        if total <= 0:
            return 0.0
        gaps = (w * abs(t / p - 1) for w, t, p in self._columns())
        return sum(gaps) / total

    def place(self, limit_w: float) -> tuple[int, float]:
        """Where a limit lies: the knot below it, and the part of the way to the next."""
        place = min(float(KNOTS), max(0.0, (limit_w - self._low_w) / self._step_w))
        i = min(int(place), KNOTS - 1)
        return i, place - i

    def at(self, limit_w: float) -> tuple[float, float]:
        """Corrections of (tokens, power)."""
        return self.at_place(*self.place(limit_w))

    def at_place(self, i: int, part: float) -> tuple[float, float]:
        """Corrections of (tokens, power) at a limit whose ``place`` is known."""
        tokens, power = self._tokens_out, self._power_out
        return (
            tokens[i] + (tokens[i + 1] - tokens[i]) * part,
            power[i] + (power[i + 1] - power[i]) * part,
        )

    def learn(self, limit_w: float, tokens_ratio: float, power_ratio: float) -> None:
        """Take one window's ratios."""
        tokens_ratio = min(HIGH, max(LOW, tokens_ratio))
        power_ratio = min(HIGH, max(LOW, power_ratio))
        i, beyond = self.place(limit_w)
        for knot, part in ((i, 1 - beyond), (i + 1, beyond)):
            if part <= 0.1:
                continue
            weight = min(MOST_WINDOWS, self._weights[knot] + part)
            share = part / weight
            self._tokens[knot] += (tokens_ratio - self._tokens[knot]) * share
            self._power[knot] += (power_ratio - self._power[knot]) * share
            self._weights[knot] = weight
        self._spread()

    def _knot(self, limit_w: float) -> int:
        return min(KNOTS, max(0, round((limit_w - self._low_w) / self._step_w)))

    def _spread(self) -> None:
        """Fill the knots that were not visited from those that were, from both sides."""
        count = KNOTS + 1
        sums = [[w, w * t, w * p] for w, t, p in self._columns()]
        for order in (range(count), range(count - 1, -1, -1)):
            carried = [0.0, 0.0, 0.0]
            for k in order:
                weight = self._weights[k]
                own = (weight, weight * self._tokens[k], weight * self._power[k])
                for j in range(3):
                    # A knot's own windows count ten times as much as what comes from others.
                    sums[k][j] += 0.1 * carried[j]
                    carried[j] = (carried[j] + own[j]) * FADE
        total = sum(self._weights)
        for k, (weight, tokens, power) in enumerate(sums):
            if total > 0 and weight > 0:
                self._tokens_out[k] = tokens / weight
                self._power_out[k] = power / weight

    def _columns(self) -> zip[tuple[float, float, float]]:
        return zip(self._weights, self._tokens, self._power, strict=True)


class Window:
    """Sums over ticks that nothing disturbed; closed after ``WINDOW_S``."""

    def __init__(self) -> None:
        self._limit_w = 0.0
        self.clear()

    def clear(self) -> None:
        """Begin afresh: the operating point has changed."""
        self._seconds = 0.0
        self._tokens = 0.0
        self._energy_j = 0.0
        self._model_tokens = 0.0
        self._model_j = 0.0

    def add(
        self, limit_w: float, tokens: float, power_w: float, model: State, dt_s: float
    ) -> tuple[float, float] | None:
        """Add a tick; the ratios of (tokens, power) when the window is full."""
        if limit_w != self._limit_w:
            self._limit_w = limit_w
            self.clear()
        self._seconds += dt_s
        self._tokens += tokens
        self._energy_j += power_w * dt_s
        self._model_tokens += model.tokens_per_s * dt_s
        self._model_j += model.gpu_power_w * dt_s
        if self._seconds < WINDOW_S:
            return None
        found = (
            (self._tokens / self._model_tokens, self._energy_j / self._model_j)
            if self._model_tokens > 0 and self._model_j > 0
            else None
        )
        self.clear()
        return found
