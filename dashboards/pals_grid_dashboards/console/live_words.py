"""Live grants in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.site import LiveGrants
from pals_grid_dashboards.console.formats import power

if TYPE_CHECKING:
    from pals_grid.core.live import OtherLoad, RoundRecord
    from pals_grid.service.live.views import LiveView

MODES = {LiveGrants.ON: "Live grants", LiveGrants.DRY_RUN: "Live grants, dry run"}


def live_line(view: LiveView) -> str:
    """What the last round did; nothing where live grants are off."""
    if view.mode is LiveGrants.OFF:
        return ""
    if not view.running or view.last is None:
        return f"{MODES[view.mode]}: no round is made now; nodes follow their plan."
    made = view.last.record
    parts = [f"{power(made.lent_w)} lent above the plan", f"{made.reached} of {made.nodes} nodes"]
    if made.quiet_for_s > 0:
        parts = [f"begins in {made.quiet_for_s:.0f}\u202fs, when earlier grants have run out"]
    return f"{MODES[view.mode]}: {', '.join([*parts, *_troubles(made), _other(made.other_load)])}."


def _troubles(made: RoundRecord) -> list[str]:
    found = []
    if made.excess_w >= 1:
        found.append(f"{power(made.excess_w)} above the budget until nodes have taken their cuts")
    if made.liars:
        found.append(f"{len(made.liars)} drawing more than granted")
    return found


def _other(other: OtherLoad) -> str:
    return f"{power(other.power_w)} kept for other load ({other.origin.value}: {other.source})"
