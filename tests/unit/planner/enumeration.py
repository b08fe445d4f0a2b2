"""The best plan of three half hours by trying all splits."""

from __future__ import annotations

from itertools import product

from pals_grid.core.fleet import PowerCurve

CURVE = PowerCurve((0.0, 500.0, 800.0, 1000.0), (600.0, 1000.0, 1600.0, 2400.0))


def cheapest_by_enumeration(prices: list[float], demand: list[float], deferrable: float) -> float:
    """Try all splits of three slots' deferrable work in steps of a twentieth."""
    fixed = [rate * (1 - deferrable) for rate in demand]
    movable = [rate * deferrable for rate in demand]
    tenths = [k / 20 for k in range(21)]
    best = float("inf")
    for to_second, to_third, on in product(tenths, tenths, tenths):
        if to_second + to_third > 1:
            continue
        served = [
            fixed[0] + movable[0] * (1 - to_second - to_third),
            fixed[1] + movable[0] * to_second + movable[1] * (1 - on),
            fixed[2] + movable[0] * to_third + movable[1] * on + movable[2],
        ]
        if max(served) > CURVE.max_tokens_per_s:
            continue
        cost = sum(
            price / 3.6e9 * CURVE.power_w_at(rate) * 1800
            for price, rate in zip(prices, served, strict=True)
        )
        best = min(best, cost)
    return best
