"""A signal as it became known: slot values with the instant from which each could be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext
from pals_grid.evaluate.backtest.hour_ending import read_hour_ending
from pals_grid.evaluate.presets import CARBON_PRESETS, PRICE_PRESETS, file_options
from pals_grid.feeds.recorded import RecordedHttp
from pals_grid.feeds.registry import ConnectorRegistry

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from pals_grid.core.series import Observation
    from pals_grid.evaluate.backtest.config import Known, Series
    from pals_grid.evaluate.backtest.grid import Grid

    Floats = npt.NDArray[np.float64]

ALL_TIME = Interval(datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def known_at(item: Observation, known: Known, zone: ZoneInfo) -> datetime:
    """Instant from which a value may be seen, by the rule of its series."""
    if known.rule == "column":
        return item.known_at
    if known.rule == "after":
        return item.end_at + timedelta(seconds=known.lag_s)
    shift = timedelta(hours=known.day_shift_h)
    day = (item.start_at.astimezone(zone) + shift).date() - timedelta(days=1)
    at = datetime.combine(day, time.fromisoformat(known.published_at), zone)
    return at.astimezone(UTC)


@dataclass(frozen=True)
class Signal:
    """Revisions of slot values in the order in which they became known; NaN where there is none."""

    count: int
    known_s: Floats
    slots: npt.NDArray[np.int64]
    values: Floats

    @property
    def truth(self) -> Floats:
        """Every slot's value when all is known."""
        found = np.full(self.count, np.nan)
        found[self.slots] = self.values
        return found

    def view(self) -> View:
        """A view that knows nothing yet."""
        return View(self)


class View:
    """What is known of a signal; ``values`` are NaN for slots of which nothing is known."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._told = 0
        self._next_s = float(signal.known_s[0]) if len(signal.known_s) else math.inf
        self.values = np.full(signal.count, np.nan)

    def advance(self, now: datetime) -> None:
        """Tell everything that was known at ``now``; never goes back."""
        if now.timestamp() < self._next_s:
            return
        signal = self._signal
        until = int(np.searchsorted(signal.known_s, now.timestamp(), "right"))
        part = slice(self._told, until)
        self.values[signal.slots[part]] = signal.values[part]
        self._told = until
        self._next_s = float(signal.known_s[until]) if until < len(signal.known_s) else math.inf


def constant_signal(grid: Grid, value: float) -> Signal:
    """A value that is known from the beginning."""
    return Signal(
        grid.count, np.zeros(grid.count), np.arange(grid.count), np.full(grid.count, value)
    )


def load_signal(series: Series, quantity: str, grid: Grid, timezone: str, folder: Path) -> Signal:
    """Put a series on the grid.

    A slot has the value that holds at its start; values shorter than a slot are averaged, and
    known with the last of them.

    Raises:
        InvalidValue, FeedRejected, FeedDataInvalid: for a file that cannot be read.
    """
    zone = ZoneInfo(series.timezone or timezone)
    observations = [
        replace(item, known_at=known_at(item, series.known, zone))
        for item in _observations(series, quantity, zone, folder)
        if item.end_at > grid.edges[0] and item.start_at < grid.edges[-1]
    ]
    held = _held(_signal(_on_grid(observations, grid), grid), round(series.hold_s / grid.slot_s))
    return _signal(held, grid)


def _signal(columns: tuple[Floats, Floats, Floats], grid: Grid) -> Signal:
    """A signal from known times, slots and values in any order."""
    known_s, slots, values = columns
    order = np.argsort(known_s, kind="stable")
    return Signal(grid.count, known_s[order], slots[order].astype(np.int64), values[order])


def _held(signal: Signal, most: int) -> tuple[Floats, Floats, Floats]:
    """Add the value before each hole to its first ``most`` slots, known when that one was."""
    last = np.zeros(signal.count, int) - 1
    there = np.zeros(signal.count, bool)
    last[signal.slots] = np.arange(len(signal.slots))
    there[signal.slots] = True
    before = np.maximum.accumulate(np.where(there, np.arange(signal.count), -1))
    since = np.arange(signal.count) - before
    holes = np.flatnonzero(~there & (before >= 0) & (since <= most))
    source = last[before[holes]]
    return (
        np.concatenate([signal.known_s, signal.known_s[source]]),
        np.concatenate([signal.slots.astype(float), holes.astype(float)]),
        np.concatenate([signal.values, signal.values[source]]),
    )


def _on_grid(observations: list[Observation], grid: Grid) -> tuple[Floats, Floats, Floats]:
    starts = np.array([item.start_at.timestamp() for item in observations])
    ends = np.array([item.end_at.timestamp() for item in observations])
    values = np.array([item.value for item in observations])
    known = np.array([item.known_at.timestamp() for item in observations])
    if not len(starts):
        return known, np.array([]), values
    if float(np.median(ends - starts)) < grid.slot_s:
        return _averaged(starts, values, known, grid)
    first = np.ceil((starts - grid.start_s) / grid.slot_s).astype(int)
    last = np.ceil((ends - grid.start_s) / grid.slot_s).astype(int)
    lengths = last - first
    slots = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    inside = (slots >= 0) & (slots < grid.count)
    return (
        np.repeat(known, lengths)[inside],
        slots[inside].astype(float),
        np.repeat(values, lengths)[inside],
    )


def _averaged(
    starts: Floats, values: Floats, known: Floats, grid: Grid
) -> tuple[Floats, Floats, Floats]:
    slots = ((starts - grid.start_s) // grid.slot_s).astype(int)
    inside = (slots >= 0) & (slots < grid.count)
    slots, values, known = slots[inside], values[inside], known[inside]
    sums = np.bincount(slots, values, grid.count)
    counts = np.bincount(slots, minlength=grid.count)
    latest = np.zeros(grid.count)
    np.maximum.at(latest, slots, known)
    there = np.flatnonzero(counts)
    return latest[there], there.astype(float), sums[there] / counts[there]


def _observations(
    series: Series, quantity: str, zone: ZoneInfo, folder: Path
) -> tuple[Observation, ...]:
    path = (folder / series.path).resolve()
    if series.hour_ending is not None:
        return read_hour_ending(path, series.hour_ending, series.mapping or {}, zone)
    presets = PRICE_PRESETS if quantity == "price" else CARBON_PRESETS
    options = file_options(f"{quantity}.path", path, quantity, series.mapping, presets)
    return _read(tuple(sorted(options.items())))


@lru_cache(maxsize=8)
def _read(options: tuple[tuple[str, str], ...]) -> tuple[Observation, ...]:
    connector = ConnectorRegistry().create("file", dict(options))
    context = FetchContext(RecordedHttp({}), ALL_TIME.start_at)
    return tuple(connector.fetch(ALL_TIME, context))


def require_covered(name: str, signal: Signal, grid: Grid, first: int, last: int) -> None:
    """Refuse a signal without values from slot ``first`` to before ``last``.

    Raises:
        InvalidValue: naming the first slot without a value.
    """
    missing = np.flatnonzero(np.isnan(signal.truth[first:last]))
    if len(missing):
        at = grid.edges[first + int(missing[0])].isoformat()
        bound = f"must have a value for every slot; {len(missing)} have none"
        raise InvalidValue(f"{name} at {at}", None, bound)
