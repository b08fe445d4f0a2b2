"""What each level of a surface can do inside the latency plan, corrected, kept up to date.

A refresh of all levels would cost more than a tick may: after a change a few are done at each
tick, beside the old ones, and all are put in place together: levels that were corrected are not
compared with levels that were not yet.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.node.strategies.correction import TrackCorrection

if TYPE_CHECKING:
    from pals_grid.node.strategies.latency import LatencyPlan
    from pals_grid.node.strategies.surface import Level, Surface

PER_TICK, MOST_TICKS = 6, 16
STALE_RATIO = 0.02
BINS = 64
LEAST_LOAD_RATIO = 0.01


class AtLoad(NamedTuple):
    """Each level under one load, by the table alone.

    ``power_w`` is its mean draw, ``order`` holds the levels by rising draw, ``slowdown_ratio``
    says how much longer its ITL is than the fastest level's (0.05: by 5 %).
    """

    power_w: list[float]
    order: list[int]
    slowdown_ratio: list[float]


class LevelTable:
    """Arrays over ``surface.levels``: most requests inside, and tokens/s and draw with them.

    ``fit_running`` is 0 where even the smallest batch misses a latency objective.
    """

    def __init__(self, surface: Surface, plan: LatencyPlan) -> None:
        self.surface = surface
        self._plan = plan
        count = len(surface.levels)
        self._put(_Fits(count))
        self._next_fits = _Fits(count)
        self._per_tick = max(PER_TICK, math.ceil(count / MOST_TICKS))
        self.cap_running = surface.most_running
        self.corrections = {
            clock: TrackCorrection(track) for clock, track in surface.tracks.items()
        }
        self._corrections = [self.corrections[level.sm_clock_mhz] for level in surface.levels]
        self._places = [
            one.place(level.limit_w)
            for one, level in zip(self._corrections, surface.levels, strict=True)
        ]
        self._inside = [-1.0] * count
        self._table_tokens, self._table_w = [0.0] * count, [0.0] * count
        self._done = count
        self._stale = False
        self._planned_itl_s = 0.0
        most = max(level.tokens_per_s[-1] for level in surface.levels)
        self._least = LEAST_LOAD_RATIO * most
        self._log_step = math.log(1 / LEAST_LOAD_RATIO) / (BINS - 1)
        self._at_loads = [
            self._rank(self._least * math.exp(k * self._log_step)) for k in range(BINS)
        ]
        self.refresh_all()

    def refresh_all(self) -> None:
        """Bring every level up to date now: an objective or the batch has changed."""
        count = len(self.surface.levels)
        fits = _Fits(count)
        self._refresh(0, count, fits)
        self._put(fits)
        self._done = count

    def hold(self, most_running: float) -> None:
        """Plan with at most so many requests inside: the engine takes no more."""
        cap = min(most_running, self.surface.most_running)
        if cap != self.cap_running:
            self.cap_running = cap
            self.refresh_all()

    def changed(self) -> None:
        """A correction has changed: begin to bring the levels up to date."""
        self._stale = True

    def refresh_some(self) -> None:
        """Bring the next few levels up to date, if something has changed."""
        count = len(self.surface.levels)
        if self._done >= count:
            planned_s = self._plan.itl_s
            moved = abs(planned_s - self._planned_itl_s) > STALE_RATIO * planned_s
            if not (moved or self._stale):
                return
            self._planned_itl_s = planned_s
            self._stale, self._done = False, 0
            self._next_fits = _Fits(count)
        end = min(count, self._done + self._per_tick)
        self._refresh(self._done, end, self._next_fits)
        self._done = end
        if end == count:
            self._put(self._next_fits)

    def _put(self, fits: _Fits) -> None:
        self.fit_running = fits.running
        self.fit_tokens = fits.tokens
        self.fit_power_w = fits.power_w
        self.tokens_ratio = fits.tokens_ratio
        self.power_ratio = fits.power_ratio
        self.most_tokens_per_s = max(fits.tokens)
        self.most_power_w = max(fits.power_w)

    def overload_running(self, i: int) -> float:
        """Most requests inside level ``i`` that serve most without breaking the objectives."""
        level = self.surface.levels[i]
        slower = self.tokens_ratio[i]
        itl_s, ttft_s = self._plan.overload_itl_s * slower, self._plan.ttft_s * slower
        return min(self._cap(level), level.most_within(itl_s, ttft_s))

    def _cap(self, level: Level) -> float:
        return min(self.cap_running, level.most_running)

    def at_load(self, tokens_per_s: float) -> AtLoad:
        """What the table alone says of each level at a load."""
        if tokens_per_s <= self._least:
            return self._at_loads[0]
        k = math.ceil(math.log(tokens_per_s / self._least) / self._log_step)
        return self._at_loads[min(BINS - 1, k)]

    def _rank(self, load: float) -> AtLoad:
        powers_w = self._draws_w(load)
        order = sorted(range(len(powers_w)), key=powers_w.__getitem__)
        return AtLoad(powers_w, order, self._slower(load))

    def _draws_w(self, load: float) -> list[float]:
        """Draw of each level; a higher limit never draws less while requests are always inside."""
        found: list[float] = []
        for track in self.surface.tracks.values():
            least_w = 0.0
            for level in track.levels:
                power_w = level.load_power_w(load, self.surface.idle_w)
                if level.running_at(load) >= 1:
                    power_w = least_w = max(power_w, least_w)
                found.append(power_w)
        return found

    def _slower(self, load: float) -> list[float]:
        """Slowdown of each level at a load; the batch grows where a level is slower."""
        itls_s = [level.at(level.running_at(load)).itl_s for level in self.surface.levels]
        least_s = min(itls_s)
        return [itl_s / least_s - 1 if least_s > 0 else 0.0 for itl_s in itls_s]

    def _refresh(self, first: int, end: int, fits: _Fits) -> None:
        """Work out the levels from ``first`` to before ``end``."""
        levels, itl_s, ttft_s = self.surface.levels, self._plan.itl_s, self._plan.ttft_s
        known, cap_running = self._inside, self.cap_running
        for i in range(first, end):
            level = levels[i]
            cap = min(cap_running, level.most_running)
            tokens_ratio, power_ratio = self._corrections[i].at_place(*self._places[i])
            # An engine that is slower than the table by a ratio is so in its latencies too.
            running = min(cap, level.most_within(itl_s * tokens_ratio, ttft_s * tokens_ratio))
            inside = running if running > 0 else cap
            if inside != known[i]:  # seldom: most levels take the whole batch
                state = level.at(inside)
                known[i] = inside
                self._table_tokens[i], self._table_w[i] = state.tokens_per_s, state.gpu_power_w
            fits.running[i] = running
            fits.tokens[i] = self._table_tokens[i] * tokens_ratio
            fits.power_w[i] = self._table_w[i] * power_ratio
            fits.tokens_ratio[i] = tokens_ratio
            fits.power_ratio[i] = power_ratio


class _Fits:
    """One value a level in each."""

    def __init__(self, count: int) -> None:
        self.running = [0.0] * count
        self.tokens = [0.0] * count
        self.power_w = [0.0] * count
        self.tokens_ratio = [1.0] * count
        self.power_ratio = [1.0] * count
