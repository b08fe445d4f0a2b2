"""Recorded values told as time passes: a connector that knows nothing of its file's future."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, ClassVar
from zoneinfo import ZoneInfo

from pals_grid.core.series import Quantity
from pals_grid.feeds.registry import ConnectorRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import Connector, ConnectorOption, FetchContext, Pace, Rhythm
    from pals_grid.core.series import Observation
    from pals_grid.feeds.registry import ConnectorType

DELIVERY_DAY_SHIFT = timedelta(hours=1)
AUCTION_TIME = time(16)


def day_ahead_known_at(start_at: datetime, zone: ZoneInfo) -> datetime:
    """When a half-hour's day-ahead price is taken to be known: 16:00 local the day before.

    The day of delivery runs from 23:00 to 23:00 local time, as Octopus Agile publishes it,
    between 16:00 and 20:00; the earliest time is assumed.
    """
    day = (start_at.astimezone(zone) + DELIVERY_DAY_SHIFT).date()
    return datetime.combine(day - timedelta(days=1), AUCTION_TIME, zone).astimezone(start_at.tzinfo)


class PastFile:
    """The ``file`` connector, read once, giving only what was known at ``fetched_at``.

    Prices without a column of their own for it get ``day_ahead_known_at``.
    """

    def __init__(self, inner: Connector, *, publishes: ZoneInfo | None) -> None:
        self._inner = inner
        self._publishes = publishes
        self._values: list[Observation] | None = None
        self._starts: list[datetime] = []

    summary: ClassVar[str] = "a file's values as they became known, for a replay"
    options: ClassVar[tuple[ConnectorOption, ...]] = ()
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    rhythm: ClassVar[Rhythm | None] = None

    @property
    def quantity(self) -> Quantity:
        """As the file's."""
        return self._inner.quantity

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Give what touches ``window`` and was known by then.

        Raises:
            FeedRejected, FeedDataInvalid: as the ``file`` connector.
        """
        if self._values is None:
            self._values = self._load(context, window)
            self._starts = [item.start_at for item in self._values]
        first = bisect_left(self._starts, window.start_at - timedelta(days=1))
        last = bisect_left(self._starts, window.end_at)
        return [
            item
            for item in self._values[first:last]
            if item.known_at <= context.fetched_at and window.overlap_s(item.interval) > 0
        ]

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Read a payload as the ``file`` connector does."""
        return self._inner.parse(payload, known_at)

    def _load(self, context: FetchContext, window: Interval) -> list[Observation]:
        everything = replace(
            window,
            start_at=window.start_at - timedelta(days=3660),
            end_at=window.end_at + timedelta(days=3660),
        )
        found = self._inner.fetch(everything, context)
        if self._publishes is None:
            return found
        zone = self._publishes
        return [replace(item, known_at=day_ahead_known_at(item.start_at, zone)) for item in found]


class _PastFiles:
    """What the registry takes for the ``file`` connector's class during a replay."""

    def __init__(self, kind: ConnectorType, timezone: str) -> None:
        self._kind = kind
        self._zone = ZoneInfo(timezone)
        self._made: dict[tuple[tuple[str, str], ...], PastFile] = {}

    @property
    def summary(self) -> str:
        return self._kind.summary

    @property
    def options(self) -> tuple[ConnectorOption, ...]:
        return self._kind.options

    @property
    def needs_secret(self) -> bool:
        return self._kind.needs_secret

    @property
    def pace(self) -> Pace | None:
        return self._kind.pace

    def __call__(self, options: Mapping[str, str]) -> Connector:
        key = tuple(sorted(options.items()))
        if key not in self._made:
            inner = self._kind(options)
            stamped = bool(options.get("known_at_column"))
            is_price = inner.quantity is Quantity.PRICE
            publishes = self._zone if is_price and not stamped else None
            self._made[key] = PastFile(inner, publishes=publishes)
        return self._made[key]


def past_registry(timezone: str) -> ConnectorRegistry:
    """Return a registry whose ``file`` connector tells its values as time passes."""
    files = _PastFiles(ConnectorRegistry().load("file"), timezone)
    return ConnectorRegistry({"file": lambda: files})
