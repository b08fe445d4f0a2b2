from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from pals_grid.core.budget import PlanSlot
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.core.site import SitePolicy
from pals_grid.planner.grid import cut_slots, event_edges, plan_intervals

NOW = datetime(2026, 3, 2, 10, 7, tzinfo=UTC)
POLICY = SitePolicy(
    slug="s", name="S", grid_connection_w=1e4, minimum_w=0.0, safe_limit_w=0.0, horizon_s=7200.0
)
EVENT = DemandResponseEvent(
    id=1,
    site_id=1,
    version=1,
    status=EventStatus.SCHEDULED,
    order=EventRequest(
        name="e",
        start_at=NOW + timedelta(minutes=30),
        end_at=NOW + timedelta(minutes=50),
        limit_w=1.0,
        ramp_s=60.0,
    ),
    reference_w=1e4,
    reference_origin=Origin.MEASURED,
    created_at=NOW,
)


def test_the_grid_begins_with_the_current_slot_and_covers_the_horizon() -> None:
    intervals = plan_intervals(POLICY, NOW, ())
    assert intervals[0] == Interval(NOW.replace(minute=0), NOW.replace(minute=30))
    assert intervals[-1].end_at == NOW + timedelta(hours=2)
    assert all(a.end_at == b.start_at for a, b in pairwise(intervals))


def test_events_and_every_stair_of_their_ramps_cut_the_grid() -> None:
    edges = event_edges((EVENT,))
    assert len(edges) == 14
    cut = plan_intervals(POLICY, NOW, (EVENT,))
    starts = {interval.start_at for interval in cut}
    assert set(edges) <= starts
    assert all(a.end_at == b.start_at for a, b in pairwise(cut))


def test_a_cancelled_event_cuts_nothing() -> None:
    cancelled = replace(EVENT, status=EventStatus.CANCELLED)
    assert plan_intervals(POLICY, NOW, (cancelled,)) == plan_intervals(POLICY, NOW, ())


def test_parts_of_a_cut_slot_keep_its_values_and_cutting_twice_changes_nothing() -> None:
    slot = PlanSlot(Interval(NOW, NOW + timedelta(hours=1)), 10.0, None, 5.0)
    parts = cut_slots((slot,), (EVENT,))
    assert {(part.price_per_mwh, part.demand_tokens_per_s) for part in parts} == {(10.0, 5.0)}
    assert sum(part.interval.duration_s for part in parts) == 3600
    assert cut_slots(parts, (EVENT,)) == parts
