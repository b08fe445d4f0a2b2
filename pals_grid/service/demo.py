"""The demonstration site: live keyless feeds, and a labelled made-up day where they fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import Conflict, NotFound
from pals_grid.core.series import Quantity
from pals_grid.core.site import LiveGrants, SitePolicy
from pals_grid.service.feeds import FeedRequest, add_feed, fetch_feed, list_feeds
from pals_grid.service.paging import Page
from pals_grid.service.plans import load_plan, replan
from pals_grid.service.sites import create_site, load_site
from pals_grid.sim.demo import DEMO_TOKENS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.core.site import Site
    from pals_grid.service.context import Context
    from pals_grid.service.feeds import FeedView

POLICY = SitePolicy(
    slug="demo",
    name="Demo site",
    timezone="Europe/London",
    currency="GBP",
    grid_connection_w=3000.0,
    minimum_w=300.0,
    safe_limit_w=1200.0,
    carbon_price_per_tonne=50.0,
    deferrable_ratio=0.3,
    # What the simulated node's clients ask for on average, until there is a record.
    demand_tokens_per_s=round(DEMO_TOKENS_PER_S),
    live_grants=LiveGrants.ON,
)
LIVE = {Quantity.PRICE: "octopus_agile", Quantity.AVERAGE_INTENSITY: "neso"}
SYNTHETIC_NAMES = {
    Quantity.PRICE: "synthetic-price",
    Quantity.AVERAGE_INTENSITY: "synthetic-carbon",
}


def ensure_demo(context: Context, *, fetch: bool = True) -> Site:
    """Make the demo site, its feeds and its first plan, where they are not there yet.

    A live feed without a value for the next 24 h is asked; where that gives none, a feed of
    synthetic values is added beside it. The live feed stays, with its error, and its values are
    taken as soon as it gives some (see ``feeds.fallback``). With ``fetch`` False no
    provider is asked and nothing synthetic is made.
    """
    try:
        site = load_site(context, POLICY.slug)
    except NotFound:
        site = create_site(context, POLICY)
    for quantity, connector in LIVE.items():
        _ensure_feed(context, connector, connector, {})
        if fetch:
            _ensure_values(context, quantity, connector)
    try:
        load_plan(context, POLICY.slug)
    except NotFound:
        replan(context, site.id, "demo site created")
    return site


def _ensure_values(context: Context, quantity: Quantity, name: str) -> None:
    views = _views(context)
    synthetic = SYNTHETIC_NAMES[quantity]
    # The jobs go on asking: a start does not wait again for a network that was not there.
    if views[name].coverage_24h_ratio > 0 or synthetic in views:
        return
    if fetch_feed(context, views[name].feed.id).fetched:
        return
    options = {"quantity": quantity.value}
    if quantity is Quantity.PRICE:
        options["currency"] = POLICY.currency
    _ensure_feed(context, synthetic, "synthetic", options)
    fetch_feed(context, _views(context)[synthetic].feed.id)


def _ensure_feed(context: Context, name: str, connector: str, options: Mapping[str, str]) -> None:
    if name in _views(context):
        return
    try:
        add_feed(context, FeedRequest(POLICY.slug, name, connector, options))
    except Conflict:
        # Another process has just added it.
        return


def _views(context: Context) -> dict[str, FeedView]:
    found = list_feeds(context, POLICY.slug, Page(limit=1000)).items
    return {view.feed.name: view for view in found}
