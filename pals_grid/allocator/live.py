"""One live round: what is free now goes to where work waits, by grants that keep the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.allocator.fill import split_power_w

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.allocator.fill import Wants
    from pals_grid.allocator.fleet_arrays import FleetArrays, Floats
    from pals_grid.allocator.grants import GrantBook, Round
    from pals_grid.allocator.outlook import SiteBudget

MOST_MARGIN_RATIO = 1.0
_HALVINGS = 8


def live_round(
    book: GrantBook,
    rows: Mapping[int, int],
    fleet: FleetArrays,
    wants: Wants,
    budget: SiteBudget,
    now_s: float,
) -> Round:
    """Split the budget anew among the nodes that can be reached, and issue their grants.

    ``rows`` are the rows in ``fleet`` and ``wants`` of those nodes; demand is infinite where it is
    not known. What the others, and liars, may draw is kept free. Demands get the same margin, at
    most one as large as the demand, as far as the budget has it for all.
    """
    lying = set(book.liars)
    reached = {node_id: row for node_id, row in rows.items() if node_id not in lying}
    kept_w = sum(book.allowed_w(key, now_s) for key in book.node_ids if key not in reached)
    chosen = np.fromiter(reached.values(), dtype=np.intp, count=len(reached))
    some, asked = fleet.subset(chosen), wants.subset(chosen)
    least_w = min(budget.at(now_s), budget.at(now_s + book.rules.ahead_s))
    free_w = max(0.0, least_w - kept_w)
    if asked.demand_tokens_per_s is not None:
        margined = with_margin(some, asked.demand_tokens_per_s, free_w)
        asked = replace(asked, demand_tokens_per_s=margined)
    power_w = split_power_w(some, free_w, asked)
    targets_w = dict(zip(reached, power_w.tolist(), strict=True))
    return book.decide(now_s, budget, targets_w)


def with_margin(fleet: FleetArrays, demand_tokens_per_s: Floats, limit_w: float) -> Floats:
    """Demands and the largest margin, the same ratio of all, that ``limit_w`` has for all; (N,).

    Without it the shortage of a large margin would fall on the nodes whose tokens cost most.
    """

    def needed_w(margin_ratio: float) -> float:
        wanted = fleet.power_w_at(demand_tokens_per_s * (1 + margin_ratio))
        return float(np.maximum(fleet.power_min_w, wanted).sum())

    low, high = 0.0, MOST_MARGIN_RATIO
    if needed_w(high) <= limit_w:
        low = high
    for _ in range(_HALVINGS if low < high else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if needed_w(middle) <= limit_w else (low, middle)
    return demand_tokens_per_s * (1 + low)
