"""How good forecasts were, and where they may be used: plain numbers, no packages."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAD_EDGES_H = (0.0, 1.0, 3.0, 6.0, 12.0, 18.0, 24.0, 48.0)
"""The record is kept, and judged, by lead: over the first edge, up to and with the second."""
_ROUNDING_H = 1e-6
MIN_VALUES = 100
"""Fewer forecasts whose values have come prove nothing."""
INTENDED_COVERAGE_RATIO = 0.8


@dataclass(frozen=True, slots=True)
class Score:
    """Forecasts of one range of leads beside what came.

    ``mae`` and ``rival_mae`` are mean absolute errors in the series' unit, over the same
    ``count`` values; ``coverage_ratio`` is the share of them from P10 to P90, 0.8 by intention.
    """

    over_h: float
    up_to_h: float
    count: int
    mae: float
    rival_mae: float
    coverage_ratio: float

    @property
    def gain_ratio(self) -> float:
        """By how much the error is below the rival's; negative where it is above."""
        return 1.0 - self.mae / self.rival_mae if self.rival_mae > 0 else 0.0


def pooled(scores: Sequence[Score]) -> Score | None:
    """All leads as one, weighted by their values; None without any."""
    count = sum(score.count for score in scores)
    if count == 0:
        return None

    def mean(name: str) -> float:
        return sum(float(getattr(score, name)) * score.count for score in scores) / count

    return Score(
        min(score.over_h for score in scores),
        max(score.up_to_h for score in scores),
        count,
        mean("mae"),
        mean("rival_mae"),
        mean("coverage_ratio"),
    )


@dataclass(frozen=True, slots=True)
class Band:
    """A range of leads: whether the model is used there; ``score`` is what decided, if anything."""

    over_h: float
    up_to_h: float
    is_used: bool
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a model is used, and why, in words; elsewhere the rival stands, if it is used at all.

    Leads count from the start of a forecast's first step.
    """

    is_used: bool
    reason: str
    bands: tuple[Band, ...] = ()

    def uses(self, lead_h: float) -> bool:
        """Whether the model is used for a step that ends ``lead_h`` after the forecast begins."""
        found = [band for band in self.bands if lead_h <= band.up_to_h + _ROUNDING_H]
        return self.is_used and (found or self.bands)[0 if found else -1].is_used


def judge(live: Sequence[Score], hold_out: Sequence[Score], *, rival: str, unit: str) -> Verdict:
    """Decide for each range of leads, by the live record, and by the hold-out up to 100 values.

    A model is used only where its error is below that of the seasonal-naive rival. A range whose
    record is young is not used, either, while the record of all leads is worse than the rival.
    Where nothing is known of a range, all leads together decide. With no range at all it is not
    used.
    """
    young = _of_enough(pooled(live))
    worse = None if young is None or _is_better(young) else young
    live = live if worse is None else [*live, worse]
    deciding: dict[tuple[float, float], Score | None] = {
        edges: _evidence(live, edges[1]) or worse or _evidence(hold_out, edges[1])
        for edges in pairwise(LEAD_EDGES_H)
    }
    scores = list(dict.fromkeys(score for score in deciding.values() if score is not None))
    everything = pooled(scores)
    if everything is None:
        return Verdict(is_used=False, reason="not used: too few values to judge it by")
    bands = tuple(
        Band(over_h, up_to_h, _is_better(score or everything), score)
        for (over_h, up_to_h), score in deciding.items()
    )
    better = pooled([score for score in scores if _is_better(score)])
    shown = better or everything
    source = _source(scores, live)
    text = (
        f"off by {shown.mae:.3g} {unit} on average, the naive rival ({rival}) by"
        f" {shown.rival_mae:.3g}, {source}"
    )
    if better is None:
        reason = f"not used, worse than the naive rival: {text}"
    elif all(band.is_used for band in bands):
        reason = f"used: {text}"
    else:
        reason = (
            f"used {_spans(bands, is_used=True)} ahead: {text}; {_spans(bands, is_used=False)}"
            f" ahead the naive rival ({rival}), which is better there"
        )
    return Verdict(better is not None, reason, bands)


def _evidence(scores: Sequence[Score], up_to_h: float) -> Score | None:
    """The score of the range that a lead lies in, if it rests on enough values."""
    found = [one for one in scores if one.over_h < up_to_h <= one.up_to_h]
    return _of_enough(found[0]) if found else None


def _of_enough(score: Score | None) -> Score | None:
    return score if score is not None and score.count >= MIN_VALUES else None


def _is_better(score: Score) -> bool:
    return score.mae < score.rival_mae


def _source(scores: Sequence[Score], live: Sequence[Score]) -> str:
    lived = sum(any(score is one for one in live) for score in scores)
    if lived == len(scores):
        return "on its record"
    return "on its record and the 28 days kept back" if lived else "on the 28 days kept back"


def _spans(bands: Sequence[Band], *, is_used: bool) -> str:
    """Ranges of leads in words, those that meet as one."""
    spans: list[tuple[float, float]] = []
    for band in bands:
        if band.is_used is not is_used:
            continue
        if spans and spans[-1][1] == band.over_h:
            spans[-1] = (spans[-1][0], band.up_to_h)
        else:
            spans.append((band.over_h, band.up_to_h))
    words = [f"{a:g} to {b:g} h" if a else f"up to {b:g} h" for a, b in spans]
    return " and ".join(words)
