"""Slots served one after another under a policy, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.units import J_PER_KWH
from pals_grid.counterfactual.policies import Arriving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    import numpy.typing as npt

    from pals_grid.counterfactual.ledger import Ledger
    from pals_grid.counterfactual.policies import Policy

    Floats: TypeAlias = npt.NDArray[np.float64]
    Arrivals: TypeAlias = Callable[[int], tuple[float, Sequence[tuple[float, int]]]]
    """Tokens of a slot that cannot wait, and tokens with their last slot that can."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What was served, by slot from ``first`` on, and what of it was late; tokens."""

    first: int
    tokens: Floats
    late_at_once: Floats
    late_waiting: Floats
    unserved_tokens: float

    @property
    def late_at_once_tokens(self) -> float:
        """What could not wait and did."""
        return float(sum(self.late_at_once.tolist()))

    @property
    def late_waiting_tokens(self) -> float:
        """What waited past its deadline."""
        return float(sum(self.late_waiting.tolist()))


def serve_slots(policy: Policy, arrivals: Arrivals, ledger: Ledger, first: int, stop: int) -> Trace:
    """Serve slots ``first`` to before ``stop``; ``ledger`` holds what waits already."""
    tokens, late_at_once, late_waiting = np.zeros((3, stop - first))
    for slot in range(first, stop):
        at_once, later = arrivals(slot)
        arriving = Arriving(at_once, sum(amount for amount, _ in later))
        order = policy.order(slot, arriving, ledger)
        for amount, last in later:
            ledger.arrive(amount, last)
        served = ledger.serve(slot, at_once, order.grant, order.room)
        tokens[slot - first] = served.tokens
        late_at_once[slot - first] = served.late_at_once
        late_waiting[slot - first] = served.late_waiting
    return Trace(first, tokens, late_at_once, late_waiting, ledger.late + ledger.waiting)


@dataclass(frozen=True, slots=True)
class Amount:
    """A sum over slots, and the share of the energy that it covers; None where that is none."""

    value: float | None
    covered_ratio: float

    @classmethod
    def of(cls, energy_kwh: Floats, rate_per_kwh: Floats) -> Amount:
        """Energy by its rate; slots without one (NaN) are left out."""
        known = ~np.isnan(rate_per_kwh)
        whole = float(energy_kwh.sum())
        if not known.any():
            return cls(None, 0.0)
        covered = float(energy_kwh[known].sum()) / whole if whole > 0 else 1.0
        return cls(float(np.nansum(energy_kwh * rate_per_kwh)), covered)


def energy_kwh(power_w: Floats, duration_s: Floats | float) -> Floats:
    """Energy of each slot."""
    found: Floats = power_w * duration_s / J_PER_KWH
    return found
