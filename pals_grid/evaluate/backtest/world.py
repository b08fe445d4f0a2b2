"""One month of one site: everything that its policies share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.counterfactual.plant import Plant, node_kind
from pals_grid.evaluate.backtest.foretell import ProfileForecast
from pals_grid.evaluate.backtest.grid import grid_of
from pals_grid.evaluate.backtest.load import load_by_slot
from pals_grid.evaluate.backtest.signals import (
    constant_signal,
    load_signal,
    require_covered,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from pals_grid.core.intervals import Interval
    from pals_grid.core.site import SitePolicy
    from pals_grid.evaluate.backtest.config import SiteFile
    from pals_grid.evaluate.backtest.foretell import SignalForecast
    from pals_grid.evaluate.backtest.grid import Grid
    from pals_grid.evaluate.backtest.signals import Signal

    Floats = npt.NDArray[np.float64]

PAST_DAYS = 35
"""What lies before a month: for forecasts and for the rivals' tuning, never counted."""

AHEAD_DAYS = 2


@dataclass(frozen=True)
class World:
    """Slots ``first`` to before ``end`` are the month; up to ``stop`` what waits is served.

    In the settling slots nothing arrives that can wait, so every policy serves the same tokens.
    """

    site: SiteFile
    grid: Grid
    plant: Plant
    price: Signal
    carbon: Signal | None
    demand: Floats
    first: int
    end: int
    stop: int

    @cached_property
    def duration_s(self) -> Floats:
        """Length of every slot."""
        return np.full(self.grid.count, self.grid.slot_s)

    @cached_property
    def at_once_ratio(self) -> float:
        """Share of the demand that cannot wait."""
        return sum(tier.demand_ratio for tier in self.site.tiers if tier.deferral_s <= 0)

    @cached_property
    def windows(self) -> tuple[tuple[float, int], ...]:
        """Share of the demand, and slots from arrival to the last to be served in, by tier."""
        return tuple(
            (tier.demand_ratio, max(0, int(tier.deferral_s // self.grid.slot_s) - 1))
            for tier in self.site.tiers
            if tier.deferral_s > 0
        )

    @cached_property
    def policy(self) -> SitePolicy:
        """The site's policy."""
        return self.site.policy

    @cached_property
    def true_price(self) -> Floats:
        """Currency per MWh."""
        return self.price.truth

    @cached_property
    def true_carbon(self) -> Floats | None:
        """Grams of CO2 per kWh, average intensity; None without a series."""
        return None if self.carbon is None else self.carbon.truth

    @cached_property
    def worth_per_kwh(self) -> Floats:
        """What a kWh is counted at: its price and its priced emissions."""
        worth: Floats = self.true_price / 1000
        if self.true_carbon is not None:
            worth = worth + self.true_carbon * self.policy.carbon_price_per_tonne / 1e6
        return worth

    @cached_property
    def forecast(self) -> SignalForecast:
        """What fills in the signals' future."""
        return ProfileForecast(self.grid.per_day, self.grid.weekend(self.policy.timezone))

    def arrivals(self, slot: int, end: int) -> tuple[float, list[tuple[float, int]]]:
        """Tokens of a slot that cannot wait, and tokens with their last slot that can.

        From ``end`` on nothing arrives that can wait.
        """
        tokens = float(self.demand[slot]) * self.grid.slot_s
        if slot >= end:
            return self.at_once_ratio * tokens, []
        later = [(ratio * tokens, slot + window) for ratio, window in self.windows]
        return self.at_once_ratio * tokens, later


def build_world(site: SiteFile, month: Interval, folder: Path) -> World:
    """Put a month and what lies around it on the grid.

    Raises:
        InvalidValue: where a signal or the load does not cover the month and its settling time.
    """
    policy = site.policy
    longest_s = max((tier.deferral_s for tier in site.tiers), default=0.0)
    stop_at = month.end_at + timedelta(seconds=longest_s)
    grid = grid_of(
        month.start_at - timedelta(days=PAST_DAYS),
        stop_at + timedelta(days=AHEAD_DAYS),
        policy.slot_s,
    )
    zone = policy.timezone
    if site.price is not None:
        price = load_signal(site.price, "price", grid, zone, folder)
    else:
        price = constant_signal(grid, site.constant_price_per_mwh or 0.0)
    carbon = None
    if site.carbon is not None:
        carbon = load_signal(site.carbon, "average_intensity", grid, zone, folder)
    first, end, stop = (grid.at(at) for at in (month.start_at, month.end_at, stop_at))
    for name, signal in (("price", price), ("carbon", carbon)):
        if signal is not None:
            require_covered(name, signal, grid, first, stop)
    return World(
        site=site,
        grid=grid,
        plant=Plant(tuple(node_kind(nodes, policy.slo) for nodes in site.nodes)),
        price=price,
        carbon=carbon,
        demand=load_by_slot(site.load, grid, zone, folder),
        first=first,
        end=end,
        stop=stop,
    )
