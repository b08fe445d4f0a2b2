"""What clients will ask for in the next seconds, from what arrived in the last minutes.

Counts requests by their arrival (finished + inside, differenced), each worth the mean output of
those that finished. A level with a damped trend (Holt) tells the mean; the variance of the
short-term rate about it tells how much to keep free.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pals_grid.core.ports import EngineSample

LEVEL_TAU_S = 40.0
TREND_TAU_S = 90.0
SHORT_TAU_S = 3.0
SPREAD_TAU_S = 120.0
SIZE_TAU_S = 300.0
HORIZON_S = 2.0
QUANTILE_Z = 0.15
"""Standard deviations of the 3-s rate kept free; requests inside take up the rest."""
SCARCE_Z = 1.0
"""The same where a budget would bind: it leaves no power to work off a queue with."""
LEAST_MARGIN, MOST_MARGIN = 0.0, 1.0

JUMP_RATIO = 2.0
JUMP_Z = 3.0
JUMP_LEAST = 4.0
CALM_S, CALM_JUMP_Z = 60.0, 5.0
"""So long after a surge the next one has to be this clear: its echo is none."""
SURGE_S = 75.0
SURGE_OVER_RATIO = 1.5
QUICK_TAU_S = 1.5
KNOWN_S = 5.0


class Load(NamedTuple):
    """Output tokens/s: the mean that is expected, and what to be ready for.

    ``surges``: arrivals have jumped and not fallen back, and the level has not learned them yet;
    ``known`` is False before there is a record.
    """

    mean_per_s: float
    ready_per_s: float
    surges: bool
    known: bool


class LoadForecast:
    """Of one engine. ``margin_ratio`` is used where ``adaptive`` is False.

    ``surges`` says whether jumps of the arrivals are looked for.
    """

    def __init__(
        self, *, adaptive: bool = True, surges: bool = True, margin_ratio: float = 0.25
    ) -> None:
        self._adaptive = adaptive
        self._surges = surges
        self._margin_ratio = margin_ratio
        self._before: EngineSample | None = None
        self._seen_s = 0.0
        self._surge_s = 0.0
        self._before_per_s = 0.0
        self._quick = 0.0
        self._calm_s = 0.0
        self._last_per_s = 0.0
        self._level = 0.0
        self._trend_per_s = 0.0
        self._short = 0.0
        self._variance = 0.0
        self._last = 0.0
        self._tokens = 0.0
        self._requests = 0.0
        self.tokens_out_per_s = 0.0
        self.served_per_s = 0.0

    @property
    def tokens_out_per_request(self) -> float | None:
        """Mean output of a request; None before the first has finished."""
        return self._tokens / self._requests if self._requests >= 0.5 else None

    def update(
        self,
        sample: EngineSample,
        dt_s: float,
        *,
        interactive_only: bool = False,
        scarce: bool = False,
    ) -> Load:
        """Take one sample, ``dt_s`` after the last.

        ``interactive_only`` leaves out requests that may wait: a plan grants those their place.
        ``scarce`` says that the budget would bind at full load.
        """
        before, self._before = self._before, sample
        jumped = False
        if before is not None and dt_s > 0 and not restarted(before, sample):
            ratio = _interactive_ratio(before) if interactive_only else 1.0
            jumped = self._learn(before, sample, dt_s, ratio, interactive_only=interactive_only)
        elif sample.requests_finished_total > 0:
            self._tokens = sample.tokens_out_total
            self._requests = float(sample.requests_finished_total)
        size = self.tokens_out_per_request or 0.0
        self._follow_surge(dt_s, jumped=jumped and self._surges)
        level = self._level_per_s()
        if self._adaptive:
            level += self._trend_per_s * HORIZON_S
            if self._surge_s > 0:
                level = max(level, self._short)
        mean = max(0.0, level * size)
        known = self._seen_s >= KNOWN_S and size > 0
        return Load(mean, mean * (1 + self._margin(level, scarce=scarce)), self._surge_s > 0, known)

    def _follow_surge(self, dt_s: float, *, jumped: bool) -> None:
        """A surge lasts until arrivals fall back, or until the level has learned them."""
        if jumped and self._surge_s <= 0:
            self._before_per_s = max(0.0, self._level_per_s())
        if jumped:
            self._surge_s = SURGE_S if self._seen_s > KNOWN_S else KNOWN_S
            self._short = self._quick = max(self._short, self._last_per_s)
        elif self._surge_s > 0:
            weight = _weight(dt_s, QUICK_TAU_S)
            self._quick += weight * (self._last_per_s - self._quick)
            over = self._quick < SURGE_OVER_RATIO * self._before_per_s + 1e-9
            self._surge_s = 0.0 if over else max(0.0, self._surge_s - dt_s)
            self._calm_s = CALM_S
        else:
            self._calm_s = max(0.0, self._calm_s - dt_s)

    def _level_per_s(self) -> float:
        """Requests/s; early on the mean of what there is."""
        seen = 1 - math.exp(-self._seen_s / LEVEL_TAU_S)
        return self._level / seen if seen > 0 else 0.0

    def _margin(self, level: float, *, scarce: bool) -> float:
        if not self._adaptive:
            return self._margin_ratio
        if level <= 0:
            return MOST_MARGIN
        z = SCARCE_Z if scarce else QUANTILE_Z
        margin = z * math.sqrt(self._variance) / level
        return min(MOST_MARGIN, max(LEAST_MARGIN, margin))

    def _learn(
        self,
        before: EngineSample,
        sample: EngineSample,
        dt_s: float,
        ratio: float,
        *,
        interactive_only: bool,
    ) -> bool:
        tokens = sample.tokens_out_total - before.tokens_out_total
        finished = sample.requests_finished_total - before.requests_finished_total
        inside = sample.requests_waiting - before.requests_waiting
        inside += sample.requests_running - before.requests_running
        if interactive_only:
            inside -= sample.requests_running_deferrable - before.requests_running_deferrable
        arrived = ratio * finished + inside
        keep = math.exp(-dt_s / SIZE_TAU_S)
        self._tokens = self._tokens * keep + tokens
        self._requests = self._requests * keep + finished
        self.tokens_out_per_s = tokens / dt_s
        self.served_per_s += (ratio * tokens / dt_s - self.served_per_s) * _weight(dt_s, 10.0)
        jumped = self._jumped(arrived, dt_s)
        self._smooth(arrived / dt_s, dt_s)
        self._last = arrived
        self._last_per_s = arrived / dt_s
        return jumped

    def _jumped(self, arrived: float, dt_s: float) -> bool:
        """Whether this tick, or this and the last, brought far more than the level explains."""
        if self._seen_s < KNOWN_S:
            return arrived >= JUMP_LEAST
        expected = max(0.0, self._level_per_s()) * dt_s
        z = CALM_JUMP_Z if self._calm_s > 0 and self._surge_s <= 0 else JUMP_Z
        for count, mean in ((arrived, expected), (arrived + self._last, 2 * expected)):
            if count >= max(JUMP_LEAST, JUMP_RATIO * mean + z * math.sqrt(mean)):
                return True
        return False

    def _smooth(self, rate: float, dt_s: float) -> None:
        self._seen_s += dt_s
        weight = _weight(dt_s, LEVEL_TAU_S)
        before = self._level
        self._level += weight * (rate - self._level)
        if self._seen_s > LEVEL_TAU_S:
            slope = (self._level - before) / dt_s
            self._trend_per_s += _weight(dt_s, TREND_TAU_S) * (slope - self._trend_per_s)
        self._short += _weight(dt_s, SHORT_TAU_S) * (rate - self._short)
        gap = self._short - self._level
        self._variance += _weight(dt_s, SPREAD_TAU_S) * (gap * gap - self._variance)


def _weight(dt_s: float, tau_s: float) -> float:
    return 1 - math.exp(-dt_s / tau_s)


def _interactive_ratio(sample: EngineSample) -> float:
    running = sample.requests_running
    return 1 - sample.requests_running_deferrable / running if running > 0 else 1.0


def restarted(before: EngineSample, sample: EngineSample) -> bool:
    """Whether the engine's counters began again between two samples."""
    return (
        sample.tokens_out_total < before.tokens_out_total
        or sample.requests_finished_total < before.requests_finished_total
    )
