from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fallback import (
    Absence,
    FromConstant,
    FromFeed,
    FromLastWeek,
    SourceKind,
    check_chain,
    read_fallback,
    write_fallback,
)
from pals_grid.core.feed import Feed, FeedHealth
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.core.substitution import source_words
from pals_grid.feeds.fallback import Candidate, Sought, chain_of, resolve_slots, weeks_before

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.fallback import Fallback, SlotSource

T0 = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)
AMSTERDAM = ZoneInfo("Europe/Amsterdam")
SLOTS = [Interval(T0 + i * HOUR, T0 + (i + 1) * HOUR) for i in range(4)]
WORKS = FeedHealth(last_attempt_at=T0, last_success_at=T0)


def _values(
    *numbers: float | None, start_at: datetime = T0, kind: str = "measured", unit: str = "EUR/MWh"
) -> list[Observation]:
    return [
        Observation(start_at + i * HOUR, start_at + (i + 1) * HOUR, one, unit, ValueKind(kind), T0)
        for i, one in enumerate(numbers)
        if one is not None
    ]


def _candidate(
    feed_id: int,
    name: str,
    values: Sequence[Observation] = (),
    chain: tuple[Fallback, ...] = (),
    health: FeedHealth = WORKS,
) -> Candidate:
    feed = Feed(feed_id, 1, name, "file", Quantity.PRICE, {}, None, 900, 7200, T0, fallbacks=chain)
    return Candidate(feed, health, values)


def _resolve(
    candidates: list[Candidate], history: Sequence[Observation] = (), now: datetime = T0
) -> list[SlotSource | None]:
    chain = chain_of(candidates)
    assert chain is not None
    sought = Sought(
        SLOTS,
        now,
        AMSTERDAM,
        "EUR/MWh",
        lambda interval: [h for h in history if interval.overlap_s(h.interval) > 0],
    )
    return resolve_slots(chain, sought)


def _told(sources: list[SlotSource | None]) -> list[tuple[str, float] | None]:
    return [None if s is None else (s.kind.value, s.value) for s in sources]


def test_chain_is_asked_in_its_order_slot_by_slot() -> None:
    chain = (FromFeed("second"), FromLastWeek(1), FromConstant(80))
    primary = _candidate(1, "day-ahead", _values(50), chain)
    second = _candidate(2, "second", _values(None, 60))
    history = _values(None, None, 70, start_at=T0 - WEEK)
    assert _told(_resolve([primary, second], history)) == [
        ("primary", 50),
        ("feed", 60),
        ("last_week", 70),
        ("constant", 80),
    ]


def test_our_model_comes_after_other_feeds_and_before_last_week_and_a_constant() -> None:
    chain = (FromFeed("second"), FromLastWeek(1), FromConstant(80))
    feed = _candidate(1, "day-ahead", (), chain).feed
    modelled = _values(10, 55, 65, kind="modelled")
    primary = Candidate(feed, WORKS, _values(50), modelled=modelled)
    second = _candidate(2, "second", _values(None, 60))
    history = _values(None, None, 70, start_at=T0 - WEEK)
    found = _resolve([primary, second], history)
    assert _told(found) == [("primary", 50), ("feed", 60), ("model", 65), ("constant", 80)]
    assert found[2] is not None
    assert (found[2].value_kind, found[2].is_substitute) == (ValueKind.MODELLED, True)
    assert source_words(found[2]) == "from our model of day-ahead"


def test_a_model_stands_in_also_without_a_chain() -> None:
    feed = _candidate(1, "day-ahead").feed
    alone = Candidate(feed, WORKS, _values(50), modelled=_values(10, 55, kind="modelled"))
    assert _told(_resolve([alone])) == [("primary", 50), ("model", 55), None, None]


def test_our_model_goes_before_what_is_made_up() -> None:
    feed = _candidate(1, "day-ahead").feed
    primary = Candidate(feed, WORKS, _values(50), modelled=_values(10, 55, kind="modelled"))
    made_up = _candidate(2, "demo", _values(1, 2, 3, kind="synthetic"))
    assert _told(_resolve([primary, made_up])) == [
        ("primary", 50),
        ("model", 55),
        ("feed", 3),
        None,
    ]


def test_every_substitute_says_for_whom_and_why() -> None:
    primary = _candidate(1, "day-ahead", _values(50), (FromConstant(80),))
    found = _resolve([primary])
    assert found[0] is not None
    assert (found[0].primary, found[0].absence, found[0].is_substitute) == (
        "day-ahead",
        None,
        False,
    )
    assert found[1] is not None
    assert (found[1].primary, found[1].absence) == ("day-ahead", Absence.NOT_PUBLISHED)
    assert (found[1].unit, found[1].feed_id, found[1].value_kind) == ("EUR/MWh", 1, None)


@pytest.mark.parametrize(
    ("health", "absence", "since_at"),
    [
        (FeedHealth(), Absence.NEVER_ANSWERED, None),
        (FeedHealth(last_success_at=T0), Absence.NOT_PUBLISHED, None),
        (FeedHealth(last_success_at=T0, consecutive_failures=1), Absence.SILENT, T0),
        (FeedHealth(last_success_at=T0 - 3 * HOUR), Absence.SILENT, T0 - 3 * HOUR),
    ],
)
def test_absence_is_read_from_health(
    health: FeedHealth, absence: Absence, since_at: datetime | None
) -> None:
    source = _resolve([_candidate(1, "p", (), (FromConstant(1),), health)])[0]
    assert source is not None
    assert (source.absence, source.silent_since_at) == (absence, since_at)


def test_price_in_a_currency_that_nothing_converts_is_named_as_such() -> None:
    odd = _values(500, unit="NOK/MWh")
    feed = _candidate(1, "p", (), (FromConstant(1),)).feed
    source = _resolve([Candidate(feed, WORKS, (), odd)])[0]
    assert source is not None
    assert source.absence is Absence.NOT_CONVERTIBLE


def test_last_week_is_measured_and_whole_or_the_week_before() -> None:
    primary = _candidate(1, "p", (), (FromLastWeek(3),))
    half = Observation(T0 - WEEK, T0 - WEEK + HOUR / 2, 1.0, "EUR/MWh", ValueKind.MEASURED, T0)
    older = _values(2, 3, start_at=T0 - 2 * WEEK)
    oldest = _values(9, 9, 4, start_at=T0 - 3 * WEEK)
    found = _resolve([primary], [*oldest, *older, half])
    assert _told(found) == [("last_week", 2), ("last_week", 3), ("last_week", 4), None]
    assert [s.weeks_back for s in found if s] == [2, 2, 3]
    assert found[0] is not None
    assert found[0].taken_from == Interval(T0 - 2 * WEEK, T0 - 2 * WEEK + HOUR)


def test_last_week_is_the_same_local_time_across_a_clock_change() -> None:
    slot = Interval(datetime(2026, 3, 30, 16, tzinfo=UTC), datetime(2026, 3, 30, 17, tzinfo=UTC))
    before = weeks_before(slot, 1, AMSTERDAM)
    assert before.start_at == datetime(2026, 3, 23, 17, tzinfo=UTC)  # 18:00 on both days
    assert before.duration_s == 3600


def test_without_a_chain_the_first_real_feed_is_asked_and_the_others_stand_in() -> None:
    made_up = _candidate(1, "made-up", _values(1, 1, 1, 1, kind="synthetic"))
    live, other = _candidate(2, "live", _values(50)), _candidate(3, "other", _values(60, 61))
    found = _resolve([made_up, live, other])
    assert _told(found) == [("primary", 50), ("feed", 61), ("feed", 1), ("feed", 1)]
    assert {s.primary for s in found if s} == {"live"}
    assert found[2] is not None
    assert found[2].value_kind is ValueKind.SYNTHETIC


def test_feed_without_any_value_is_still_the_one_that_others_stand_in_for() -> None:
    made_up = _candidate(1, "made-up", _values(1, kind="synthetic"))
    live = _candidate(2, "live", health=FeedHealth())
    source = _resolve([made_up, live])[0]
    assert source is not None
    assert (source.kind, source.primary, source.absence) == (
        SourceKind.FEED,
        "live",
        Absence.NEVER_ANSWERED,
    )


def test_chain_makes_its_feed_the_primary_and_leaves_others_out() -> None:
    older = _candidate(1, "older", _values(1, 1, 1, 1))
    second = _candidate(2, "second", _values(None, 60))
    chosen = _candidate(3, "chosen", _values(50), (FromFeed("second"),))
    assert _told(_resolve([older, second, chosen])) == [
        ("primary", 50),
        ("feed", 60),
        None,
        None,
    ]


def test_values_of_two_currencies_are_never_averaged() -> None:
    half = timedelta(minutes=30)
    mixed = [
        Observation(T0, T0 + half, 10.0, "EUR/MWh", ValueKind.MEASURED, T0),
        Observation(T0 + half, T0 + HOUR, 99.0, "GBP/MWh", ValueKind.MEASURED, T0),
    ]
    source = _resolve([_candidate(1, "p", mixed)])[0]
    assert source is not None
    assert (source.value, source.unit) == (10, "EUR/MWh")


@pytest.mark.parametrize("item", [FromFeed("b"), FromLastWeek(2), FromConstant(-5.5)])
def test_entries_are_read_back_the_same(item: Fallback) -> None:
    assert read_fallback(write_fallback(item)) == item


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"feed": "b", "weeks": 2}, "fallbacks: must be"),
        ({"last_week": False}, "fallbacks: must be"),
        ({"constant": True}, "fallbacks: must be"),
        ({"constant": float("nan")}, "constant: must be from"),
        ({"last_week": True, "weeks": 9}, "weeks: must be from 1 to 8, got 9"),
        ("last-week", "fallbacks: must be"),
    ],
)
def test_bad_entries_are_refused(document: object, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        read_fallback(document)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([FromFeed("a")], r"fallbacks\[0\].feed: must be another feed, got 'a'"),
        ([FromFeed("z")], r"another feed of the same quantity \(b, c\), got 'z'"),
        ([FromFeed("b")], r"must not lead back to 'a': that is a circle, got 'b'"),
        ([FromLastWeek(1), FromLastWeek(2)], r"fallbacks\[1\]: must be given once"),
        ([FromConstant(1), FromLastWeek(2)], r"fallbacks\[1\]: must not stand behind a constant"),
        ([FromFeed(f"f{i}") for i in range(9)], "fallbacks: must have at most 8 entries, got 9"),
    ],
)
def test_bad_chains_are_named(chain: list[Fallback], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        check_chain("a", chain, {"b": ["c"], "c": ["a"]})


def test_good_chain_passes() -> None:
    chain: list[Fallback] = [FromFeed("b"), FromLastWeek(), FromConstant(1)]
    check_chain("a", chain, {"b": ["c"], "c": []})
