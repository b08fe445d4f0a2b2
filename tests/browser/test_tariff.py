from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from pals_grid.core.fallback import FromConstant, FromFeed
from pals_grid.service.feeds import list_feeds, set_fallbacks
from pals_grid.service.paging import Page as ListPage
from pals_grid.service.plans import load_plan
from pals_grid.service.tariffs import list_tariffs
from tests.browser.pages import violations, width_px

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Console

pytestmark = pytest.mark.browser


def _row(page: Page, legend: str, row: int, **typed: str) -> None:
    """Fill one row of a part of the form, by its labels."""
    part = page.get_by_role("group", name=legend)
    for label, text in typed.items():
        part.get_by_label(label.replace("_", " "), exact=True).nth(row).fill(text)


def _fill(page: Page) -> None:
    page.get_by_label("Name", exact=True).fill("Large <user>")
    page.get_by_label("Factor on the feed's price").fill("1,02")
    _row(page, "Periods", 0, Period="evening", From="16:00", To="19:00", Days="mon-fri")
    _row(page, "Adders", 0, Adder="Network", Amount_per_MWh="12")
    _row(page, "Taxes", 0, Tax="VAT", Amount="20")
    _row(page, "Demand charges", 0, Charge="Capacity", Price_per_kW="9.5")


def test_tariff_is_previewed_then_saved_then_in_force(console: Console, page: Page) -> None:
    page.goto(f"{console.url}/tariff")
    expect(
        page.get_by_text("No tariff yet: the site pays what its price feed says")
    ).to_be_visible()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    _fill(page)
    page.get_by_role("button", name="Preview").click()
    preview = page.get_by_role("region", name="Preview of “Large <user>”")
    expect(preview).to_contain_text("nothing is saved yet")
    expect(preview).to_contain_text("× 1.02 + 12.00 Network +")
    assert list_tariffs(console.context, "works").tariffs == ()
    page.get_by_role("button", name="Save what is previewed").click()
    expect(page.get_by_role("status")).to_contain_text("Saved: “Large <user>”")
    held = page.get_by_role("region", name="In force")
    expect(held).to_contain_text("+ 20 % of all above")
    expect(held).to_contain_text("of the month's highest quarter of an hour")
    assert load_plan(console.context, "works").trigger == "tariff Large <user> set"
    page.goto(f"{console.url}/reports")
    demand = page.get_by_role("region", name="Demand charges", exact=True)
    expect(demand).to_contain_text("not part of the energy cost above")
    expect(demand).to_contain_text("Capacity")
    expect(demand.locator(".badge")).to_have_text(["modelled"])


def test_what_was_changed_after_the_preview_is_not_saved(console: Console, page: Page) -> None:
    page.goto(f"{console.url}/tariff")
    _fill(page)
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("region", name="Preview of “Large <user>”")).to_be_visible()
    page.get_by_label("Factor on the feed's price").fill("3")
    page.get_by_role("button", name="Save what is previewed").click()
    expect(page.get_by_role("alert")).to_contain_text("Something was changed since the preview")
    page.wait_for_load_state()
    assert list_tariffs(console.context, "works").tariffs == ()
    page.get_by_role("button", name="Save what is previewed").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    (stored,) = list_tariffs(console.context, "works").tariffs
    assert stored.tariff.factor == 3


def test_what_is_wrong_stands_beside_its_field(console: Console, page: Page) -> None:
    page.goto(f"{console.url}/tariff")
    _fill(page)
    _row(page, "Adders", 0, Amount_per_MWh="dear", Only_in_the_period="night")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("alert")).to_contain_text("Not previewed.")
    expect(page.locator("#adders-0-price-note")).to_have_text("Must be a number.")
    _row(page, "Adders", 0, Amount_per_MWh="12")
    page.get_by_role("button", name="Preview").click()
    wrong = page.locator("#adders-0-price-note").filter(has_text="Must be a number.")
    expect(wrong).to_have_count(0)
    expect(page.locator("#adders-0-period-note")).to_have_text(
        "Must be one of the periods (evening), got night."
    )
    expect(page.get_by_label("Factor on the feed's price")).to_have_value("1,02")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_preview_reads_well_on_a_telephone(console: Console, page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its literals
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{console.url}/tariff")
    _fill(page)
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name="48\u202fh of prices")).to_be_visible()
    assert width_px(page) == 390
    assert violations(page) == []


def test_substitutes_are_said_on_the_first_page_and_on_the_feeds_card(
    console: Console, page: Page
) -> None:
    feeds = {
        view.feed.name: view.feed for view in list_feeds(console.context, "works", ListPage()).items
    }
    chain = (FromFeed("made-up carbon"), FromConstant(200))
    set_fallbacks(console.context, feeds["neso"].id, chain)
    page.goto(console.url)
    told = page.get_by_role("list", name="Substitutes in this plan")
    expect(told).to_contain_text("from feed made-up carbon: neso has not answered yet")
    page.goto(f"{console.url}/feeds")
    card = page.get_by_role("article", name="neso")
    expect(card).to_contain_text("feed made-up carbon, then a constant 200 gCO₂/kWh")
    expect(card).to_contain_text("from feed made-up carbon: neso has not answered yet.")
