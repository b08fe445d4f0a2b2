"""The site files of docs/backtest.md over the series that they name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from pals_grid.core.intervals import Interval
from pals_grid.evaluate.backtest import names
from pals_grid.evaluate.backtest.config import load_site
from pals_grid.evaluate.backtest.month import run_month
from pals_grid.evaluate.backtest.world import build_world

SITES = Path(__file__).parents[4] / "docs" / "backtest"
STARTS = {
    "nl-day-ahead": datetime(2022, 10, 29, tzinfo=UTC),
    "gb-agile": datetime(2023, 3, 25, tzinfo=UTC),
    "gb-price-and-carbon": datetime(2022, 11, 20, tzinfo=UTC),
    "ercot-day-ahead": datetime(2021, 11, 6, tzinfo=UTC),
    "ercot-as-real-time": datetime(2021, 3, 13, tzinfo=UTC),
    "caiso-carbon": datetime(2022, 11, 5, tzinfo=UTC),
    "de-carbon": datetime(2020, 3, 28, tzinfo=UTC),
}


def test_every_shipped_site_file_is_tried() -> None:
    assert {path.stem for path in SITES.glob("*.json")} == set(STARTS)


@pytest.mark.parametrize("name", sorted(STARTS))
def test_a_site_runs_over_a_change_of_the_clock(name: str, shared_data: Path) -> None:
    """Two days, of which one has 23 or 25 hours where the market's time changes."""
    month = Interval(STARTS[name], STARTS[name] + timedelta(days=2))
    world = build_world(load_site(SITES / f"{name}.json"), month, shared_data / "series")
    assert not np.isnan(world.worth_per_kwh[world.first : world.stop]).any()
    worth = {
        policy: run_month(world, policy).worth
        for policy in (names.NO_CONTROL, names.AS_IT_COMES, names.FORESIGHT)
    }
    assert worth[names.FORESIGHT] < worth[names.AS_IT_COMES] < worth[names.NO_CONTROL]


def test_prices_around_winter_storm_uri_are_where_the_market_put_them(shared_data: Path) -> None:
    month = Interval(datetime(2021, 2, 15, tzinfo=UTC), datetime(2021, 2, 18, tzinfo=UTC))
    site = load_site(SITES / "ercot-day-ahead.json")
    world = build_world(site, month, shared_data / "series")
    view = world.price.view()
    # Published at 13:30 in Texas (19:30 UTC) for the next local day, which begins at 06:00 UTC.
    view.advance(datetime(2021, 2, 15, 19, 29, tzinfo=UTC))
    tomorrow = world.grid.at(datetime(2021, 2, 16, 6, tzinfo=UTC))
    assert not np.isnan(view.values[tomorrow - 1])
    assert np.isnan(view.values[tomorrow:]).all()
    view.advance(datetime(2021, 2, 15, 19, 30, tzinfo=UTC))
    assert float(np.nanmax(view.values[tomorrow : tomorrow + 96])) > 5000
