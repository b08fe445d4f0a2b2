from __future__ import annotations

import asyncio

from pals_grid_dashboards.console import live
from pals_grid_dashboards.console.live import AGEING, changes, sse

from pals_grid.store.listen import Notification, Subscription


def _changes_after(*news: Notification) -> frozenset[str]:
    async def run() -> frozenset[str]:
        inbox = Subscription(["node", "plan", "event", "feed"])
        for item in news:
            inbox.offer(item)
        return await changes(inbox, 7, lambda: False, look_s=0.01)

    return asyncio.run(run())


def test_an_event_is_one_data_line_for_each_line() -> None:
    assert sse("nodes", "<p>\na</p>") == "event: nodes\ndata: <p>\ndata: a</p>\n\n"
    assert sse("chart", "") == "event: chart\ndata: \n\n"


def test_all_news_of_the_site_is_taken_at_once() -> None:
    news = (Notification("node", "7"), Notification("plan", "7"), Notification("node", "7"))
    assert _changes_after(*news) == {"head", "nodes", "plan", "substitutes", "chart"}


def test_news_of_another_site_only_lets_time_pass() -> None:
    assert _changes_after(Notification("plan", "8")) == AGEING
    assert _changes_after() == AGEING


def test_after_a_lost_connection_all_of_a_topic_may_have_changed() -> None:
    assert _changes_after(Notification("plan", None)) == live.PARTS_BY_TOPIC["plan"]


def test_waiting_ends_when_the_service_stops() -> None:
    async def run() -> frozenset[str]:
        return await changes(Subscription([]), 7, lambda: True, look_s=600.0)

    assert asyncio.run(asyncio.wait_for(run(), 60.0)) == AGEING


def test_a_feed_is_known_by_its_own_number() -> None:
    assert _changes_after(Notification("feed", "12345")) == {"feeds", "chart"}
