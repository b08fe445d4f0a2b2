"""``pals-grid site``: grid connections, their limits and their policy."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Finite, Slug
from pals_grid.cli.client import ServiceClient, url_option
from pals_grid.cli.exits import Commands
from pals_grid.cli.output import json_option, print_json, print_table, show_power
from pals_grid.core.site import SitePolicy, Slo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AMOUNT = Finite(0, 1e12)
_DEFAULTS = {item.name: item.default for kind in (SitePolicy, Slo) for item in fields(kind)}


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a site's policy as an option; ``factor`` leads to the field's unit."""

    field: str
    option: str
    help: str
    type: click.ParamType[str] | click.ParamType[float] = _AMOUNT
    factor: float | None = None
    of_slo: bool = False

    @property
    def default(self) -> object:
        """What is taken where nothing is given; None where it must be given."""
        if self.field == "name":
            return "the slug"
        default = _DEFAULTS[self.field]
        return None if default is MISSING else default

    def read(self, given: str | float) -> str | float:
        """Turn the option's value into the field's, in its unit."""
        if isinstance(given, str):
            return given
        return given if self.factor is None else round(given * self.factor, 6)

    def show(self, site: Mapping[str, Any]) -> str:
        """Show the value in the option's unit."""
        value = (site["slo"] if self.of_slo else site)[self.field]
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
    Setting("currency", "currency", "ISO 4217 code; price feeds must be in it.", click.STRING),
    Setting("carbon_price_per_tonne", "carbon-price-per-tonne", "In the site's currency."),
    Setting(
        "deferrable_ratio", "deferrable-ratio", "Share of the demand that may wait.", Finite(0, 1)
    ),
    Setting("deferral_s", "deferral-s", "How long it may wait."),
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
                required=of_new and default is None,
                help=f"{item.help}  [default: {default}]" if of_new and default else item.help,
            )(made)
        return made

    return add_options


@click.group("site", cls=Commands)
def command() -> None:
    """Sites: add, list, show, set."""


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
    if "slo" in changes:
        changes["slo"] = {**held["slo"], **changes["slo"]}
    headers = {"If-Match": f'"{version or held["version"]}"'}
    _tell(client.patch(f"/sites/{slug}", changes, headers), "changed", as_json=as_json)


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
