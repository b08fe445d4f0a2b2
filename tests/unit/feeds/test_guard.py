from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.errors import (
    FeedDataInvalid,
    FeedError,
    FeedRejected,
    FeedUnavailable,
    InvalidValue,
)
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import ConnectorOption, FetchContext, Pace, Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.feeds.guard import check_observations, fetch_guarded, parse_guarded
from pals_grid.feeds.recorded import RecordedHttp

START_AT = datetime(2025, 3, 1, tzinfo=UTC)
WINDOW = Interval(START_AT, START_AT + timedelta(days=1))
SECRET = "s3cret-token"


def value(
    start_h: float,
    amount: float = 10.0,
    *,
    hours: float = 1,
    kind: ValueKind = ValueKind.MEASURED,
    unit: str = "EUR/MWh",
    known_h: float = 0,
) -> Observation:
    start_at = START_AT + timedelta(hours=start_h)
    end_at = start_at + timedelta(hours=hours)
    return Observation(start_at, end_at, amount, unit, kind, START_AT + timedelta(hours=known_h))


@dataclass
class Gives:
    """A connector that gives what it is told, or raises it."""

    outcome: list[Observation] | Exception
    summary: ClassVar[str] = "for tests"
    needs_secret: ClassVar[bool] = False
    options: ClassVar[tuple[ConnectorOption, ...]] = ()
    pace: ClassVar[Pace | None] = None
    rhythm: ClassVar[Rhythm | None] = None
    quantity: Quantity = Quantity.PRICE

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        assert window.contains(context.fetched_at)
        return self.parse(b"", context.fetched_at)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        assert (payload, known_at) == (b"", START_AT)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def fetch(outcome: list[Observation] | Exception) -> list[Observation]:
    return fetch_guarded(
        Gives(outcome), WINDOW, FetchContext(RecordedHttp({}), START_AT, secret=SECRET)
    )


def test_values_come_ordered_and_once() -> None:
    forecast = value(1, kind=ValueKind.FORECAST)
    found = fetch([value(2), forecast, value(1), value(2)])
    assert found == [forecast, value(1), value(2)]
    assert parse_guarded(Gives([value(1)]), b"", START_AT) == [value(1)]


def test_revisions_of_one_interval_may_stand_together() -> None:
    revisions = [value(1, 10, known_h=-1), value(1, 11, known_h=0)]
    assert fetch(revisions) == revisions


def test_what_is_published_after_its_fetch_is_known_by_then() -> None:
    """A provider's clock is ahead: its revisions stay in order, and none is known too late."""
    revisions = [value(1, 10), value(1, 11, known_h=0.5), value(1, 12, known_h=1)]
    found = fetch(revisions)
    assert [item.value for item in found] == [10, 11, 12]
    assert found[-1].known_at == START_AT
    assert found[0].known_at < found[1].known_at < START_AT
    assert found[0].known_at > START_AT - timedelta(seconds=1)


def test_a_publication_far_in_the_future_is_refused() -> None:
    with pytest.raises(FeedDataInvalid, match="known_at: must be at most an hour after the fetch"):
        fetch([value(1), value(2, known_h=2)])


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([value(1, hours=2), value(2)], "measured 2025-03-01T01.*overlaps 2025-03-01T02"),
        ([value(1), value(1, hours=2, known_h=1)], "overlaps"),
        ([value(1, 10), value(1, 11)], "has two values: 10 and 11 EUR/MWh"),
        ([value(1, unit="EUR/kWh")], "unit: must be <ISO 4217>/MWh for price, got 'EUR/kWh'"),
        ([value(1, 100_001)], "must be from -100000 to 100000 EUR/MWh, got 100001"),
        ([value(1, -100_001)], "must be from -100000"),
    ],
)
def test_impossible_values_are_refused(values: list[Observation], problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=problem):
        fetch(values)


@pytest.mark.parametrize("quantity", [Quantity.AVERAGE_INTENSITY, Quantity.MARGINAL_INTENSITY])
def test_carbon_has_its_own_unit_and_bounds(quantity: Quantity) -> None:
    zero = value(1, 0, unit="gCO2eq/kWh")
    assert check_observations([zero], quantity) == [zero]
    for wrong in (value(1, -1, unit="gCO2eq/kWh"), value(1, 5001, unit="gCO2eq/kWh"), value(1)):
        with pytest.raises(FeedDataInvalid, match="must be"):
            check_observations([wrong], quantity)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("results"),
        ZeroDivisionError("by zero"),
        InvalidValue("zone", "XX", "must be a zone"),
        RecursionError("too deep"),
    ],
)
def test_foreign_exceptions_are_translated_with_the_connector_s_name(error: Exception) -> None:
    with pytest.raises(
        FeedDataInvalid, match=f"Gives failed on this answer: {type(error).__name__}"
    ):
        fetch(error)


@pytest.mark.parametrize(
    "error",
    [
        FeedUnavailable(f"no answer from x?k={SECRET}", 30.0),
        FeedRejected(f"token {SECRET} is wrong"),
        FeedDataInvalid(f"echo {SECRET}"),
        ValueError(f"bad url with {SECRET}"),
    ],
)
def test_no_message_holds_the_secret(error: Exception) -> None:
    with pytest.raises(FeedError) as caught:
        fetch(error)
    assert SECRET not in str(caught.value)
    assert "***" in str(caught.value)
    if isinstance(error, FeedError):
        assert type(caught.value) is type(error)
    if isinstance(caught.value, FeedUnavailable):
        assert caught.value.retry_after_s == 30.0


def test_feed_errors_pass_unchanged() -> None:
    error = FeedRejected("unknown zone")
    with pytest.raises(FeedRejected) as caught:
        fetch(error)
    assert caught.value is error


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4), st.sampled_from(ValueKind))))
def test_what_passes_is_ordered_and_apart_and_what_is_refused_was_not(
    spans: list[tuple[int, int, ValueKind]],
) -> None:
    values = [value(start, hours=hours, kind=kind) for start, hours, kind in spans]
    distinct = set(values)
    overlapping = any(
        one.kind is other.kind and one.interval.overlap_s(other.interval) > 0
        for one in distinct
        for other in distinct
        if one is not other
    )
    try:
        found = check_observations(values, Quantity.PRICE)
    except FeedDataInvalid:
        assert overlapping
        return
    assert not overlapping
    assert set(found) == distinct
    assert all(one.start_at <= other.start_at for one, other in pairwise(found))


@dataclass
class Tells(Gives):
    """A connector that tells what its payload holds."""

    holds: Quantity = Quantity.AVERAGE_INTENSITY

    def quantity_of(self, payload: bytes) -> Quantity:
        assert payload == b""
        return self.holds


def test_a_payload_may_hold_another_quantity_than_a_fetch_gives() -> None:
    carbon = value(1, unit="gCO2eq/kWh")
    assert parse_guarded(Tells([carbon]), b"", START_AT) == [carbon]
    with pytest.raises(FeedDataInvalid, match=r"unit: must be <ISO 4217>/MWh"):
        parse_guarded(Tells([carbon], holds=Quantity.PRICE), b"", START_AT)
    with pytest.raises(FeedDataInvalid, match=r"unit: must be gCO2eq/kWh"):
        parse_guarded(Tells([value(1)]), b"", START_AT)
    context = FetchContext(RecordedHttp({}), START_AT)
    with pytest.raises(FeedDataInvalid, match=r"unit: must be <ISO 4217>/MWh"):
        fetch_guarded(Tells([carbon]), WINDOW, context)
