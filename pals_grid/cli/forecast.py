"""``pals-grid forecast``: how good the forecasts are, on a file and on what was issued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import json_option, print_json, print_table, show_instant
from pals_grid.cli.progress import progress_bar
from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import Quantity

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("forecast", cls=Commands)
def command() -> None:
    """Forecasts of price, carbon and load, and their record."""


@command.command()
@click.option("--file", "path", type=_FILE, required=True, help="CSV, plain or gzipped.")
@click.option(
    "--quantity",
    type=click.Choice([str(one) for one in Quantity]),
    required=True,
    help="What the values are; finds their column.",
)
@click.option("--horizon-h", type=click.FloatRange(0.05, 48.0), default=24.0, show_default=True)
@click.option(
    "--delay-h",
    type=click.FloatRange(0.0, 8.0),
    default=0.0,
    show_default=True,
    help="How late values are known; model and rivals alike.",
)
@click.option("--time-column", help="Default: found by its name.")
@click.option("--value-column", help="Default: found by its name.")
@click.option("--time-format", help="iso, unix or a strptime pattern; default: found.")
@click.option("--timezone", default="UTC", show_default=True, help="Of times without an offset.")
@click.option("--stamp", type=click.Choice(["start", "end"]), default="start", show_default=True)
@click.option("--zone", help="Local zone of the calendar; default: that of --timezone.")
@click.option("--retrain-days", type=click.IntRange(1, 365), default=91, show_default=True)
@click.option(
    "--day-ahead",
    type=_FILE,
    help="CSV of day-ahead prices beside; the model sees each day's once it is published.",
)
@click.option(
    "--published-at",
    default="13:00",
    show_default=True,
    help="When the next day's prices are there, local time of --zone.",
)
@json_option
def evaluate(  # noqa: PLR0913 - each is one option
    *,
    path: Path,
    quantity: str,
    horizon_h: float,
    delay_h: float,
    time_column: str | None,
    value_column: str | None,
    time_format: str | None,
    timezone: str,
    stamp: str,
    zone: str | None,
    retrain_days: int,
    day_ahead: Path | None,
    published_at: str,
    as_json: bool,
) -> None:
    """Compare rolling forecasts with seasonal-naive over the last year of a file.

    Needs no service. A forecast h hours ahead is of the step that ends h hours after its origin,
    made from what had ended by the origin; so are both naive rivals: the latest known value of
    the same time of day, and of the same time of the week.
    """
    from pals_grid.evaluate.day_ahead import read_day_ahead  # noqa: PLC0415
    from pals_grid.evaluate.forecasts import compare, table  # noqa: PLC0415
    from pals_grid.evaluate.series_file import Columns, read_series_file  # noqa: PLC0415

    columns = Columns(time_column, value_column, time_format, timezone, stamp)
    series = read_series_file(path, Quantity(quantity), columns)
    local = _zone(zone or timezone)
    announced = None if day_ahead is None else read_day_ahead(day_ahead, local, published_at)
    with progress_bar("Forecasting") as progress:
        found = compare(
            series,
            horizon_h=horizon_h,
            delay_h=delay_h,
            zone=local,
            retrain_days=retrain_days,
            announced=announced,
            progress=progress,
        )
    if as_json:
        print_json({"quantity": quantity, **found.to_json()})
        return
    click.echo(
        f"{quantity}, {found.value_column}, steps of {found.step_s / 60:g} min: learned from "
        f"{found.history_days:.0f} days from {show_instant(found.history_start_at)} on, compared "
        f"over {found.test_days:.0f} days from {show_instant(found.test_start_at)} on, trained "
        f"anew every {found.retrain_days} days, values known {found.delay_h:g} h late"
        f"{_beside(day_ahead, published_at, local)}. Errors are "
        "mean absolute errors of modelled values against the file's, in its unit; the gain is on "
        "the better naive rival."
    )
    print_table(*table(found))


def _beside(path: Path | None, published_at: str, zone: str) -> str:
    if path is None:
        return ""
    return (
        f", told the day-ahead prices of {path.name} from {published_at} {zone} of the day before"
    )


def _zone(name: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415

    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidValue("zone", name, "must be an IANA time zone") from error


@command.command()
@click.argument("feed_id", type=click.IntRange(1), required=False)
@url_option
@site_option
@json_option
def show(*, feed_id: int | None, url: str, site: str | None, as_json: bool) -> None:
    """Show the forecast of a feed and its record; without a feed, of the site's load."""
    client = ServiceClient(url)
    if feed_id is None:
        found = client.get("/forecasts/load", site=site)
    else:
        found = client.get(f"/feeds/{feed_id}/forecast")
    if as_json:
        print_json(found)
        return
    click.echo(f"Model: {found['state']}")
    if found["unit"] is not None:
        click.echo(f"All values are modelled, in {found['unit']}")
    if found["record"]:
        head = ("up to h ahead", "values", "error", "rival's error", "gain", "P10-P90 holds")
        print_table(head, [_record_line(score) for score in found["record"]])
    if found["bands"]:
        columns = ("h ahead", "used", "model's error", "rival's error")
        print_table(columns, [_band_line(band, found) for band in found["bands"]])
    if found["values"]:
        lines = [_value_line(value) for value in found["values"]]
        print_table(("start_at", "P10", "P50", "P90", "naive", "taken"), lines)


def _record_line(score: dict[str, Any]) -> tuple[object, ...]:
    return (
        f"{score['up_to_h']:g}",
        score["count"],
        score["mae"],
        score["rival_mae"],
        f"{score['gain_ratio']:+.0%}",
        f"{score['coverage_ratio']:.0%}",
    )


def _band_line(band: dict[str, Any], found: dict[str, Any]) -> tuple[object, ...]:
    score = band["score"] or {}
    used = "nothing" if not found["is_used"] else "naive " + found["rival"]
    return (
        f"{band['over_h']:g} to {band['up_to_h']:g}",
        "model" if band["is_used"] and found["is_used"] else used,
        score.get("mae"),
        score.get("rival_mae"),
    )


def _value_line(value: dict[str, Any]) -> tuple[object, ...]:
    names = ("p10", "p50", "p90", "rival", "taken")
    return (show_instant(value["start_at"]), *(value[name] for name in names))
