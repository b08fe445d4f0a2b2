from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.events import RAMP_STEPS, DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Origin

START = datetime(2026, 3, 2, 17, tzinfo=UTC)
ORDER = EventRequest(name="peak", start_at=START, end_at=START + timedelta(hours=1), limit_w=1000.0)
EVENT = DemandResponseEvent(
    id=1,
    site_id=1,
    version=1,
    status=EventStatus.SCHEDULED,
    order=ORDER,
    reference_w=3000.0,
    reference_origin=Origin.MEASURED,
    created_at=START - timedelta(hours=2),
)


def test_a_reduction_counts_from_the_frozen_reference() -> None:
    reduction = replace(ORDER, limit_w=None, reduction_ratio=0.25)
    assert replace(EVENT, order=reduction).ordered_w == 2250.0
    assert EVENT.ordered_w == 1000.0


def test_without_a_ramp_the_order_is_one_step() -> None:
    assert EVENT.limits(4000.0) == ((ORDER.event_interval, 1000.0),)


def test_the_order_never_raises_the_limit() -> None:
    assert EVENT.limits(800.0)[0][1] == 800.0


def test_stairs_are_never_above_the_straight_ramp() -> None:
    stairs = replace(EVENT, order=replace(ORDER, ramp_s=600.0)).limits(4000.0)
    assert len(stairs) == 2 * RAMP_STEPS + 1
    assert all(a.end_at == b.start_at for (a, _), (b, _) in pairwise(stairs))
    assert stairs[0][0].start_at == START - timedelta(seconds=600)
    assert stairs[-1][0].end_at == ORDER.end_at + timedelta(seconds=600)
    for interval, limit_w in stairs[:RAMP_STEPS]:
        left_s = (START - interval.end_at).total_seconds()
        assert limit_w <= 1000.0 + 3000.0 * left_s / 600.0 + 1e-6
    for interval, limit_w in stairs[RAMP_STEPS + 1 :]:
        gone_s = (interval.start_at - ORDER.end_at).total_seconds()
        assert limit_w <= 1000.0 + 3000.0 * gone_s / 600.0 + 1e-6


def test_a_cancelled_event_limits_nothing() -> None:
    assert replace(EVENT, status=EventStatus.CANCELLED).limits(4000.0) == ()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "  "}, "name"),
        ({"end_at": START}, "end_at"),
        ({"limit_w": None}, "limit_w, reduction_ratio"),
        ({"reduction_ratio": 0.5}, "limit_w, reduction_ratio"),
        ({"limit_w": -1.0}, "limit_w"),
        ({"limit_w": float("nan")}, "limit_w"),
        ({"limit_w": None, "reduction_ratio": 1.5}, "reduction_ratio"),
        ({"ramp_s": -1.0}, "ramp_s"),
        ({"notice_at": START + timedelta(seconds=1)}, "notice_at"),
    ],
)
def test_an_impossible_order_is_refused_by_field(change: dict[str, object], field: str) -> None:
    given: dict[str, object] = {
        "name": "peak",
        "start_at": START,
        "end_at": START + timedelta(hours=1),
        "limit_w": 1000.0,
    }
    with pytest.raises(InvalidValue) as caught:
        EventRequest(**(given | change))  # type: ignore[arg-type]
    assert caught.value.field == field
