from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from pals_grid.cli.client import ServiceClient
from pals_grid.cli.exits import BAD_INPUT
from pals_grid.cli.main import main
from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import Quantity
from pals_grid.evaluate.forecasts import compare
from pals_grid.evaluate.series_file import Columns, read_series_file
from tests.unit.forecast.learned.made_up import made_up

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    values = made_up(120).values
    start_at = datetime(2019, 12, 30, tzinfo=UTC)
    lines = [
        f"{(start_at + timedelta(hours=i)).isoformat()},{value:.3f},{value + 9:.3f}"
        for i, value in enumerate(values)
    ]
    file = tmp_path / "series.csv"
    file.write_text("time,moer,f60min\n" + "\n".join(lines))
    return file


def test_evaluate_compares_with_both_rivals_and_the_provider(path: Path) -> None:
    arguments = ["forecast", "evaluate", "--file", str(path), "--quantity", "marginal_intensity"]
    result = CliRunner().invoke(main, [*arguments, "--horizon-h", "6", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    lines = {line["horizon"]: line for line in found["lines"]}
    assert set(lines) == {"60 min", "1 h", "3 h", "6 h", "12 h", "24 h", "1-24 h"}
    assert (found["test_days"], found["history_days"], found["step_s"]) == (60, 60, 3600)
    assert found["test_start_at"] == "2020-02-28T00:00:00Z"
    own = lines["60 min"]
    # The row before says 9 more than it measured itself, an hour before the target.
    assert own["provider_mae"] > own["mae"] > 0
    assert lines["1 h"]["mae"] == own["mae"]
    for line in lines.values():
        rival = min(line["naive_day_mae"], line["naive_week_mae"])
        assert line["gain_ratio"] == pytest.approx(1 - line["mae"] / rival)


def test_evaluate_prints_a_table(path: Path) -> None:
    arguments = ["forecast", "evaluate", "--file", str(path), "--quantity", "price"]
    result = CliRunner().invoke(main, [*arguments, "--value-column", "moer"])
    assert result.exit_code == 0, result.output
    assert "naive week" in result.stdout
    assert "modelled values" in result.stdout


def test_evaluate_tells_the_model_of_day_ahead_prices_once_they_are_out(
    path: Path, tmp_path: Path
) -> None:
    days = np.random.default_rng(4).normal(0, 40, 121)
    start_at = datetime(2019, 12, 30, tzinfo=UTC)
    prices = tmp_path / "prices.csv"
    with prices.open("w") as file:
        file.write("time_utc,eur_per_mwh\n")
        for i in range(120 * 24):
            file.write(f"{(start_at + timedelta(hours=i)).isoformat()},{days[i // 24]:.2f}\n")
    carbon = tmp_path / "carbon.csv"
    head, *lines = path.read_text().split("\n")
    rows = [line.split(",") for line in lines]
    told = [f"{at},{float(value) + days[i // 24]:.3f}" for i, (at, value, _) in enumerate(rows)]
    carbon.write_text(head.removesuffix(",f60min") + "\n" + "\n".join(told))
    evaluate = ["forecast", "evaluate", "--file", str(carbon), "--quantity", "marginal_intensity"]

    def error(*options: str) -> float:
        result = CliRunner().invoke(main, [*evaluate, *options, "--json"])
        assert result.exit_code == 0, result.output
        lines = {line["horizon"]: line for line in json.loads(result.stdout)["lines"]}
        return float(lines["24 h"]["mae"])

    beside = ("--day-ahead", str(prices))
    alone, noon = error(), error(*beside, "--published-at", "12:00")
    assert noon < 0.8 * alone
    # A day's prices that come in its last hour, the day before, tell of few of its forecasts.
    assert noon < error(*beside, "--published-at", "23:00") < 1.05 * alone

    result = CliRunner().invoke(main, [*evaluate, *beside])
    assert "told the day-ahead prices of prices.csv from 13:00 UTC of the day before" in " ".join(
        result.stdout.split()
    )
    result = CliRunner().invoke(main, [*evaluate, *beside, "--published-at", "noon"])
    assert result.exit_code == BAD_INPUT
    assert "published_at: must be HH:MM" in result.output
    prices.write_text("time_utc,eur_per_mwh\n2031-01-01T00:00Z,5\n2031-01-01T01:00Z,5\n")
    result = CliRunner().invoke(main, [*evaluate, *beside])
    assert result.exit_code == BAD_INPUT
    assert "day_ahead: must overlap the file's time" in " ".join(result.output.split())


def test_evaluate_names_what_is_wrong(path: Path) -> None:
    series = read_series_file(path, Quantity.MARGINAL_INTENSITY, Columns())
    short = path.with_name("short.csv")
    short.write_text("\n".join(path.read_text().split("\n")[:1000]))
    arguments = ["forecast", "evaluate", "--file", str(short), "--quantity", "marginal_intensity"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == BAD_INPUT
    assert "must be 112 days or more" in result.output
    result = CliRunner().invoke(main, [*arguments, "--zone", "Mars"])
    assert "must be an IANA time zone" in result.output
    with pytest.raises(InvalidValue, match="horizon_h: must be from one step"):
        compare(series, horizon_h=0.5, delay_h=0, zone="UTC")


def test_show_names_who_is_taken_at_which_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    score = {"up_to_h": 1.0, "count": 120, "mae": 5.0, "rival_mae": 9.0}
    score |= {"gain_ratio": 0.44, "coverage_ratio": 0.8}
    answer: dict[str, object] = {
        "state": "used up to 1 h ahead: ...",
        "is_used": True,
        "rival": "day",
        "unit": "EUR/MWh",
        "record": [score],
        "bands": [
            {"over_h": 0.0, "up_to_h": 1.0, "is_used": True, "score": score},
            {"over_h": 1.0, "up_to_h": 3.0, "is_used": False, "score": None},
        ],
        "values": [
            {"start_at": "2026-03-02T12:00:00Z", "p10": 1, "p50": 2, "p90": 3}
            | {"rival": 41.5, "taken": 42.5}
        ],
    }

    def get(_: ServiceClient, path: str, **__: object) -> dict[str, object]:
        assert path == "/feeds/3/forecast"
        return answer

    monkeypatch.setattr(ServiceClient, "get", get)
    lines = CliRunner().invoke(main, ["forecast", "show", "3"]).output.splitlines()
    words = [line.split() for line in lines]
    assert "All values are modelled, in EUR/MWh" in lines
    assert ["0", "to", "1", "model", "5", "9"] in words
    assert ["1", "to", "3", "naive", "day"] in [line[:5] for line in words]
    assert words[-1][-2:] == ["41.5", "42.5"]
    answer["is_used"] = False
    lines = CliRunner().invoke(main, ["forecast", "show", "3"]).output.splitlines()
    assert sum("nothing" in line for line in lines) == 2
