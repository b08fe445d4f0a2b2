"""Names of everything that can be compared, and how each is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.evaluate.suite import baselines
from pals_grid.node.strategies.registry import STRATEGIES as PRODUCTION
from pals_grid.node.strategies.registry import make_strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pals_grid.core.commands import NodeCommand
    from pals_grid.core.site import Slo
    from pals_grid.evaluate.suite.drive import MakeStrategy
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.strategy import Strategy
    from pals_grid.powermodel.overhead import NodeOverhead

STATIC_MAX = "static-max"
STATIC_LIMIT = "static-limit"
MAX_Q = "max-q"
CLOCK_LOCK = "clock-lock"
BATCH_ONLY = "batch-only"
LIMIT_ONLY = "limit-only"
STATIC_SHARE = "static-share"
STATIC_LEAST = "static-least"
ALLOCATED = "allocated"
PALS = "pals"
OURS = "pals-grid"
ORACLE = "oracle"

ONE_NODE: tuple[str, ...] = (
    STATIC_MAX,
    STATIC_LIMIT,
    MAX_Q,
    CLOCK_LOCK,
    BATCH_ONLY,
    LIMIT_ONLY,
    PALS,
    OURS,
    ORACLE,
)
"""All that can steer a node by itself, and the oracle."""

FIXED: Mapping[str, Callable[[EngineUnit], NodeCommand]] = {
    STATIC_MAX: baselines.static_max,
    STATIC_LIMIT: baselines.static_limit,
    MAX_Q: baselines.max_q,
    CLOCK_LOCK: baselines.clock_lock,
}

SUMMARIES: Mapping[str, str] = {
    STATIC_MAX: "highest power limit, largest batch, free clock",
    STATIC_LIMIT: "fixed limit at 85 % of the natural draw at full load, largest batch",
    MAX_Q: "fixed limit that keeps 97 % of the throughput at full load (our reading of Max-Q)",
    CLOCK_LOCK: "fixed SM clock, the lowest that slows a saturated engine by at most 5 %",
    BATCH_ONLY: "the published algorithm with the batch as its only knob",
    LIMIT_ONLY: "the published algorithm with the power limit as its only knob",
    STATIC_SHARE: "limits follow the budget: an equal part of it for every GPU of the site",
    STATIC_LEAST: "limits fixed at the equal part of the lowest budget of the hour",
    ALLOCATED: "limits follow the node's own lease from the allocator, largest batch",
    ORACLE: "exhaustive search on the true plant with the true arrivals (no controller)",
    **{name: kind.summary for name, kind in PRODUCTION.items()},
}


def known(name: str) -> str:
    """Return ``name``.

    Raises:
        InvalidValue: lists the known names.
    """
    if name not in SUMMARIES:
        raise InvalidValue("strategy", name, f"must be one of {', '.join(SUMMARIES)}")
    return name


def maker(name: str, **options: object) -> MakeStrategy:
    """How to make the strategy of a node; ``options`` go to ``pals-grid`` alone."""

    def make(units: Sequence[EngineUnit], overhead: NodeOverhead, slo: Slo) -> Strategy:
        if name in FIXED:
            return baselines.FixedSettings([FIXED[name](unit) for unit in units])
        if name in {STATIC_SHARE, STATIC_LEAST, ALLOCATED}:
            return baselines.EqualShare(units, overhead)
        if name == BATCH_ONLY:
            units = baselines.only(units, baselines.batch_alone)
            return baselines.OpenLimit(make_strategy(PALS, units, overhead, slo), units)
        if name == LIMIT_ONLY:
            units = baselines.only(units, baselines.limit_alone)
            return make_strategy(PALS, units, overhead, slo)
        given = options if name == OURS else {}
        return make_strategy(name, units, overhead, slo, **given)

    return make
