"""What a site draws beside its nodes: cooling, losses, everything that no node reports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.core.fleet import Origin
from pals_grid.core.live import OtherLoad

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.live import SiteReading

FRESH_S = 15.0
RISE_S, FALL_S = 10.0, 60.0
MODEL = "stated other_load_w"


class OtherLoadEstimate:
    """The site meter's reading less what all nodes said last, never below 0, smoothed.

    Up with a time constant of 10 s, down with one of 60 s. A meter that falls silent leaves the
    larger of its last estimate and the stated figure.
    """

    def __init__(self) -> None:
        self._held_w: float | None = None
        self._at: datetime | None = None

    def observe(
        self,
        reading: SiteReading | None,
        nodes_w: float,
        stated_w: float,
        now: datetime,
        nodes_origin: Origin = Origin.MEASURED,
    ) -> OtherLoad:
        """Return what to keep free now. ``nodes_w`` is what the nodes draw, as they say.

        ``nodes_origin`` says how that is known: a difference is known no better than its parts.
        """
        if reading is None:
            return OtherLoad(stated_w, Origin.MODELLED, MODEL)
        age_s = (now - reading.at).total_seconds()
        if age_s > FRESH_S:
            power_w = max(stated_w, self._held_w or 0.0)
            return OtherLoad(power_w, Origin.MODELLED, f"{reading.source}, stale", age_s)
        if reading.at != self._at:
            self._take(max(0.0, reading.power_w - nodes_w), reading.at)
        return OtherLoad(self._held_w or 0.0, nodes_origin, reading.source, age_s)

    def _take(self, surplus_w: float, at: datetime) -> None:
        if self._held_w is None or self._at is None or at < self._at:
            self._held_w = surplus_w
        else:
            over_s = RISE_S if surplus_w > self._held_w else FALL_S
            passed_s = (at - self._at).total_seconds()
            self._held_w += (1 - math.exp(-passed_s / over_s)) * (surplus_w - self._held_w)
        self._at = at
