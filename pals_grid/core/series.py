"""Observed and forecast values over time, with the instant at which each was known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval, require_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime


class Quantity(StrEnum):
    """What a feed's values are; average and marginal carbon never share a field."""

    PRICE = "price"
    AVERAGE_INTENSITY = "average_intensity"
    MARGINAL_INTENSITY = "marginal_intensity"


class ValueKind(StrEnum):
    """How firm a value is.

    ``measured``: final for its source, metered or cleared (a published auction price is).
    ``forecast``: an estimate that the source may revise. ``modelled``: a forecast of our own,
    where the source has none. ``synthetic``: made up, for a demo. The first stands before the
    others, in this order.
    """

    MEASURED = "measured"
    FORECAST = "forecast"
    MODELLED = "modelled"
    SYNTHETIC = "synthetic"


KIND_RANK: Mapping[ValueKind, int] = {kind: -place for place, kind in enumerate(ValueKind)}
"""How firm each kind is; of two values the one of the higher rank counts."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One value over one half-open UTC interval.

    ``unit`` is ``<ISO 4217>/MWh`` for prices and ``gCO2eq/kWh`` for carbon intensity.
    ``known_at`` is when the value was known: the provider's publication time where it states
    one, else the time at which it was fetched.
    """

    start_at: datetime
    end_at: datetime
    value: float
    unit: str
    kind: ValueKind
    known_at: datetime

    def __post_init__(self) -> None:
        Interval(self.start_at, self.end_at)
        require_utc("known_at", self.known_at)
        if not math.isfinite(self.value):
            raise InvalidValue("value", self.value, "must be finite")

    @property
    def interval(self) -> Interval:
        """The interval that the value holds for."""
        return Interval(self.start_at, self.end_at)


def merge_kinds(observations: Iterable[Observation]) -> list[Observation]:
    """One value per start: the firmest kind (``KIND_RANK``), then the latest known.

    Returns them ordered by ``start_at``.
    """
    rank = KIND_RANK
    best: dict[datetime, Observation] = {}
    for item in observations:
        held = best.get(item.start_at)
        if held is None or (rank[item.kind], item.known_at) > (rank[held.kind], held.known_at):
            best[item.start_at] = item
    return sorted(best.values(), key=lambda item: item.start_at)


def touching(observations: Iterable[Observation], window: Interval) -> list[Observation]:
    """Return those that share time with ``window``, in their order."""
    return [item for item in observations if window.overlap_s(item.interval) > 0]


def last_of_kind(observations: Iterable[Observation]) -> list[Observation]:
    """One value per start and kind: of several, the last in their order.

    Returns them ordered by ``start_at`` and kind.
    """
    found = {(item.start_at, item.kind): item for item in observations}
    return [found[key] for key in sorted(found)]


def mean_over(observations: Sequence[Observation], interval: Interval) -> float | None:
    """Time-weighted mean of the values inside ``interval``; None where nothing covers it."""
    weight_s = 0.0
    total = 0.0
    for item in observations:
        shared_s = interval.overlap_s(item.interval)
        weight_s += shared_s
        total += shared_s * item.value
    return total / weight_s if weight_s > 0 else None


def coverage_ratio(observations: Iterable[Observation], interval: Interval) -> float:
    """Share of ``interval`` that non-overlapping observations cover, 0 to 1."""
    covered_s = sum(interval.overlap_s(item.interval) for item in observations)
    return min(1.0, covered_s / interval.duration_s)
