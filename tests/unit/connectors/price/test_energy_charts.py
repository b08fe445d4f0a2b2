import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pals_grid_connectors.price.energy_charts import EnergyCharts

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.guard import fetch_guarded, parse_guarded
from pals_grid.feeds.recorded import RecordedHttp

# The first quarter of an hour that was delivered by quarters.
START_AT = datetime(2025, 9, 30, 22, tzinfo=UTC)
URL = "https://energy-charts.example/price"


def answer(points: dict[int, object], unit: object = "EUR / MWh", **more: object) -> bytes:
    """Prices by the minute after the start."""
    start_s = round(START_AT.timestamp())
    document = {
        "license_info": "CC BY 4.0 from the grid's own agency",
        "unix_seconds": [start_s + 60 * minute for minute in points],
        "price": list(points.values()),
        "unit": unit,
        "deprecated": False,
    }
    return json.dumps(document | more).encode()


def values(payload: bytes) -> list[tuple[int, int, float]]:
    """Minute of the start, minutes, price."""
    return [
        (
            round((item.start_at - START_AT).total_seconds() / 60),
            round((item.end_at - item.start_at).total_seconds() / 60),
            item.value,
        )
        for item in parse_guarded(EnergyCharts({}), payload, START_AT)
    ]


def fetch(http: RecordedHttp, window: Interval, **options: str) -> list[float]:
    connector = EnergyCharts(
        {"zone": "DE-LU", "base_url": "https://energy-charts.example"} | options
    )
    return [i.value for i in fetch_guarded(connector, window, FetchContext(http, START_AT))]


def test_prices_are_measured_in_the_unit_that_is_named() -> None:
    (first, second) = parse_guarded(EnergyCharts({}), answer({0: -0.5, 60: 81}), START_AT)
    assert (first.start_at, first.end_at) == (START_AT, second.start_at)
    assert (first.value, second.value) == (-0.5, 81.0)
    assert {(i.unit, i.kind) for i in (first, second)} == {("EUR/MWh", ValueKind.MEASURED)}
    (zloty, _) = EnergyCharts({}).parse(answer({0: 1, 60: 2}, "PLN/MWh"), START_AT)
    assert zloty.unit == "PLN/MWh"
    assert EnergyCharts({}).quantity is Quantity.PRICE


@pytest.mark.parametrize("step", [15, 60])
def test_the_last_price_holds_as_long_as_the_one_before(step: int) -> None:
    assert values(answer({0: 1, step: 2})) == [(0, step, 1), (step, step, 2)]


def test_hours_turn_to_quarters_and_stay_so() -> None:
    points = {-120: 1, -60: 2, 0: 3, 15: 4, 30: 5, 90: 6, 150: 7}
    assert values(answer(dict(points))) == [
        (-120, 60, 1),
        (-60, 60, 2),
        (0, 15, 3),
        (15, 15, 4),
        (30, 15, 5),
        (90, 15, 6),
        (150, 15, 7),
    ]


def test_gaps_and_nulls_stay_gaps() -> None:
    assert values(answer({0: 1, 60: None, 120: 3, 240: 4})) == [
        (0, 60, 1),
        (120, 60, 3),
        (240, 60, 4),
    ]
    assert values(answer({0: 1, 15: None, 45: 3})) == [(0, 15, 1), (45, 15, 3)]
    assert values(answer({0: None, 15: None})) == values(answer({})) == []


@given(st.sets(st.integers(0, 200), min_size=2), st.sampled_from([15, 60]))
def test_no_price_is_lost_or_reaches_into_the_next(at: set[int], step: int) -> None:
    found = values(answer({step * index: index for index in sorted(at)}))
    assert [start for start, _, _ in found] == [step * index for index in sorted(at)]
    assert all(minutes <= 60 for _, minutes, _ in found)
    assert step == 15 or {minutes for _, minutes, _ in found} == {60}


@pytest.mark.parametrize(("first", "hours"), [("2025-03-29T23:00", 23), ("2025-10-25T22:00", 25)])
@pytest.mark.parametrize("step", [15, 60])
def test_days_of_23_and_25_hours(first: str, hours: int, step: int) -> None:
    first_at = datetime.fromisoformat(first).replace(tzinfo=UTC)
    offset = round((first_at - START_AT).total_seconds() / 60)
    points = {offset + minute: minute for minute in range(0, 60 * hours, step)}
    found = EnergyCharts({}).parse(answer(dict(points)), START_AT)
    assert len(found) == hours * 60 // step
    assert found[-1].end_at == first_at + timedelta(hours=hours)


def test_whole_days_are_asked_for_and_the_window_given() -> None:
    http = RecordedHttp({URL: answer({-60: 1, 0: 2, 15: 3, 30: 4})})
    window = Interval(START_AT + timedelta(minutes=20), START_AT + timedelta(hours=3))
    assert fetch(http, window) == [3.0, 4.0]
    assert http.asked == [
        (URL, {"bzn": "DE-LU", "start": "2025-09-30T00:00Z", "end": "2025-10-02T00:00Z"})
    ]


def test_the_zone_is_needed_to_fetch() -> None:
    window = Interval(START_AT, START_AT + timedelta(hours=1))
    with pytest.raises(FeedRejected, match="zone is needed"):
        fetch(RecordedHttp({}), window, zone="")


def test_errors_are_quoted() -> None:
    window = Interval(START_AT, START_AT + timedelta(hours=1))
    unknown = HttpResponse(URL, 404, {}, b'{"detail": "unknown bidding zone"}')
    with pytest.raises(FeedRejected, match=r"HTTP 404 .*unknown bidding zone"):
        fetch(RecordedHttp({URL: unknown}), window)
    busy = HttpResponse(URL, 429, {"retry-after": "60"}, b"too many requests")
    with pytest.raises(FeedUnavailable, match="too many requests") as caught:
        fetch(RecordedHttp({URL: busy}), window)
    assert caught.value.retry_after_s == 60


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (answer({0: 1}), "unix_seconds: must be two or more to tell their length"),
        (answer({0: 1, 10: 2}), "unix_seconds: must be quarters of an hour"),
        (answer({60: 1, 0: 2}), "unix_seconds: must be after"),
        (answer({0: 1, 60: 2}, unix_seconds=[0, 0]), "unix_seconds: must be after 0, got 0"),
        (answer({0: 1}, unix_seconds=["x"]), "unix_seconds: must be quarters"),
        (answer({0: 1}, unix_seconds=[1e300]), "unix_seconds: must be quarters"),
        (answer({0: 1, 60: 2}, price=[1]), "price: must be 2 values, got 1"),
        (answer({0: "many", 60: 2}), "price: must be a finite number, got 'many'"),
        (answer({0: 1, 60: 2}, unit="EUR"), "unit: must be <ISO 4217>/MWh, got 'EUR'"),
        (answer({0: 1, 60: 2}, unit=None), "unit: must be there and be a str"),
        (b'{"unix_seconds": []}', "price: must be there"),
        (b"null", "unix_seconds: must be there"),
    ],
)
def test_bad_answers_are_refused_naming_the_field(payload: bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=f"energy-charts: {problem}"):
        values(payload)


@pytest.mark.parametrize(("name", "value"), [("zone", "de lu"), ("base_url", "x"), ("key", "x")])
def test_impossible_options_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValue, match=rf"options\.{name}.*{value}"):
        EnergyCharts({name: value})
