"""Control laws by name: the one place that a command line, an agent or an evaluation asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.node.strategies.grid import GridStrategy
from pals_grid.node.strategies.options import make_options
from pals_grid.node.strategies.paper import PaperStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.strategy import Strategy
    from pals_grid.powermodel.overhead import NodeOverhead

    Make = Callable[[Sequence[EngineUnit], NodeOverhead, Slo, Mapping[str, object]], Strategy]

DEFAULT_STRATEGY = "pals-grid"


@dataclass(frozen=True, slots=True)
class StrategyKind:
    """One control law: what it does in a line, and its maker."""

    summary: str
    make: Make


def _make_paper(
    units: Sequence[EngineUnit], overhead: NodeOverhead, _slo: Slo, options: Mapping[str, object]
) -> Strategy:
    if options:
        raise InvalidValue("strategy option", next(iter(options)), "pals takes no options")
    return PaperStrategy(units, overhead)


def _make_grid(
    units: Sequence[EngineUnit], overhead: NodeOverhead, slo: Slo, options: Mapping[str, object]
) -> Strategy:
    return GridStrategy(units, overhead, slo, make_options(options))


STRATEGIES: Mapping[str, StrategyKind] = {
    "pals": StrategyKind("the published PALS algorithm, exactly (arXiv 2605.21427)", _make_paper),
    "pals-grid": StrategyKind(
        "feed-forward, forecast, latency objectives, part load, correction, tiers, clock lock",
        _make_grid,
    ),
}


def make_strategy(
    name: str, units: Sequence[EngineUnit], overhead: NodeOverhead, slo: Slo, **options: object
) -> Strategy:
    """Make the strategy called ``name``; ``options`` are the fields of ``ControlOptions``.

    Raises:
        InvalidValue: for an unknown name, an unknown option or a value outside its bounds.
    """
    kind = STRATEGIES.get(name)
    if kind is None:
        raise InvalidValue("strategy", name, f"must be one of {', '.join(STRATEGIES)}")
    return kind.make(units, overhead, slo, options)
