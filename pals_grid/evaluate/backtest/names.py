"""The policies' names and what each does."""

from __future__ import annotations

from pals_grid.counterfactual.names import (
    AS_IT_COMES,
    CARBON_THRESHOLD,
    NO_CONTROL,
    PLANNER,
    PRICE_THRESHOLD,
    STATIC,
)

__all__ = [
    "ALL",
    "AS_IT_COMES",
    "CARBON_THRESHOLD",
    "FORESIGHT",
    "KNOWN_LOAD",
    "NO_CONTROL",
    "PLANNER",
    "POLICIES",
    "PRICE_THRESHOLD",
    "STATIC",
    "SUMMARIES",
]

FORESIGHT = "foresight"
KNOWN_LOAD = "planner-known-load"

SUMMARIES = {
    NO_CONTROL: "highest power limit, largest batch; everything is served when it comes",
    STATIC: "the lowest constant limit that serves the month's true peak; as it comes",
    AS_IT_COMES: "PALS Grid's operating points without a planner; as it comes",
    PRICE_THRESHOLD: "PALS Grid's operating points; what waits is served below a price,"
    " tuned on the four weeks before",
    CARBON_THRESHOLD: "the same below a carbon intensity",
    PLANNER: "the production planner and allocator with what was known at each moment",
    FORESIGHT: "the same planner with price, carbon and load as they will be",
    KNOWN_LOAD: "the planner with the load as it will be, and the signals as they are known;"
    " parts the load's error from the signals', only where asked for",
}
ALL = tuple(SUMMARIES)
POLICIES = tuple(name for name in ALL if name != KNOWN_LOAD)
"""What runs where no policy is named."""
