"""A PID on throughput, on top of the table's limit (PALS, arXiv 2605.21427, step 4)."""

from __future__ import annotations

from dataclasses import dataclass

ERROR_RATIO = 0.05
STEP_RATIO = 0.02


@dataclass(frozen=True, slots=True)
class Gains:
    """Of the correction as a ratio of the table's limit; the integral acts per second."""

    proportional: float = 0.2
    integral_per_s: float = 0.1
    derivative_s: float = 0.0


class ThroughputPid:
    """Moves one engine's power limit when its throughput is off target (PALS, step 4).

    The error counts from 5 % on; a smaller one leaves the correction as it is. The limit moves
    in steps of 2 % at least. A point, budget or target that moves by 5 % starts it afresh: the
    table has answered that change.
    """

    def __init__(self, gains: Gains | None = None) -> None:
        self._gains = gains or Gains()
        self._integral_w = 0.0
        self._error = 0.0
        self._limit_w = 0.0
        self._basis: tuple[float, float, float] | None = None

    def correct(
        self,
        base_w: float,
        error_ratio: float,
        dt_s: float,
        *,
        basis: tuple[float, float, float],
        low_w: float,
        high_w: float,
    ) -> float:
        """Limit per GPU in watts, inside ``[low_w, high_w]``.

        ``base_w`` is the table's limit, ``error_ratio`` (target - throughput) / target, and
        ``basis`` is (base, budget, target): the integral does not outlive a change of it.
        """
        if self._basis is None or _changed(self._basis, basis):
            self._basis, self._integral_w, self._error = basis, 0.0, error_ratio
            self._limit_w = base_w
        active = error_ratio if abs(error_ratio) > ERROR_RATIO else 0.0
        slope = (active - self._error) / dt_s if dt_s > 0 else 0.0
        self._error = active
        gains = self._gains
        moving_w = base_w * (gains.proportional * active + gains.derivative_s * slope)
        grown_w = self._integral_w + base_w * gains.integral_per_s * active * dt_s
        wanted_w = base_w + moving_w + grown_w
        # Anti-windup: at a bound the integral may shrink but not grow.
        if low_w <= wanted_w <= high_w or abs(grown_w) < abs(self._integral_w):
            self._integral_w = grown_w
        limit_w = base_w + moving_w + self._integral_w
        inside = low_w < limit_w < high_w
        if not inside or abs(limit_w - self._limit_w) >= STEP_RATIO * base_w:
            self._limit_w = limit_w
        return min(max(self._limit_w, low_w), high_w)


def _changed(before: tuple[float, ...], now: tuple[float, ...]) -> bool:
    return any(
        abs(a - b) > ERROR_RATIO * max(abs(a), abs(b)) for a, b in zip(before, now, strict=True)
    )
