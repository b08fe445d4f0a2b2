"""``pals-grid site``: grid connections, their limits and their policy."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Finite, Instant, Slug
from pals_grid.cli.client import ServiceClient, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import (
    json_option,
    print_json,
    print_table,
    show_origins,
    show_power,
)
from pals_grid.core.site import LiveGrants, SitePolicy, Slo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AMOUNT = Finite(0, 1e12)
_NONE = "none"


class _AmountOrNone(click.ParamType[Any]):
    """A number, or "none" to take a bound away."""

    name = "number|none"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | float:
        """Read."""
        return _NONE if value == _NONE else _AMOUNT.convert(value, param, ctx)


class _JsonList(click.ParamType[str]):
    """A JSON array of objects; what is in them is for the service to judge."""

    name = "json"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Take the text as it is where it can be read."""
        held: object = None
        with suppress(ValueError):
            held = json.loads(str(value))
        if not isinstance(held, list):
            self.fail(f"must be a JSON array, got {value!r}", param, ctx)
        return str(value)


_DEFAULTS = {item.name: item.default for kind in (SitePolicy, Slo) for item in fields(kind)}


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a site's policy as an option; ``factor`` leads to the field's unit."""

    field: str
    option: str
    help: str
    type: click.ParamType[Any] = _AMOUNT
    factor: float | None = None
    of_slo: bool = False

    @property
    def required(self) -> bool:
        """Whether a new site must have it given."""
        return self.field != "name" and _DEFAULTS[self.field] is MISSING

    @property
    def default(self) -> object:
        """What is taken where nothing is given; None where it must be given."""
        if self.field == "name":
            return "the slug"
        default = _DEFAULTS[self.field]
        return None if default is MISSING else default

    def read(self, given: str | float) -> object:
        """Turn the option's value into the field's, in its unit."""
        if isinstance(given, str):
            if isinstance(self.type, _JsonList):
                return json.loads(given)
            return None if isinstance(self.type, _AmountOrNone) else given
        return given if self.factor is None else round(given * self.factor, 6)

    def show(self, site: Mapping[str, Any]) -> str:
        """Show the value in the option's unit."""
        value = (site["slo"] if self.of_slo else site)[self.field]
        if value is None:
            return _NONE
        if isinstance(value, list):
            return json.dumps(value)
        if isinstance(value, str):
            return value
        return f"{value if self.factor is None else value / self.factor:.10g}"


_KW = 1000.0
SETTINGS = (
    Setting("name", "name", "Name for people.", click.STRING),
    Setting("grid_connection_w", "grid-connection-kw", "Most that the site may draw.", factor=_KW),
    Setting("minimum_w", "minimum-kw", "Least that a plan grants the site.", factor=_KW),
    Setting("safe_limit_w", "safe-limit-kw", "Limit where no plan holds.", factor=_KW),
    Setting("timezone", "timezone", "IANA time zone, for pages.", click.STRING),
    Setting(
        "currency",
        "currency",
        "ISO 4217 code; price feeds are in it, or a tariff converts them.",
        click.STRING,
    ),
    Setting("carbon_price_per_tonne", "carbon-price-per-tonne", "In the site's currency."),
    Setting(
        "deferrable_ratio", "deferrable-ratio", "Share of the demand that may wait.", Finite(0, 1)
    ),
    Setting("deferral_s", "deferral-s", "How long it may wait."),
    Setting("tiers", "tiers", "Classes of demand, the most important first; JSON.", _JsonList()),
    Setting("maximum_w", "maximum-kw", "Most that a plan grants the site.", _AmountOrNone(), _KW),
    Setting("ramp_w_per_min", "ramp-kw-per-min", "Fastest change of power.", _AmountOrNone(), _KW),
    Setting(
        "marginal_carbon_ratio",
        "marginal-carbon-ratio",
        "Share of the carbon price that goes by the marginal intensity.",
        Finite(0, 1),
    ),
    Setting(
        "carbon_cap_kg_per_day", "carbon-cap-kg-per-day", "Cap of a local day.", _AmountOrNone()
    ),
    Setting(
        "live_grants",
        "live-grants",
        "Move power between nodes within seconds.",
        click.Choice([one.value for one in LiveGrants]),
    ),
    Setting("other_load_w", "other-load-kw", "Drawn beside the nodes; no meter.", factor=_KW),
    Setting("reserve_ratio", "reserve-ratio", "Margin of throughput above expected demand."),
    Setting("demand_tokens_per_s", "demand-tokens-per-s", "Demand until there is a record."),
    Setting("slot_s", "slot-s", "Length of a plan's slots."),
    Setting("horizon_s", "horizon-s", "How far a plan looks ahead."),
    Setting("ttft_s", "ttft-slo-s", "Objective for the time to first token.", of_slo=True),
    Setting("itl_s", "itl-slo-s", "Objective for the inter-token latency.", of_slo=True),
)

_slug = click.argument("slug", type=Slug())


def _settings(*, of_new: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add_options(made: Callable[..., None]) -> Callable[..., None]:
        for item in reversed(SETTINGS):
            default = f"{item.default:g}" if isinstance(item.default, float) else item.default
            made = click.option(
                f"--{item.option}",
                item.field,
                type=item.type,
                required=of_new and item.required,
                help=f"{item.help}  [default: {default}]" if of_new and default else item.help,
            )(made)
        return made

    return add_options


@click.group("site", cls=Commands)
def command() -> None:
    """Sites: add, list, show, set; how their live grants do; what their meters show."""


@command.command()
@_slug
@_settings(of_new=True)
@url_option
@json_option
def add(*, slug: str, url: str, as_json: bool, **given: str | float | None) -> None:
    """Add a site; its first plan is made with its first node, feed or event."""
    body = {"name": slug, **_changes(given), "slug": slug}
    _tell(ServiceClient(url).post("/sites", body), "added", as_json=as_json)


@command.command("list")
@url_option
@json_option
def list_sites(*, url: str, as_json: bool) -> None:
    """List all sites."""
    sites = ServiceClient(url).get_all("/sites")
    if as_json:
        print_json(sites)
        return
    head = ("slug", "name", "grid connection", "minimum", "safe limit", "currency", "version")
    lines = [
        (
            site["slug"],
            site["name"],
            show_power(site["grid_connection_w"]),
            show_power(site["minimum_w"]),
            show_power(site["safe_limit_w"]),
            site["currency"],
            site["version"],
        )
        for site in sites
    ]
    print_table(head, lines)


@command.command()
@_slug
@url_option
@json_option
def show(*, slug: str, url: str, as_json: bool) -> None:
    """Show a site; the settings are named as the options of `site set` are."""
    site = ServiceClient(url).get(f"/sites/{slug}")
    if as_json:
        print_json(site)
        return
    click.echo(f"site {site['slug']}, version {site['version']}")
    print_table(("setting", "value"), [(item.option, item.show(site)) for item in SETTINGS])


@command.command("set")
@_slug
@_settings(of_new=False)
@click.option("--version", type=click.IntRange(1), help="Change only if it is still this version.")
@url_option
@json_option
def set_site(
    *, slug: str, version: int | None, url: str, as_json: bool, **given: str | float | None
) -> None:
    """Change a site's settings; its plan follows at once, what is left out stays."""
    changes = _changes(given)
    if not changes:
        raise click.UsageError("give at least one setting to change")
    client = ServiceClient(url)
    held = client.get(f"/sites/{slug}")
    headers = {"If-Match": f'"{version or held["version"]}"'}
    _tell(client.patch(f"/sites/{slug}", changes, headers), "changed", as_json=as_json)


@command.command()
@_slug
@url_option
@json_option
def grants(*, slug: str, url: str, as_json: bool) -> None:
    """Show how a site's live grants do: the last round, and counts since the first."""
    live = ServiceClient(url).get(f"/sites/{slug}/grants")
    if as_json:
        print_json(live)
        return
    click.echo(f"live grants of {slug}: {live['mode']}{'' if live['running'] else ', no rounds'}")
    if live["last"] is not None:
        print_table(("last round", "value"), _round_lines(live["last"]))


@command.command()
@_slug
@click.option("--power-kw", type=_AMOUNT, help="What it shows; without it: show the last reading.")
@click.option("--source", help="Name of the meter.")
@click.option("--at", type=Instant(), help="When it was read; now by default.")
@url_option
@json_option
def meter(
    *,
    slug: str,
    power_kw: float | None,
    source: str | None,
    at: datetime | None,
    url: str,
    as_json: bool,
) -> None:
    """Tell what a site's own meter shows, or show its last reading."""
    client, path = ServiceClient(url), f"/sites/{slug}/meter"
    if power_kw is None:
        if source is not None or at is not None:
            raise click.UsageError("--source and --at go with --power-kw")
        latest = client.get(path)["latest"]
        if as_json:
            print_json(latest)
        else:
            click.echo(_reading(latest) if latest else f"no meter of {slug} has said anything")
        return
    if source is None:
        raise click.UsageError("name the meter: --source")
    read_at = (at or datetime.now(UTC)).isoformat()
    reading = {"at": read_at, "power_w": round(power_kw * _KW, 6), "source": source}
    done = client.post(path, {"readings": [reading]})
    if as_json:
        print_json(done)
    else:
        known = "" if done["inserted"] else "; a reading of that instant is there already"
        click.echo(f"{_reading(reading)}{known}")


def _reading(reading: Mapping[str, Any]) -> str:
    at = datetime.fromisoformat(reading["at"]).astimezone(UTC)
    power = show_power(reading["power_w"])
    return f"{power}, measured by {reading['source']}, {at:%Y-%m-%d %H:%M:%SZ}"


def _round_lines(last: Mapping[str, Any]) -> list[tuple[object, ...]]:
    made = last["record"]
    other = made["other_load"]
    return [
        ("age", f"{last['age_s']:.0f} s"),
        ("budget", show_power(made["budget_w"])),
        ("other load", f"{show_power(other['power_w'])}, {other['origin']}: {other['source']}"),
        ("nodes may be allowed", show_power(made["allowed_w"])),
        ("above the budget", show_power(made["excess_w"])),
        ("nodes draw", f"{show_power(made['draw_w'])}{show_origins(made['draw_origins'])}"),
        ("lent above schedules", show_power(made["lent_w"])),
        ("nodes", f"{made['nodes']}, {made['heard']} heard, {made['reached']} take grants"),
        ("behind the plan", made["behind"]),
        ("draw more than granted", ", ".join(map(str, made["liars"])) or "none"),
        ("quiet for", f"{made['quiet_for_s']:.0f} s"),
        ("epoch, by", f"{last['epoch']}, {last['holder']}"),
        ("rounds, cuts, raises", f"{last['rounds']}, {last['cuts']}, {last['raises']}"),
    ]


def _changes(given: Mapping[str, str | float | None]) -> dict[str, Any]:
    """Collect what was given as the API takes it."""
    changes: dict[str, Any] = {}
    for item in SETTINGS:
        value = given[item.field]
        if value is not None:
            into = changes.setdefault("slo", {}) if item.of_slo else changes
            into[item.field] = item.read(value)
    return changes


def _tell(site: Mapping[str, Any], done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(site)
        return
    most, least = show_power(site["grid_connection_w"]), show_power(site["minimum_w"])
    safe = show_power(site["safe_limit_w"])
    click.echo(
        f"site {site['slug']} {done}: {least} to {most}, safe limit {safe}, "
        f"{site['currency']}, version {site['version']}"
    )
