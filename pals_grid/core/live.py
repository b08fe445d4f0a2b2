"""What a live round saw and decided, and what a site's meter said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - stored records are read by their types

from pals_grid.core.fleet import Origin  # noqa: TC001 - the same
from pals_grid.core.site import LiveGrants  # noqa: TC001 - the same


@dataclass(frozen=True, slots=True)
class SiteReading:
    """Power at a site's grid connection, as its own meter has it."""

    at: datetime
    power_w: float
    source: str


@dataclass(frozen=True, slots=True)
class OtherLoad:
    """What a site draws beside its nodes, and how it is known; ``meter_age_s`` None: no meter."""

    power_w: float
    origin: Origin
    source: str
    meter_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round of one site. Power in W, at node boundary but ``budget_w`` and ``other_load``.

    ``allowed_w`` is what all nodes may be allowed when it began, ``draw_w`` what the ``heard``
    ones said that they draw, known as ``draw_origins`` say; ``lent_w`` what grants give nodes
    above their schedules. ``excess_w`` of ``allowed_w`` is above the budget less the other load:
    gone after ``excess_for_s``, None where leases do not bring it back. ``reached`` nodes take
    grants; ``behind`` ones have not acknowledged the newest plan. ``quiet_for_s`` is how long
    nothing is granted after a takeover.
    """

    mode: LiveGrants
    budget_w: float
    other_load: OtherLoad
    allowed_w: float
    draw_w: float
    lent_w: float
    excess_w: float
    excess_for_s: float | None
    nodes: int
    heard: int
    reached: int
    cuts: int
    raises: int
    liars: tuple[int, ...]
    quiet_for_s: float
    plan_version: int
    behind: int
    draw_origins: tuple[Origin, ...] = ()
