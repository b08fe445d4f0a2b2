from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue, NotFound
from pals_grid.evaluate.backtest import names, report
from pals_grid.evaluate.backtest.runner import BacktestFailed, Request, backtest, months_of
from tests.unit.evaluate.backtest.small import START, write_prices, write_site

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.evaluate.backtest.result import SiteResult

END = START + timedelta(days=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[SiteResult]:
    path = write_site(tmp_path_factory.mktemp("site"))
    told: list[float] = []
    found = backtest(Request((path,), START, END), told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    return found


def test_months_are_utc_months() -> None:
    found = list(months_of(datetime(2022, 11, 15, tzinfo=UTC), datetime(2023, 1, 2, tzinfo=UTC)))
    assert [f"{item.start_at:%m-%d} {item.end_at:%m-%d}" for item in found] == [
        "11-15 12-01",
        "12-01 01-01",
        "01-01 01-02",
    ]


def test_bars_come_from_the_runs(results: list[SiteResult]) -> None:
    bars = {bar.name: bar for bar in results[0].bars}
    assert all(bar.met for bar in bars.values())
    share = bars["share of the foresight's saving"]
    runs = {run.policy: run.worth for run in results[0].months[0].runs}
    start = runs[names.NO_CONTROL]
    by_hand = (start - runs[names.PLANNER]) / (start - runs[names.FORESIGHT])
    assert share.value == pytest.approx(by_hand)
    assert share.bound == 0.95
    assert replace(share, value=0.9).met is False
    assert names.CARBON_THRESHOLD not in results[0].policies


def test_a_policy_that_serves_less_breaks_the_bar_of_equal_tokens(
    results: list[SiteResult],
) -> None:
    month = results[0].months[0]
    short = replace(month.runs[0], tokens=month.runs[0].tokens * 0.999)
    changed = replace(results[0], months=(replace(month, runs=(short, *month.runs[1:])),))
    bar = next(bar for bar in changed.bars if bar.name.startswith("equal tokens"))
    assert not bar.met


def test_two_processes_find_what_one_does(results: list[SiteResult], tmp_path: Path) -> None:
    path = write_site(tmp_path)
    chosen = (names.NO_CONTROL, names.PLANNER)
    again = backtest(Request((path,), START, END, chosen, processes=2), lambda _: None)
    for name in chosen:
        one, two = results[0].months[0].run(name), again[0].months[0].run(name)
        assert one is not None
        assert two is not None
        assert (one.worth, one.tokens) == (two.worth, two.tokens)


def test_text_json_pictures_and_page(results: list[SiteResult], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = report.to_text(results)
    assert "foresight" in text
    assert "Node boundary, modelled" in text
    report.write(results, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "backtest.json").read_text())
    assert written["sites"][0]["boundary"] == "node"
    assert written["sites"][0]["months"][0]["runs"][0]["policy"] == names.NO_CONTROL
    assert (tmp_path / "out" / "backtest-small.png").stat().st_size > 5000
    report.write_markdown(results, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "images/backtest-small.png" in page
    assert "| planner |" in page
    assert (tmp_path / "images" / "backtest-small.png").is_file()


def test_the_slot_model_is_checked_on_a_simulated_node(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    chosen = (names.NO_CONTROL,)
    found = backtest(Request((path,), START, END, chosen, validate_hours=1), lambda _: None)
    (check,) = found[0].checks
    assert check.hours == 1
    assert abs(check.error_ratio) < 0.05
    assert 0.9 < check.tokens_ratio < 1.1
    assert "simulated kWh" in report.to_text(found)


def test_a_month_that_cannot_be_run_says_which(tmp_path: Path) -> None:
    write_prices(tmp_path / "prices.csv", days=41)
    path = write_site(tmp_path)
    with pytest.raises(BacktestFailed, match=r"site.json, 2022-06, no-control: .*price at"):
        backtest(Request((path,), START, END), lambda _: None)


def test_requests_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="midnights"):
        Request((tmp_path,), START + timedelta(hours=1), END)
    with pytest.raises(InvalidValue, match="1 to 3660 days"):
        Request((tmp_path,), START, START + timedelta(hours=5))
    with pytest.raises(NotFound, match="surprise"):
        Request((tmp_path,), START, END, ("surprise",))
