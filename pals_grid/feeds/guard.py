"""The boundary that every value passes: ordered, unique, apart, in its unit, within bounds."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from pals_grid.core.errors import FeedDataInvalid, FeedError, FeedUnavailable
from pals_grid.core.ports import PayloadQuantity
from pals_grid.core.series import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import Connector, FetchContext
    from pals_grid.core.series import Observation

PRICE_UNIT = re.compile(r"[A-Z]{3}/MWh")
CARBON_UNIT = re.compile(r"gCO2eq/kWh")
# Far outside what any market or grid has seen: a value beyond is an error of unit or format.
PRICE_PER_MWH_BOUNDS = (-100_000.0, 100_000.0)
CARBON_G_PER_KWH_BOUNDS = (0.0, 5_000.0)
KNOWN_AHEAD_MAX = timedelta(hours=1)
RESOLUTION = timedelta(microseconds=1)


def fetch_guarded(
    connector: Connector, window: Interval, context: FetchContext
) -> list[Observation]:
    """Fetch through ``connector`` and check what it gives.

    Raises:
        FeedError: and nothing else, whatever the connector does; no message holds the secret.
    """

    def fetch() -> list[Observation]:
        found = known_by(connector.fetch(window, context), context.fetched_at)
        return check_observations(found, connector.quantity)

    return _guarded(connector, fetch, context.secret)


def parse_guarded(connector: Connector, payload: bytes, known_at: datetime) -> list[Observation]:
    """Parse one payload and check what comes out.

    A connector that reads several kinds of document says which quantity this one holds.

    Raises:
        FeedError: and nothing else, whatever the connector does.
    """

    def produce() -> list[Observation]:
        found = known_by(connector.parse(payload, known_at), known_at)
        if isinstance(connector, PayloadQuantity):
            return check_observations(found, connector.quantity_of(payload))
        return check_observations(found, connector.quantity)

    return _guarded(connector, produce, None)


def known_by(observations: Iterable[Observation], at: datetime) -> list[Observation]:
    """Values with ``known_at`` no later than ``at``, when they were in our hands.

    A provider whose clock is ahead states publications that are still to come. Stored so they
    would stand before every revision of the meantime; up to an hour they are taken as known at
    ``at``.

    Raises:
        FeedDataInvalid: for a publication more than an hour ahead: its time zone is wrong, and so
            may be those of the intervals.
    """
    found = list(observations)
    ahead = sorted({item.known_at for item in found if item.known_at >= at})
    if ahead and ahead[-1] - at > KNOWN_AHEAD_MAX:
        raise FeedDataInvalid(
            f"known_at: must be at most an hour after the fetch at {at.isoformat()}, "
            f"got {ahead[-1].isoformat()}"
        )
    # A microsecond apart, so that of several revisions the last stays the last.
    placed = {stamp: at - RESOLUTION * i for i, stamp in enumerate(reversed(ahead))}
    return [
        replace(item, known_at=placed[item.known_at]) if item.known_at in placed else item
        for item in found
    ]


def check_observations(
    observations: Iterable[Observation], quantity: Quantity
) -> list[Observation]:
    """Order by start, kind and ``known_at``, without exact duplicates.

    Two values of one interval and one kind may stand beside each other when they were known
    at different times: the later one revises the earlier one.

    Raises:
        FeedDataInvalid: for a wrong unit, a value out of bounds, intervals of one kind that
            overlap without being the same, or two values for one interval known at one time.
    """
    ordered = sorted(
        set(observations),
        # The value comes last so that a message about two of them is the same each time.
        key=lambda item: (item.kind, item.start_at, item.known_at, item.value),
    )
    for item in ordered:
        _check_value(item, quantity)
    for kind, of_kind in groupby(ordered, key=lambda item: item.kind):
        for earlier, later in pairwise(of_kind):
            _check_apart(kind, earlier, later)
    return sorted(ordered, key=lambda item: (item.start_at, item.kind, item.known_at))


def _guarded(
    connector: Connector, produce: Callable[[], list[Observation]], secret: str | None
) -> list[Observation]:
    name = type(connector).__name__
    try:
        return produce()
    except FeedError as error:
        raise _without_secret(error, secret) from None
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; it ends here
        message = f"{name} failed on this answer: {type(error).__name__}: {error}"
        raise _without_secret(FeedDataInvalid(message), secret) from None


def _without_secret(error: FeedError, secret: str | None) -> FeedError:
    if not secret or secret not in str(error):
        return error
    message = str(error).replace(secret, "***")
    if isinstance(error, FeedUnavailable):
        return type(error)(message, error.retry_after_s)
    return type(error)(message)


def _check_value(item: Observation, quantity: Quantity) -> None:
    is_price = quantity is Quantity.PRICE
    form = PRICE_UNIT if is_price else CARBON_UNIT
    if not form.fullmatch(item.unit):
        wanted = "<ISO 4217>/MWh" if is_price else "gCO2eq/kWh"
        raise FeedDataInvalid(f"unit: must be {wanted} for {quantity}, got {item.unit!r}")
    low, high = PRICE_PER_MWH_BOUNDS if is_price else CARBON_G_PER_KWH_BOUNDS
    if not low <= item.value <= high:
        raise FeedDataInvalid(
            f"value at {item.start_at.isoformat()}: must be from {low:g} to {high:g} {item.unit}, "
            f"got {item.value:g}"
        )


def _check_apart(kind: str, earlier: Observation, later: Observation) -> None:
    if later.start_at >= earlier.end_at:
        return
    same_interval = earlier.interval == later.interval
    if same_interval and earlier.known_at != later.known_at:
        return
    problem = "has two values" if same_interval else f"overlaps {_span(later)}"
    values = f"{earlier.value:g} and {later.value:g} {later.unit}"
    raise FeedDataInvalid(f"{kind} {_span(earlier)} {problem}: {values}")


def _span(item: Observation) -> str:
    return f"{item.start_at.isoformat()}/{item.end_at.isoformat()}"
