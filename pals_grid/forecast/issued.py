"""What a forecaster is and says, as plain values: the service stores them, no package is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pals_grid.forecast.scoring import Score, Verdict


@dataclass(frozen=True, slots=True)
class History:
    """Final values as columns, times in seconds since the epoch, in any order."""

    starts_s: Sequence[float]
    ends_s: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Announced(History):
    """A series that tells of its future, such as day-ahead prices; ``known_s``: since when."""

    known_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained model, and how it did on the 28 days that were kept back from it.

    ``widths`` maps a bucket of leads to the factors of its two half-widths and the model's share of
    the median, the rest of which is the rival's; ``rival`` names the
    seasonal-naive forecast that did best on those days, ``told_by`` the announced series that the
    model is told, if any.
    """

    model: bytes
    widths: Mapping[str, Sequence[float]]
    rival: str
    hold_out: Sequence[Score]
    step_s: int
    history_start_s: int
    told_by: str = ""


@dataclass(frozen=True, slots=True)
class ForecastValue:
    """One step of a forecast, in the series' unit; times in seconds since the epoch.

    ``rival`` is the seasonal-naive value, None where it has none.
    """

    start_s: int
    end_s: int
    p10: float
    p50: float
    p90: float
    rival: float | None

    def taken(self, verdict: Verdict, begin_s: int) -> float | None:
        """What stands for this step of a forecast that begins at ``begin_s``.

        The median where the model is used, the rival's value in the other ranges of leads. None
        where neither stands.
        """
        if not verdict.is_used:
            return None
        return self.p50 if verdict.uses((self.end_s - begin_s) / 3600) else self.rival
