"""Rows of nodes and feeds, the headline, the report's choice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from msgspec import structs
from pals_grid_dashboards.console.feed_rows import feed_alerts, feed_row
from pals_grid_dashboards.console.headline import budget_now, event_now
from pals_grid_dashboards.console.local_time import LocalTime
from pals_grid_dashboards.console.node_rows import node_rows, site_now
from pals_grid_dashboards.console.report_view import api_url, read_choice

from pals_grid.core.budget import BudgetInterval, Plan, PowerBudget, PowerEnvelope, Reason
from pals_grid.core.errors import InvalidValue
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.feed import BreakerState, Feed, FeedHealth
from pals_grid.core.fleet import Node, NodeCapability, Origin, PowerCurve
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.core.site import SitePolicy
from pals_grid.service.feed_views import FeedView, ProviderView
from pals_grid.service.nodes import NodeView
from pals_grid.store.grants import NodeGrant
from pals_grid.wire.messages import EngineStatus, NodeStatus

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
LOCAL = LocalTime(ZoneInfo("Europe/London"), NOW)
POLICY = SitePolicy("a", "A", grid_connection_w=9000, minimum_w=0, safe_limit_w=1200)


def _node(origin: Origin = Origin.SIMULATED) -> Node:
    capability = NodeCapability(1, "n", 100, 1000, PowerCurve((0.0, 10.0), (100.0, 1000.0)))
    return Node(1, 1, "n", "2 x GPU", "GPU", 2, ("m",), origin, capability, NOW, None)


def _status(tokens_out_per_s: float = 200.0, mode: str = "following") -> NodeStatus:
    engine = EngineStatus(
        engine="e",
        model="m",
        power_limit_w=500,
        power_draw_w=400,
        max_num_seqs=8,
        requests_running=4,
        requests_waiting=1,
        tokens_out_per_s=tokens_out_per_s,
        gpu_energy_j_per_token=2.0,
        reason="demand",
    )
    return NodeStatus(
        at=NOW - timedelta(seconds=3),
        mode=mode,
        envelope_version=1,
        power_envelope_w=800,
        node_power_w=600,
        node_power_origin=Origin.MODELLED,
        gpu_power_w=400,
        tick_lag_ms=0,
        engines=[engine],
        gpus=[],
    )


def test_a_node_that_has_said_nothing_has_no_figures() -> None:
    (row,) = node_rows([NodeView(_node(), None, online=False)], NOW)
    assert row.mode.text == "Waiting for its first report"
    assert (row.node_power_w, row.age_s, row.engines) == (None, None, ())


def test_a_silent_node_is_offline_whatever_it_last_said() -> None:
    (row,) = node_rows([NodeView(_node(), _status(), online=False)], NOW)
    assert (row.mode.text, row.mode.tone, row.age_s) == ("Offline", "bad", 3.0)


def test_a_node_shows_each_origin_and_its_energy_per_token() -> None:
    (row,) = node_rows([NodeView(_node(), _status(), online=True)], NOW)
    assert [label.text for label in row.origins] == ["modelled", "simulated"]
    assert row.node_energy_j_per_token == 3.0
    assert row.envelope_used_ratio == 0.75


def test_a_row_says_what_the_plan_allows_and_what_was_granted() -> None:
    interval = Interval(NOW, NOW + timedelta(minutes=30))
    planned = PowerEnvelope(1, interval, 300.0, 700.0, 0.0, Reason.EVENT)
    grant = NodeGrant(5, 2, 800.0, NOW + timedelta(seconds=9))
    view = NodeView(_node(), _status(), online=True, planned=planned, grant=grant)
    (row,) = node_rows([view], NOW)
    assert row.envelope_note == "plan 700\u202fW: Demand-response event"
    taken = structs.replace(_status(), grant_epoch=5, grant_sequence=2)
    (row,) = node_rows([replace(view, status=taken)], NOW)
    assert row.envelope_note.startswith("live grant of 800\u202fW; plan 700")
    (row,) = node_rows([replace(view, status=taken, online=False)], NOW)
    assert "live" not in row.envelope_note


def test_the_site_sums_the_nodes_that_are_online() -> None:
    view = NodeView(_node(), _status(), online=True)
    site = site_now([view, view, NodeView(_node(), _status(), online=False)])
    assert (site.node_power_w, site.tokens_out_per_s) == (1200, 400)
    assert (site.gpu_energy_j_per_token, site.node_energy_j_per_token) == (2.0, 3.0)
    assert (site.online, site.nodes) == (2, 3)


def test_no_tokens_means_no_energy_per_token() -> None:
    site = site_now([NodeView(_node(), _status(tokens_out_per_s=0), online=True)])
    assert (site.node_power_w, site.node_energy_j_per_token) == (600, None)
    assert site_now([]).node_power_w is None


def _feed_view(health: FeedHealth, *, known: bool = True, stale: bool = False) -> FeedView:
    feed = Feed(1, 1, "f", "neso", Quantity.AVERAGE_INTENSITY, {}, None, 900, 7200, NOW)
    value = Observation(NOW, NOW + HOUR, 190.4, "gCO2eq/kWh", ValueKind.SYNTHETIC, NOW)
    held = value if known else None
    return FeedView(feed, health, held, held, 60.0 if known else None, 0.7, 0.4, stale)


@pytest.mark.parametrize(
    ("health", "known", "stale", "text", "tone"),
    [
        (FeedHealth(), False, True, "Waiting for its first fetch", "quiet"),
        (FeedHealth(NOW, NOW), True, False, "Working", "good"),
        (FeedHealth(NOW, NOW), True, True, "Stale", "warn"),
        (FeedHealth(NOW, NOW), False, False, "No values yet", "warn"),
        (
            FeedHealth(NOW, None, NOW, "x", "FeedUnavailable", 1),
            True,
            False,
            "Not answering",
            "warn",
        ),
        (
            FeedHealth(NOW, None, NOW, "x", "FeedUnavailable", 1),
            False,
            True,
            "Not answering",
            "bad",
        ),
        (
            FeedHealth(NOW, None, NOW, "x", "FeedRejected", 1),
            True,
            False,
            "Refused by the provider",
            "bad",
        ),
        (
            FeedHealth(NOW, None, NOW, "x", "FeedDataInvalid", 1),
            True,
            False,
            "Answer not valid",
            "warn",
        ),
    ],
)
def test_a_feed_says_how_it_does(
    health: FeedHealth, known: bool, stale: bool, text: str, tone: str
) -> None:
    row = feed_row(_feed_view(health, known=known, stale=stale))
    assert (row.state.text, row.state.tone) == (text, tone)
    assert row.error == health.last_error


def test_a_synthetic_value_is_labelled_and_has_its_unit() -> None:
    row = feed_row(_feed_view(FeedHealth(NOW, NOW)))
    assert row.value == "190\u202fgCO₂/kWh"
    assert [(label.text, label.tone) for label in row.kinds] == [("synthetic", "note")]


def test_a_value_that_has_run_out_is_shown_as_the_last() -> None:
    view = replace(_feed_view(FeedHealth(NOW, NOW)), current=None)
    row = feed_row(view)
    assert (row.value, row.last_value) == ("–", "190\u202fgCO₂/kWh")
    assert row.state.text == "No value for now"


@pytest.mark.parametrize(
    ("changes", "state", "alert"),
    [
        ({}, "Working", None),
        ({"stale": True}, "Stale", "f is stale, its last good answer 60\u202fs old: plans rest on"),
        ({"stale": True, "latest": None, "current": None}, "Stale", "plans go without it"),
        ({"stale": True, "age_s": None}, "Stale", "f has never answered: plans go without it"),
        (
            {"late": True, "rhythm": Rhythm(1800, 600)},
            "Late",
            "f is late: its provider gives new values every 30\u202fmin, and did not",
        ),
    ],
)
def test_a_feed_that_plans_suffer_from_is_said(
    changes: dict[str, object], state: str, alert: str | None
) -> None:
    view = replace(_feed_view(FeedHealth(NOW, NOW)), **changes)  # type: ignore[arg-type]
    row = feed_row(view)
    assert row.state.text == state
    assert feed_alerts([view]) == ((row.alert,) if row.alert else ())
    assert (row.alert is None) == (alert is None)
    assert (alert or "") in (row.alert or "")


def test_feeds_that_no_plan_uses_or_that_are_new_give_no_alert() -> None:
    stale = _feed_view(FeedHealth(NOW, NOW), stale=True)
    marginal = replace(stale.feed, quantity=Quantity.MARGINAL_INTENSITY)
    assert feed_alerts([replace(stale, feed=marginal), replace(stale, health=FeedHealth())]) == ()


def test_what_is_to_be_known_of_the_provider() -> None:
    view = _feed_view(FeedHealth(NOW, NOW, clock_skew_s=-300.0))
    assert feed_row(view).notes == ("the provider's clock is 5\u202fmin behind ours",)
    close = replace(view, health=FeedHealth(NOW, NOW, clock_skew_s=30.0))
    assert feed_row(close).notes == ()
    for state, words in (
        (BreakerState.OPEN, "is not asked for now"),
        (BreakerState.HALF_OPEN, "is to be tried again"),
    ):
        provider = ProviderView("neso:host", state, 6, NOW)
        (note,) = feed_row(replace(close, provider=provider)).notes
        assert note == f"neso:host {words}, after 6 failures in a row"


def _plan(limits_w: list[float]) -> Plan:
    intervals = tuple(
        BudgetInterval(
            interval=Interval(NOW + HOUR * k, NOW + HOUR * (k + 1)),
            limit_w=limit_w,
            reason=Reason.MINIMUM,
            explanation="because",
            price_per_mwh=None,
            carbon_g_per_kwh=None,
            demand_tokens_per_s=0,
            planned_tokens_per_s=0,
            expected_power_w=0,
        )
        for k, limit_w in enumerate(limits_w)
    )
    return Plan(1, 1, 7, NOW, "schedule", (), PowerBudget("first", intervals))


def test_the_budget_tells_its_next_change() -> None:
    budget = budget_now(_plan([500, 500.4, 800]), POLICY, NOW)
    assert (budget.limit_w, budget.reason) == (500, "Site minimum")
    assert (budget.until, budget.next_limit_w) == (NOW + 2 * HOUR, 800)


@pytest.mark.parametrize(("plan", "reason"), [(None, "No plan"), (_plan([5]), "run out")])
def test_without_a_plan_that_covers_now_the_safe_limit_holds(
    plan: Plan | None, reason: str
) -> None:
    budget = budget_now(plan, POLICY, NOW + 2 * HOUR)
    assert budget.limit_w == POLICY.safe_limit_w
    assert reason in budget.reason


def _event(start_at: datetime, status: EventStatus = EventStatus.SCHEDULED) -> DemandResponseEvent:
    order = EventRequest("e", start_at, start_at + HOUR, limit_w=1)
    return DemandResponseEvent(1, 1, 1, status, order, 2, Origin.MEASURED, NOW)


def test_the_running_event_comes_before_the_next() -> None:
    running, later = _event(NOW - HOUR / 2), _event(NOW + HOUR)
    past, cancelled = _event(NOW - 2 * HOUR), _event(NOW, EventStatus.CANCELLED)
    found = event_now([later, past, cancelled, running], NOW)
    assert found is not None
    assert (found.event, found.label.text) == (running, "Active")
    found = event_now([past, cancelled, later], NOW)
    assert found is not None
    assert found.label.text == "Scheduled"
    assert event_now([past, cancelled], NOW) is None


def test_a_report_is_of_today_unless_asked() -> None:
    choice = read_choice({}, (), LOCAL)
    assert (choice.first, choice.last, choice.by) == (
        NOW.date(),
        NOW.date(),
        frozenset({"node", "model"}),
    )
    assert api_url("a", choice, "csv") == (
        "/api/v1/reports/energy?site=a&start_at=2026-03-02T00%3A00%3A00Z"
        "&end_at=2026-03-03T00%3A00%3A00Z&by=node%2Cmodel&format=csv"
    )


@pytest.mark.parametrize(
    ("query", "by", "message"),
    [
        ({"from": "yesterday"}, (), "from: must be a date"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, (), "to: must not be before"),
        ({"from": "2026-01-01", "to": "2026-03-01"}, ("hour",), "by hour is at most 31 days"),
        ({"from": "2024-01-01", "to": "2026-03-01"}, (), "at most 366 days"),
        ({}, ("rack",), "must be of node, model, hour"),
    ],
)
def test_a_report_that_cannot_be_is_refused(
    query: dict[str, str], by: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        read_choice(query, by, LOCAL)


def test_the_longest_report_by_hour_is_31_days() -> None:
    choice = read_choice({"from": "2026-01-01", "to": "2026-01-31"}, ("hour",), LOCAL)
    assert choice.last == date(2026, 1, 31)
