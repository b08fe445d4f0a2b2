"""``pals-grid what-if``: tomorrow with other limits, prices, events and demand, and by rivals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Finite, Instant, read_pairs, require_folder_of
from pals_grid.cli.client import ServiceClient, site_option, url_option
from pals_grid.cli.output import json_option, print_json, print_table, show_instant, show_power
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

TIMEOUT_S = 120.0
WHOLE_RATIO = 0.995
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("what-if")
@url_option
@site_option
@click.option("--from", "start_at", type=Instant(), help="Default: the site's next midnight.")
@click.option("--to", "end_at", type=Instant(), help="Default: a day later, or the plan's end.")
@click.option("--carbon-price", type=Finite(0, 1e6), help="Per tonne, in the site's currency.")
@click.option("--carbon-cap-kg", type=Finite(0, 1e9), help="Kilograms a local day.")
@click.option("--limit-kw", type=Finite(0, 1e7), help="Never above.")
@click.option("--minimum-kw", type=Finite(0, 1e7), help="Never below.")
@click.option("--ramp-kw-per-min", type=Finite(0.001, 1e7), help="How fast power may change.")
@click.option("--reserve-pct", type=Finite(0, 1000), help="Margin above the expected demand.")
@click.option("--deferrable-pct", type=Finite(0, 100), help="Share that may wait, without tiers.")
@click.option("--tier-loss", "losses", multiple=True, metavar="TIER=PCT", help="What it may lose.")
@click.option("--event", "event", metavar="START/END/LIMIT", help="LIMIT in kW, or a cut like 20%.")
@click.option("--demand-ratio", type=Finite(0, 100), default=1.0, show_default=True)
@click.option("--tariff", "tariff", type=_FILE, help="A tariff as JSON, as if it held.")
@json_option
@click.option("--plot", "picture", type=_FILE, metavar="FILE.png", help="Write a picture.")
def command(  # noqa: PLR0913 - each is one option
    *,
    url: str,
    site: str | None,
    start_at: datetime | None,
    end_at: datetime | None,
    carbon_price: float | None,
    carbon_cap_kg: float | None,
    limit_kw: float | None,
    minimum_kw: float | None,
    ramp_kw_per_min: float | None,
    reserve_pct: float | None,
    deferrable_pct: float | None,
    losses: tuple[str, ...],
    event: str | None,
    demand_ratio: float,
    tariff: Path | None,
    as_json: bool,
    picture: Path | None,
) -> None:
    """Work out what tomorrow would be; nothing is stored, and no node hears of it.

    The plan as the site stands, the plan with the changes that are given, and its rivals: no
    control, static limit, as it comes, price and carbon threshold. All is modelled.
    """
    if picture is not None:
        _check_picture(picture)
    client = ServiceClient(url)
    slug = site or client.only_site()
    policy = {
        "carbon_price_per_tonne": carbon_price,
        "carbon_cap_kg_per_day": carbon_cap_kg,
        "maximum_w": _times(limit_kw, 1000),
        "minimum_w": _times(minimum_kw, 1000),
        "ramp_w_per_min": _times(ramp_kw_per_min, 1000),
        "reserve_ratio": _times(reserve_pct, 0.01),
        "deferrable_ratio": _times(deferrable_pct, 0.01),
        "tiers": _tiers(client, slug, losses) if losses else None,
    }
    body = {
        "start_at": None if start_at is None else start_at.isoformat(),
        "end_at": None if end_at is None else end_at.isoformat(),
        "policy": {name: value for name, value in policy.items() if value is not None},
        "event": None if event is None else _event(event),
        "demand_ratio": demand_ratio,
        "tariff": None if tariff is None else _document(tariff),
    }
    found = client.post(f"/sites/{slug}/what-if", body, timeout_s=TIMEOUT_S)
    if picture is not None:
        from pals_grid.cli.what_if_plot import plot  # noqa: PLC0415 - an extra

        plot(found, picture)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _check_picture(path: Path) -> None:
    """Say before the question, not after it, that there will be no picture."""
    from pals_grid.evaluate.suite.suite import check_pictures  # noqa: PLC0415 - heavy

    check_pictures()
    require_folder_of("plot", path)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _event(text: str) -> dict[str, Any]:
    parts = text.split("/")
    if len(parts) != 3:
        raise InvalidValue("event", text, "must be START/END/LIMIT")
    start_at, end_at = (
        parse_instant(f"event {name}", part).isoformat()
        for name, part in zip(("start", "end"), parts, strict=False)
    )
    limit = parts[2].strip()
    is_cut = limit.endswith("%")
    try:
        number = float(limit.removesuffix("%").removesuffix("kW"))
    except ValueError as error:
        bound = "must be a number of kW, or of % below the reference"
        raise InvalidValue("event limit", limit, bound) from error
    order = {"reduction_ratio": number / 100} if is_cut else {"limit_w": number * 1000}
    return {"start_at": start_at, "end_at": end_at, **order}


def _tiers(client: ServiceClient, slug: str, losses: Iterable[str]) -> list[dict[str, Any]]:
    """The site's tiers with other shares that may be lost."""
    tiers: list[dict[str, Any]] = client.get(f"/sites/{slug}")["tiers"]
    by_name = {tier["name"]: tier for tier in tiers}
    for name, text in read_pairs("tier-loss", losses).items():
        if name not in by_name:
            known = ", ".join(by_name) or "the site has none"
            raise InvalidValue("tier-loss", name, f"must be one of the site's tiers ({known})")
        try:
            by_name[name]["loss_ratio"] = float(text.removesuffix("%")) / 100
        except ValueError as error:
            raise InvalidValue("tier-loss", text, "must be a number of %") from error
    return tiers


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidValue("tariff", str(path), f"must be readable JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidValue("tariff", str(path), "must be a JSON object")
    return document


def _print(found: Mapping[str, Any]) -> None:
    currency = found["currency"]
    start, end = show_instant(found["start_at"]), show_instant(found["end_at"])
    click.echo(f"{found['site']}, {start} to {end}: modelled, at {found['boundary']} boundary")
    held = found["alternatives"][0]["outcome"]
    head = (
        "alternative",
        "kWh",
        currency,
        f"+/- {currency}",
        f"{currency} peaks",
        "kgCO2",
        "Mtokens",
        f"{currency}/Mtoken",
        "missed %",
        "carried Mtokens",
        "peak kW",
    )
    print_table(head, [_line(item, held) for item in found["alternatives"]])
    _print_whole(found)
    for item in found["alternatives"]:
        _print_range(item, currency)
        for finding in item["findings"]:
            first, last = show_instant(finding["start_at"]), show_instant(finding["end_at"])
            click.echo(f"{item['name']} cannot keep, {first} to {last}: {finding['explanation']}")
    for item in found["absent"]:
        click.echo(f"{item['name']} is not here: {item['reason']}")
    for share in found["sources"]:
        click.echo(f"{_QUANTITIES[share['quantity']]}: {share['hours']:g} h {share['words']}")
    for note in found["notes"]:
        click.echo(note)


_QUANTITIES = {"price": "price", "average_intensity": "carbon", "demand": "demand"}


def _line(item: Mapping[str, Any], held: Mapping[str, Any]) -> tuple[object, ...]:
    sums = item["outcome"]
    missed = sums["tokens_late"] + sums["tokens_lost"]
    arrived = sums["tokens_arrived"]
    cost, base, carbon = sums["cost"], held["cost"], sums["carbon_kg"]
    settings = f" ({item['settings']})" if item["settings"] else ""
    return (
        f"{item['name']}{settings}",
        f"{sums['energy_kwh']:,.1f}",
        "-" if cost is None else f"{cost:,.2f}{_covered(sums['cost_covered_ratio'])}",
        "-" if cost is None or base is None else f"{cost - base:+,.2f}",
        f"{sums['demand_charge']:,.2f}",
        "-" if carbon is None else f"{carbon:,.2f}{_covered(sums['carbon_covered_ratio'])}",
        f"{sums['tokens_served'] / 1e6:,.2f}",
        "-" if sums["cost_per_mtoken"] is None else f"{sums['cost_per_mtoken']:.4f}",
        f"{100 * missed / arrived:.2f}" if arrived > 0 else "-",
        f"{sums['tokens_carried'] / 1e6:+,.2f}",
        f"{sums['peak_w'] / 1000:,.2f}",
    )


def _covered(ratio: float) -> str:
    """Say what share of the energy a sum covers where that is not all of it."""
    return "" if ratio >= WHOLE_RATIO else f" ({100 * ratio:.0f} % known)"


def _print_whole(found: Mapping[str, Any]) -> None:
    start, end = (show_instant(found[f"horizon_{name}_at"]) for name in ("start", "end"))
    click.echo(f"Energy cost of the whole plan, {start} to {end}, by what is served in it:")
    lines = [
        (
            item["name"],
            "-"
            if item["whole"]["cost"] is None
            else f"{item['whole']['cost']:,.2f}{_covered(item['whole']['cost_covered_ratio'])}",
            f"{item['whole']['tokens_served'] / 1e6:,.2f}",
        )
        for item in found["alternatives"]
    ]
    print_table(("alternative", found["currency"], "Mtokens"), lines)


def _print_range(item: Mapping[str, Any], currency: str) -> None:
    low, high = item["low"], item["high"]
    if low is None or high is None or low["cost"] is None or high["cost"] is None:
        return
    click.echo(
        f"{item['name']}: {low['cost']:,.2f} to {high['cost']:,.2f} {currency}, peak"
        f" {show_power(low['peak_w'])} to {show_power(high['peak_w'])}, with our forecasts at P10"
        " and at P90"
    )
