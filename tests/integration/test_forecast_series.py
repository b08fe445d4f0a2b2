"""The forecasts on a short real slice: errors below both rivals, coverage as said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.series import Quantity
from pals_grid.evaluate.forecasts import compare
from pals_grid.evaluate.series_file import Columns, read_series_file

if TYPE_CHECKING:
    from pathlib import Path

DAYS = 140


def test_a_slice_of_real_prices(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "series" / "price_da_NL_2019_2023_hourly.csv.gz"
    whole = read_series_file(file, Quantity.PRICE, Columns())
    first = len(whole.values) - DAYS * 24
    path = tmp_path / "slice.csv"
    rows = zip(whole.starts_s[first:], whole.values[first:], strict=True)
    path.write_text("time,price\n" + "\n".join(f"{at_s:.0f},{value}" for at_s, value in rows))
    series = read_series_file(path, Quantity.PRICE, Columns())
    found = compare(series, horizon_h=24, delay_h=0, zone="Europe/Amsterdam", retrain_days=70)
    lines = {line.horizon: line for line in found.lines}
    assert found.test_days == DAYS / 2
    assert lines["24 h"].forecasts == DAYS / 2 * 24 - 23
    # Seventy days of history teach little beyond some hours: the page has the figures for years.
    assert lines["1 h"].gain_ratio > 0.4
    assert lines["3 h"].gain_ratio > 0.1
    assert 0.7 < lines["1-24 h"].coverage_ratio < 0.9
