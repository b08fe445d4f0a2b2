"""What a test asks of a page once it is still."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page


def settle(page: Page) -> None:
    """Wait until all is loaded, every chart is drawn or says why not, and the stream is open."""
    page.wait_for_load_state()
    for chart in page.locator("[data-chart]").all():
        note = chart.locator(".chart-note:not([hidden])").filter(has_not_text="needs JavaScript")
        expect(chart.locator("canvas").or_(note).first).to_be_attached()
    if page.locator("#live").count():
        expect(page.locator("#live")).to_have_text("Live")


def violations(page: Page) -> list[str]:
    """What is hard to read or to reach on the page, once it has settled."""
    settle(page)
    found = Axe().run(page).response["violations"]
    return [f"{item['id']}: {node['html']}" for item in found for node in item["nodes"]]


def width_px(page: Page) -> int:
    """How wide the page is, once it has settled."""
    settle(page)
    return int(page.evaluate("document.documentElement.scrollWidth"))
