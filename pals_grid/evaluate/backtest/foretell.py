"""What is not known yet of a signal, from its own past: pure, behind a port of one method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

MAD_TO_DEVIATION = 1.4826
MOST_DEVIATIONS = 5.0
RECENT_DAYS = 7


class SignalForecast(Protocol):
    """Fills in what is not known; another forecaster takes this one's place."""

    def fill(self, known: Floats, now: int, end: int) -> Floats:
        """Values of the slots ``now`` to before ``end``: known ones as they are, else expected.

        ``known`` is NaN where nothing is known, and so is the answer where nothing can be said.
        """
        ...


@dataclass(frozen=True)
class ProfileForecast:
    """The time of day's mean and a deviation from it that fades, both of squeezed values.

    Values are squeezed by ``asinh((x - median) / deviation)`` of the last week (the deviation is
    the median absolute one), so that a spike counts little for tomorrow; what is expected is
    then near the median. A day counts half of one ``half_life_days`` younger, and
    ``other_type_ratio`` where it is a working day and the slot is not, or the reverse. The last
    known hour's deviation fades with the past's own correlation from hour to hour.
    """

    per_day: int
    weekend: Bools
    days: int = 21
    half_life_days: float = 4.0
    other_type_ratio: float = 0.1

    def fill(self, known: Floats, now: int, end: int) -> Floats:
        """As the port says."""
        values = known[now:end].copy()
        missing = np.isnan(values)
        begin = now - min(self.days, now // self.per_day) * self.per_day
        if not missing.any() or np.isnan(known[begin:now]).all():
            return values
        recent = known[max(begin, now - RECENT_DAYS * self.per_day) : now]
        recent = recent if not np.isnan(recent).all() else known[begin:now]
        middle = float(np.nanmedian(recent))
        spread = MAD_TO_DEVIATION * float(np.nanmedian(np.abs(recent - middle)))
        if spread <= 0:
            values[missing] = middle
            return values
        squeezed = np.arcsinh((known[begin:end] - middle) / spread)
        squeezed = np.clip(squeezed, -MOST_DEVIATIONS, MOST_DEVIATIONS)
        expected = middle + spread * np.sinh(self._expected(squeezed, begin, now, end))
        values[missing] = expected[missing]
        return values

    def _expected(self, known: Floats, begin: int, now: int, end: int) -> Floats:
        """``known`` holds the slots from ``begin`` on: whole days up to ``now``."""
        past = known[: now - begin].reshape(-1, self.per_day)
        profiles = [self._profile(past, begin, weekend=weekend) for weekend in (False, True)]
        phase = np.arange(end - begin) % self.per_day
        types = self.weekend[begin:end]
        mean = np.where(types, profiles[1][phase], profiles[0][phase])
        return mean[now - begin :] + self._faded(known - mean, now - begin)

    def _profile(self, past: Floats, begin: int, *, weekend: bool) -> Floats:
        age = np.arange(len(past), 0, -1) - 1
        types = self.weekend[begin : begin + past.size].reshape(past.shape)
        weight = 0.5 ** (age / self.half_life_days)[:, None] * np.where(
            types == weekend, 1.0, self.other_type_ratio
        )
        there = np.where(np.isnan(past), 0.0, weight)
        total = there.sum(axis=0)
        sums = (there * np.nan_to_num(past)).sum(axis=0)
        flat = float(sums.sum() / total.sum())
        found: Floats = np.where(total > 0, sums / np.where(total > 0, total, 1.0), flat)
        return found

    def _faded(self, deviation: Floats, now: int) -> Floats:
        """The deviation of the last known hour, fading from there on; of the slots from ``now``."""
        seen = np.flatnonzero(~np.isnan(deviation))
        hour = max(1, self.per_day // 24)
        last = int(seen[-1])
        held = float(np.mean(deviation[seen[-hour:]]))
        fade = _correlation(deviation[:now], hour)
        hours = np.maximum(0, np.arange(now, len(deviation)) - last) / hour
        found: Floats = held * fade**hours
        return found


def _correlation(deviation: Floats, lag: int) -> float:
    a, b = deviation[:-lag], deviation[lag:]
    there = ~(np.isnan(a) | np.isnan(b))
    square = float((a[there] ** 2).sum())
    product = float((a[there] * b[there]).sum())
    return min(0.98, max(0.0, product / square)) if square > 0 else 0.0
