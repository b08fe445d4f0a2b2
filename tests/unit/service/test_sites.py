from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import Conflict, InvalidValue, NotFound
from pals_grid.service.paging import Page
from pals_grid.service.plans import load_plan
from pals_grid.service.sites import list_sites, load_site, update_site

if TYPE_CHECKING:
    from tests.unit.service.world import World


def test_site_is_stored_whole(world: World) -> None:
    site = world.make_site(currency="GBP", deferrable_ratio=0.3)
    assert load_site(world.context, "oslo") == site
    assert site.version == 1
    assert site.policy.slo.itl_s == 0.1


def test_slug_is_taken_once(world: World) -> None:
    world.make_site()
    with pytest.raises(Conflict, match="'oslo' exists already"):
        world.make_site()


def test_unknown_site_is_not_found(world: World) -> None:
    with pytest.raises(NotFound, match="site 'nowhere'"):
        load_site(world.context, "nowhere")


def test_update_counts_and_plans_anew(world: World) -> None:
    site = world.make_site()
    policy = replace(site.policy, grid_connection_w=4000.0)
    assert update_site(world.context, "oslo", policy, expected_version=1).version == 2
    assert load_site(world.context, "oslo").policy == policy
    assert load_plan(world.context, "oslo").trigger == "site policy changed"


def test_update_of_another_version_changes_nothing(world: World) -> None:
    site = world.make_site()
    policy = replace(site.policy, name="other")
    with pytest.raises(Conflict, match="is at 1, not 7"):
        update_site(world.context, "oslo", policy, expected_version=7)
    assert load_site(world.context, "oslo") == site


def test_slug_cannot_be_changed(world: World) -> None:
    site = world.make_site()
    with pytest.raises(InvalidValue, match="slug: must stay 'oslo'"):
        update_site(world.context, "oslo", replace(site.policy, slug="bergen"), None)


def test_currency_stays_while_a_price_feed_is_there(world: World) -> None:
    site = world.make_site()
    world.make_feed("price", "agile")
    with pytest.raises(InvalidValue, match=r"currency: must stay EUR while .*'agile'"):
        update_site(world.context, "oslo", replace(site.policy, currency="GBP"), None)
    assert load_site(world.context, "oslo") == site


def test_sites_come_in_pages(world: World) -> None:
    for slug in ("c", "a", "b"):
        world.make_site(slug)
    first = list_sites(world.context, Page(limit=2))
    assert [site.policy.slug for site in first.items] == ["a", "b"]
    rest = list_sites(world.context, Page(limit=2, cursor=first.next_cursor))
    assert [site.policy.slug for site in rest.items] == ["c"]
    assert rest.next_cursor is None
