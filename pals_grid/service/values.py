"""A feed's values on an even grid: over days, months, a year, in one answer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import Conflict, InvalidValue
from pals_grid.core.intervals import Interval, floor_to, slots
from pals_grid.feeds.slotting import slot_covers
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.observation_days import QUARTERS, ObservationDay, ObservationDayRepository
from pals_grid.store.observations import ObservationRepository

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date, datetime

    from sqlalchemy import Connection

    from pals_grid.core.feed import Feed
    from pals_grid.core.series import Observation
    from pals_grid.feeds.slotting import SlotCover
    from pals_grid.service.context import Context

QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)
MIN_STEP_S, MAX_STEP_S = 60, 86_400
MAX_SLOTS = 40_000
"""A year of quarter-hours, and some more."""


@dataclass(frozen=True, slots=True)
class FeedValues:
    """One value a slot of ``step_s``, the first at ``interval.start_at``; None where there is none.

    Each is the time-weighted mean of the best values in its slot, over the part that they cover.
    ``unit`` is None where there is no value at all.
    """

    feed: Feed
    interval: Interval
    step_s: int
    unit: str | None
    values: Sequence[float | None]


def load_values(
    context: Context,
    feed_id: int,
    interval: Interval,
    step_s: int = 900,
    as_of: datetime | None = None,
) -> FeedValues:
    """Values over ``interval``, widened to whole slots of the grid of ``step_s`` since the epoch.

    Measured goes before forecast before synthetic, then the value known last, as recorded up to
    ``as_of``; as now where that is None, which for steps of whole quarter-hours is fast.

    Raises:
        NotFound: no such feed.
        InvalidValue: for a step that is out of bounds, or too small for the interval.
        Conflict: where values are in several units.
    """
    grid = _grid(interval, step_s)
    with context.database.read() as connection:
        feed = FeedRepository(connection).load(feed_id)
        if as_of is None and step_s % QUARTER.total_seconds() == 0:
            unit, quarters = _load_quarters(connection, feed_id, grid, context.clock.now())
            values = _join(quarters, step_s // 900)
        else:
            at = as_of or context.clock.now()
            known = ObservationRepository(connection).load_known([feed_id], grid, at)[feed_id]
            unit = _only_unit({item.unit for item in known})
            steps = list(slots(grid.start_at, grid.end_at, timedelta(seconds=step_s)))
            values = [cover.mean for cover in slot_covers(known, steps)]
    return FeedValues(feed, grid, step_s, unit, values)


def record_observations(
    connection: Connection, feed_id: int, found: Sequence[Observation], recorded_at: datetime
) -> int:
    """Store what is new and bring the days that it touches up to date; return how many are new.

    Raises:
        InvalidValue: as ``ObservationRepository.add``.
    """
    stored = ObservationRepository(connection).add(feed_id, found, recorded_at)
    if stored:
        start_at = floor_to(min(item.start_at for item in found), DAY)
        whole = Interval(start_at, _ceil(max(item.end_at for item in found), DAY))
        # Days with two units are made, and refused, when somebody asks for them.
        with suppress(Conflict):
            days = _make_days(connection, feed_id, whole, recorded_at)
            with_values = [day for day in days if day.unit is not None]
            ObservationDayRepository(connection).put(feed_id, with_values)
    return stored


def _grid(interval: Interval, step_s: int) -> Interval:
    if not MIN_STEP_S <= step_s <= MAX_STEP_S:
        raise InvalidValue("step_s", step_s, f"must be from {MIN_STEP_S} to {MAX_STEP_S}")
    step = timedelta(seconds=step_s)
    grid = Interval(floor_to(interval.start_at, step), _ceil(interval.end_at, step))
    if grid.duration_s > MAX_SLOTS * step_s:
        bound = f"must be at least {grid.duration_s / MAX_SLOTS:.0f} over this interval"
        raise InvalidValue("step_s", step_s, bound)
    return grid


def _load_quarters(
    connection: Connection, feed_id: int, grid: Interval, now: datetime
) -> tuple[str | None, _Quarters]:
    """Quarter-hours over ``grid``, from the days held and, where there is none, made now."""
    whole = Interval(floor_to(grid.start_at, DAY), _ceil(grid.end_at, DAY))
    first, last = whole.start_at.date(), (whole.end_at - DAY).date()
    held = ObservationDayRepository(connection).load(feed_id, first, last)
    days = {day.day: day for day in held}
    for gap in _gaps(whole, days):
        made = _make_days(connection, feed_id, gap, now)
        days |= {day.day: day for day in made}
    ordered = [days[day] for day in sorted(days)]
    unit = _only_unit({day.unit for day in ordered if day.unit is not None})
    begin = round((grid.start_at - whole.start_at) / QUARTER)
    return unit, _Quarters(ordered, begin, begin + round(grid.duration_s / 900))


@dataclass(frozen=True, slots=True)
class _Quarters:
    """The quarter-hours ``begin`` to ``end`` of days that follow each other."""

    days: Sequence[ObservationDay]
    begin: int
    end: int

    def means(self) -> list[float | None]:
        """Return the means alone."""
        found: list[float | None] = []
        for day in self.days:
            found += day.means
        return found[self.begin : self.end]

    def covered_s(self) -> list[float]:
        """Return the seconds that each mean stands for."""
        found: list[float] = []
        for day in self.days:
            whole = QUARTER.total_seconds()
            given = [0.0 if mean is None else whole for mean in day.means]
            found += given if day.covered_s is None else day.covered_s
        return found[self.begin : self.end]


def _join(quarters: _Quarters, count: int) -> list[float | None]:
    """Means of ``count`` quarter-hours each, weighted by what they stand for."""
    means = quarters.means()
    if count == 1:
        return means
    weights = quarters.covered_s()
    found: list[float | None] = []
    for begin in range(0, len(means), count):
        part = slice(begin, begin + count)
        pairs = [(m, w) for m, w in zip(means[part], weights[part], strict=True) if m is not None]
        weight_s = sum(weight for _, weight in pairs)
        found.append(sum(mean * weight for mean, weight in pairs) / weight_s if pairs else None)
    return found


def _gaps(whole: Interval, held: dict[date, ObservationDay]) -> Iterator[Interval]:
    """Runs of days inside ``whole`` that are not held."""
    begun: datetime | None = None
    for day in slots(whole.start_at, whole.end_at, DAY):
        if day.start_at.date() not in held:
            begun = begun or day.start_at
        elif begun is not None:
            yield Interval(begun, day.start_at)
            begun = None
    if begun is not None:
        yield Interval(begun, whole.end_at)


def _make_days(
    connection: Connection, feed_id: int, whole: Interval, as_of: datetime
) -> list[ObservationDay]:
    known = ObservationRepository(connection).load_known([feed_id], whole, as_of)[feed_id]
    unit = _only_unit({item.unit for item in known})
    covers = slot_covers(known, list(slots(whole.start_at, whole.end_at, QUARTER)))
    return [
        _make_day(day.start_at, unit, covers[i * QUARTERS : (i + 1) * QUARTERS])
        for i, day in enumerate(slots(whole.start_at, whole.end_at, DAY))
    ]


def _make_day(start_at: datetime, unit: str | None, covers: Sequence[SlotCover]) -> ObservationDay:
    means = [cover.mean for cover in covers]
    whole_s = QUARTER.total_seconds()
    if all(cover.covered_s in {0.0, whole_s} for cover in covers):
        covered_s = None
    else:
        covered_s = [cover.covered_s for cover in covers]
    has_value = any(mean is not None for mean in means)
    return ObservationDay(
        start_at.astimezone(UTC).date(), unit if has_value else None, means, covered_s
    )


def _only_unit(units: set[str]) -> str | None:
    if len(units) > 1:
        shown = " and ".join(sorted(units))
        raise Conflict(f"unit: values are in {shown}; ask for an interval with one of them")
    return next(iter(units), None)


def _ceil(instant: datetime, step: timedelta) -> datetime:
    floor_at = floor_to(instant, step)
    return floor_at if floor_at == instant else floor_at + step
