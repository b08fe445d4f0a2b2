from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import expect

from pals_grid.service.paging import Page as ListPage
from pals_grid.service.plans import list_plans
from tests.browser.pages import violations, width_px

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Console

pytestmark = pytest.mark.browser


def _open(console: Console, page: Page) -> None:
    page.goto(f"{console.url}/what-if")


def _try_event(console: Console, page: Page) -> None:
    """An event tomorrow at noon that no node can be held to, and a dearer carbon price."""
    noon = console.context.clock.now().astimezone(ZoneInfo("Europe/London")) + timedelta(days=1)
    page.get_by_label("Carbon price").fill("400")
    page.get_by_label("Event from").fill(f"{noon:%Y-%m-%d}T12:00")
    page.get_by_label("Event to").fill(f"{noon:%Y-%m-%d}T13:00")
    page.get_by_label("Limit of the site").fill("0,2")
    page.get_by_role("button", name="Work out").click()


def test_tomorrow_is_told_at_once_and_nothing_is_stored(console: Console, page: Page) -> None:
    plans = len(list_plans(console.context, "works", ListPage()).items)
    _open(console, page)
    table = page.get_by_role("table")
    expect(table.locator("tbody tr").first).to_contain_text("As it stands")
    expect(table).to_contain_text("No control")
    expect(table).not_to_contain_text("With your changes")
    # Just after midnight the plan does not reach to tomorrow's end.
    expect(page.get_by_role("region", name="What this rests on")).to_contain_text(
        re.compile(r"\d\s(h|min) from made-up price \(synthetic\)")
    )
    expect(page.locator("canvas").first).to_be_visible()
    assert len(list_plans(console.context, "works", ListPage()).items) == plans


def test_changes_are_compared_with_what_stands(console: Console, page: Page) -> None:
    _open(console, page)
    _try_event(console, page)
    changed = page.get_by_role("table").locator("tbody tr").nth(1)
    expect(changed).to_contain_text("With your changes")
    expect(changed).to_contain_text(re.compile("[−+][0-9.]+\u202f%"))
    broken = page.get_by_role("region", name="What cannot be kept")
    expect(broken).to_contain_text("Event 'What if' leaves 0.20 kW to a fleet")
    expect(broken).to_contain_text("No control")
    expect(page.get_by_label("Carbon price")).to_have_value("400")
    assert "carbon_price=400" in page.url


def test_a_press_on_a_name_shows_its_line(console: Console, page: Page) -> None:
    _open(console, page)
    name = page.get_by_role("button", name="As it comes: power")
    expect(name).to_have_attribute("aria-pressed", "false")
    name.click()
    expect(name).to_have_attribute("aria-pressed", "true")
    expect(name).to_be_focused()
    page.locator(".panels .u-over").first.hover()
    expect(page.locator(".readout")).to_contain_text("As it comes: power")


def test_what_is_wrong_stands_beside_its_field(console: Console, page: Page) -> None:
    _open(console, page)
    page.get_by_label("Never above").fill("9000000")
    page.get_by_role("button", name="Work out").click()
    expect(page.get_by_role("alert")).to_contain_text("Not worked out.")
    expect(page.locator("#maximum-note")).to_have_text("Must be from 0.3\u202fkW to 3\u202fkW.")
    page.get_by_label("Demand", exact=True).fill("much")
    page.get_by_label("Reduction").fill("20")
    page.get_by_role("button", name="Work out").click()
    expect(page.locator("#demand-note")).to_have_text("Must be a number.")
    expect(page.locator("#event_start-note")).to_have_text("Must be filled in for an event.")
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_well_on_a_telephone(console: Console, page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its literals
    page.set_viewport_size({"width": 390, "height": 844})
    _open(console, page)
    _try_event(console, page)
    expect(page.get_by_role("heading", name="What cannot be kept")).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    assert width_px(page) == 390
    assert violations(page) == []
    page.set_viewport_size({"width": 1400, "height": 900})
    expect(page.locator("canvas").first).to_be_visible()
    assert violations(page) == []
