"""Measured power against what was expected: the draw of a unit follows its share of a budget."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.ports import GpuSample

STEP_DOWN_S = 0.03
"""A lower limit holds after this time (V100 at 200 Hz, gridpilot E2, commit 481a339)."""
STEP_UP_S = 0.5
"""A higher limit after this time (same source)."""
FAST_GAIN, SLOW_GAIN = 0.7, 0.2
FAST_TICKS = 4
OVER_RATIO = 0.015
LOW, HIGH = 0.7, 1.5


class DrawMeter:
    """Draw of a unit's GPUs over the last tick, from their energy counters.

    A power reading may be a mean over the last second; the counters' difference is not. Where a
    counter stands still the reading has to do.
    """

    def __init__(self, count: int) -> None:
        self._before: list[GpuSample | None] = [None] * count

    def update(self, samples: Sequence[GpuSample | None], dt_s: float) -> float:
        """Mean draw since the last call in watts, of the GPUs that answered."""
        total_w = 0.0
        for i, sample in enumerate(samples):
            before = self._before[i]
            self._before[i] = sample
            if sample is None:
                continue
            grown_j = sample.energy_j - before.energy_j if before is not None else 0.0
            total_w += grown_j / dt_s if grown_j > 0 and dt_s > 0 else sample.power_draw_w
        return total_w


class PowerTracker:
    """Learns the ratio of a unit's draw to the model's, quickly, while its budget binds.

    With tensor parallelism the worst die paces the others, so the draw lies below the sum of
    the limits, by an amount that the table cannot know. The limit that the model gives for
    ``budget / ratio`` then draws the budget. The gain is high for a few ticks after a change and
    at an excess, low otherwise: noise of a tick is not followed.
    """

    def __init__(self) -> None:
        self._expected_w: float | None = None
        self._before_w = 0.0
        self._ticks = 0
        self._rising = False
        self.ratio = 1.0

    def reset(self) -> None:
        """Forget: the budget does not bind."""
        self.ratio = 1.0
        self._expected_w = None
        self._ticks = 0

    def learn(self, power_draw_w: float, model_w: float, dt_s: float) -> None:
        """Take the draw of the last tick; ``model_w`` is the model's for what was commanded."""
        if self._expected_w is None or model_w <= 0 or dt_s <= 0:
            return
        self._ticks += 1
        if self._rising and self._ticks <= math.ceil(STEP_UP_S / dt_s):
            return  # the limit was still on its way
        expected_w = model_w * self.ratio
        if self._ticks == 1:
            late = min(1.0, STEP_DOWN_S / dt_s)
            expected_w = late * self._before_w + (1 - late) * expected_w
        error = power_draw_w / expected_w - 1
        gain = FAST_GAIN if self._ticks <= FAST_TICKS or error > OVER_RATIO else SLOW_GAIN
        self.ratio = min(HIGH, max(LOW, self.ratio * (1 + gain * error)))

    def command(self, expected_w: float, power_draw_w: float) -> None:
        """Note what the new command should draw."""
        before_w = self._expected_w
        if before_w is None or abs(expected_w - before_w) > 0.03 * before_w:
            self._rising = expected_w > (before_w if before_w is not None else power_draw_w)
            self._ticks = 0
            self._before_w = power_draw_w
        self._expected_w = expected_w


class Backoff:
    """A margin below the budget that grows where ticks lie more than 1.5 % above it.

    Grown and shrunk so that about one tick in a hundred is above: a stochastic quantile.
    """

    UP_RATIO, PER_TICK, MOST = 0.006, 0.00006, 0.08
    SETTLE_TICKS = 3

    def __init__(self) -> None:
        self.ratio = 0.0
        self._allowed_w = 0.0
        self._ticks = 0

    def update(self, power_draw_w: float, allowed_w: float) -> float:
        """Take a tick; returns the margin."""
        if abs(allowed_w - self._allowed_w) > 0.005 * max(allowed_w, 1.0):
            self._ticks = 0
        self._allowed_w = allowed_w
        self._ticks += 1
        if self._ticks > self.SETTLE_TICKS and power_draw_w > allowed_w * (1 + OVER_RATIO):
            self.ratio = min(self.MOST, self.ratio + self.UP_RATIO)
        else:
            self.ratio = max(0.0, self.ratio - self.PER_TICK)
        return self.ratio
