"""Who decides how much of what waits is served when; all behind one method.

The rivals of the planner, and how nodes serve inside a plan. Amounts are output tokens of one
slot; ``duration_s`` are the lengths of all slots.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from pals_grid.core.budget import BudgetInterval
    from pals_grid.counterfactual.ledger import Ledger
    from pals_grid.counterfactual.plant import Plant, SiteLine

    Floats = npt.NDArray[np.float64]

CLOSE = 1.1
"""Room below this many times the need is looked at node by node."""
QUANTILES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
PACES_H = (0.25, 1.0, 3.0, 6.0, 12.0)


class Order(NamedTuple):
    """Tokens of one slot: ``grant`` is what to serve in all, ``room`` the most that can be."""

    grant: float
    room: float


class Arriving(NamedTuple):
    """A slot's own truth, in tokens: what cannot wait, and what can. Only rivals look at it."""

    at_once: float
    later: float


class Policy(Protocol):
    """Decides slot by slot; sees nothing but what was known when the slot began."""

    def order(self, slot: int, arriving: Arriving, ledger: Ledger) -> Order:
        """What to serve in ``slot``; the ledger does not hold yet what arrives in it."""
        ...

    def draw_w(self, tokens_per_s: Floats) -> Floats:
        """Power of the nodes at what was served, at node boundary."""
        ...


@dataclass(frozen=True)
class AsItComes:
    """Everything at once, at the cheapest operating points: PALS Grid's nodes without a planner."""

    plant: Plant
    duration_s: Floats

    def order(self, slot: int, arriving: Arriving, ledger: Ledger) -> Order:  # noqa: ARG002
        """All that there is."""
        room = self.plant.curve.max_tokens_per_s * float(self.duration_s[slot])
        return Order(math.inf, room)

    def draw_w(self, tokens_per_s: Floats) -> Floats:
        """The controlled nodes' curve."""
        return self.plant.draw_w(tokens_per_s)


@dataclass(frozen=True)
class FixedLimit:
    """Everything at once under a power limit that nobody moves, with the largest batch.

    Without control that is the highest; a static limit is ``lowest_line``'s.
    """

    line: SiteLine
    duration_s: Floats

    def order(self, slot: int, arriving: Arriving, ledger: Ledger) -> Order:  # noqa: ARG002
        """All that there is."""
        return Order(math.inf, self.line.max_tokens_per_s * float(self.duration_s[slot]))

    @property
    def words(self) -> str:
        """The limit of each kind of node's GPUs."""
        return " and ".join(f"{limit_w:g} W" for limit_w in self.line.limits_w)

    def draw_w(self, tokens_per_s: Floats) -> Floats:
        """The nodes' natural draw under the limit."""
        return self.line.draw_w(tokens_per_s)


def lowest_line(plant: Plant, peak_tokens_per_s: float) -> SiteLine:
    """Return the lowest limit that serves a peak that nobody could know beforehand.

    The highest where none does.
    """
    fitting = [line for line in plant.static_lines if line.max_tokens_per_s >= peak_tokens_per_s]
    return fitting[0] if fitting else plant.static_lines[-1]


class Watched(Protocol):
    """A signal as a threshold sees it."""

    def value(self, slot: int) -> float | None:
        """What the slot is judged by; None where nothing is known."""
        ...

    def level(self, slot: int, quantile: float) -> float:
        """The threshold in force in the slot: a quantile of what is compared with."""
        ...


class Rule(NamedTuple):
    """A threshold's two settings.

    What waits is served while the signal is at most its ``quantile`` (of the values that are
    compared with), at a pace that would empty the queue in ``pace_h``.
    """

    quantile: float
    pace_h: float

    @property
    def words(self) -> str:
        """Both settings."""
        return f"q{self.quantile:g}, {self.pace_h:g} h"


def best_rule(cost: Callable[[Rule], tuple[float, ...]]) -> Rule:
    """Of 30 rules the one that costs least; costs are compared from the first figure on."""
    return min((Rule(*pair) for pair in itertools.product(QUANTILES, PACES_H)), key=cost)


@dataclass(frozen=True)
class Threshold:
    """Serves what waits while the signal is low; work in its last slot whatever the signal."""

    plant: Plant
    duration_s: Floats
    signal: Watched
    rule: Rule

    def order(self, slot: int, arriving: Arriving, ledger: Ledger) -> Order:
        """Release a part of the queue, or nothing."""
        slot_s = float(self.duration_s[slot])
        room = self.plant.curve.max_tokens_per_s * slot_s
        level = self.signal.level(slot, self.rule.quantile)
        value = self.signal.value(slot)
        if value is not None and value > level:
            return Order(0.0, room)
        pace = max(1.0, self.rule.pace_h * (3600 / slot_s))
        return Order(arriving.at_once + (ledger.waiting + arriving.later) / pace, room)

    def draw_w(self, tokens_per_s: Floats) -> Floats:
        """The controlled nodes' curve: the rival has PALS Grid's nodes."""
        return self.plant.draw_w(tokens_per_s)


def order_within(plant: Plant, item: BudgetInterval, slot_s: float, need: float) -> Order:
    """Order of a planned slot: the plan's tokens, inside what the allocator grants.

    The allocator splits a limit that could bind, and what its envelopes let through is the room;
    elsewhere the nodes' joint curve says that there is room to spare. ``need`` are the tokens
    that must be served whatever the plan.
    """
    grant = item.granted_tokens_per_s * slot_s
    room = plant.curve.tokens_per_s_at(item.limit_w) * slot_s
    if room < CLOSE * max(grant, need):
        room = plant.allocated_tokens_per_s(item) * slot_s
    return Order(grant, room)
