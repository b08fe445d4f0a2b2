from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from pals_grid_dashboards.console.live_words import live_line

from pals_grid.core.fleet import Origin
from pals_grid.core.live import OtherLoad, RoundRecord
from pals_grid.core.site import LiveGrants
from pals_grid.service.live.views import LiveView
from pals_grid.store.grant_rounds import StoredRound

RECORD = RoundRecord(
    mode=LiveGrants.ON,
    budget_w=4000.0,
    other_load=OtherLoad(300.0, Origin.MEASURED, "meter 7", 2.0),
    allowed_w=3600.0,
    draw_w=3000.0,
    lent_w=800.0,
    excess_w=0.0,
    excess_for_s=None,
    nodes=4,
    heard=4,
    reached=3,
    cuts=1,
    raises=1,
    liars=(),
    quiet_for_s=0.0,
    plan_version=3,
    behind=0,
)


def line(record: RoundRecord, mode: LiveGrants = LiveGrants.ON, age_s: float = 3.0) -> str:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = live_line(LiveView(mode, StoredRound(at, age_s, 1, "a", record, 9, 2, 3)))
    return found.replace("\u202f", " ")


def test_a_round_is_one_line() -> None:
    assert line(RECORD) == (
        "Live grants: 800 W lent above the plan, 3 of 4 nodes, "
        "300 W kept for other load (measured: meter 7)."
    )


def test_trouble_is_named() -> None:
    found = line(replace(RECORD, excess_w=250.0, liars=(7, 9)))
    assert "250 W above the budget until nodes have taken their cuts" in found
    assert "2 drawing more than granted" in found


def test_what_does_not_happen_is_said() -> None:
    assert live_line(LiveView(LiveGrants.OFF, None)) == ""
    assert "no round is made now" in live_line(LiveView(LiveGrants.ON, None))
    assert "no round is made now" in line(RECORD, age_s=60.0)
    assert line(RECORD, LiveGrants.DRY_RUN).startswith("Live grants, dry run: ")
    assert "begins in 40 s" in line(replace(RECORD, quiet_for_s=40.0))
