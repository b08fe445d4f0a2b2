"""Document A75: the generation mix of a bidding zone as carbon."""

from datetime import UTC, datetime, timedelta

import pytest
from pals_grid_connectors.entsoe_zones import ZONES
from pals_grid_connectors.price.entsoe import FUELS, Entsoe

from pals_grid.core.errors import FeedDataInvalid
from pals_grid.core.intervals import Interval
from pals_grid.core.mix import Fuel
from pals_grid.core.ports import FetchContext
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.guard import parse_guarded
from pals_grid.feeds.recorded import RecordedHttp

START_AT = datetime(2025, 3, 1, 23, tzinfo=UTC)
BASE = "https://entsoe.example/api"
PRICES = (
    b"<Publication_MarketDocument><type>A44</type><TimeSeries>"
    b"<currency_Unit.name>EUR</currency_Unit.name><price_Measure_Unit.name>MWH"
    b"</price_Measure_Unit.name><Period><timeInterval><start>2025-03-01T23:00Z</start>"
    b"<end>2025-03-02T00:00Z</end></timeInterval><resolution>PT60M</resolution><Point>"
    b"<position>1</position><price.amount>-7</price.amount></Point></Period></TimeSeries>"
    b"</Publication_MarketDocument>"
)


def document(*series: str, process: str = "A16") -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<GL_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0">'
        f"<type>A75</type><process.processType>{process}</process.processType>"
        f"{''.join(series)}</GL_MarketDocument>"
    ).encode()


def period(*points: tuple[int, object], start_h: int = 0, hours: int = 3, step: str) -> str:
    start, end = (
        (START_AT + timedelta(hours=at)).strftime("%Y-%m-%dT%H:%MZ")
        for at in (start_h, start_h + hours)
    )
    rows = "".join(
        f"<Point><position>{position}</position><quantity>{power}</quantity></Point>"
        for position, power in points
    )
    return (
        f"<Period><timeInterval><start>{start}</start><end>{end}</end></timeInterval>"
        f"<resolution>{step}</resolution>{rows}</Period>"
    )


def plant(
    kind: str,
    *points: tuple[int, object],
    direction: str = "in",
    zone: str = ZONES["NL"],
    unit: str = "MAW",
    start_h: int = 0,
    hours: int = 3,
    step: str = "PT60M",
    more: str = "",
) -> str:
    name = f"{direction}BiddingZone_Domain.mRID"
    return (
        f"<TimeSeries><{name}>{zone}</{name}>"
        f"<quantity_Measure_Unit.name>{unit}</quantity_Measure_Unit.name>"
        f"<curveType>A03</curveType><MktPSRType><psrType>{kind}</psrType></MktPSRType>"
        f"{period(*points, start_h=start_h, hours=hours, step=step)}{more}</TimeSeries>"
    )


def values(payload: bytes, **options: str) -> list[tuple[int, object]]:
    """Minute of the start, intensity."""
    return [
        (
            round((item.start_at - START_AT).total_seconds() / 60),
            pytest.approx(item.value),
        )
        for item in parse_guarded(Entsoe(options), payload, START_AT)
    ]


GAS = plant("B04", (1, 100))


def test_the_mix_is_carbon_by_either_set_of_factors() -> None:
    payload = document(GAS, plant("B19", (1, 100), (3, 300)))
    assert values(payload) == [(0, 250.5), (60, 250.5), (120, (490 + 33) / 4)]
    assert values(payload, factors="direct") == [(0, 185.0), (60, 185.0), (120, 92.5)]
    (first, *_) = Entsoe({}).parse(payload, START_AT)
    assert (first.unit, first.kind) == ("gCO2eq/kWh", ValueKind.MEASURED)


def test_the_factor_of_other_may_be_known_better() -> None:
    payload = document(GAS, plant("B20", (1, 100)))
    assert values(payload)[0] == (0, 595.0)
    assert values(payload, factors="direct")[0] == (0, (370 + 575) / 2)
    for factors, wanted in (("lifecycle", 270.0), ("direct", 210.0)):
        assert values(payload, factors=factors, other_g_per_kwh="50")[0] == (0, wanted)


def test_the_document_tells_itself_and_an_option_holds_it_to_one() -> None:
    mix = document(GAS)
    assert parse_guarded(Entsoe({"document": "A75"}), mix, START_AT)[0].value == 490.0
    assert parse_guarded(Entsoe({}), PRICES, START_AT)[0].value == -7.0
    assert parse_guarded(Entsoe({"document": "A44"}), PRICES, START_AT)[0].unit == "EUR/MWh"
    for option, payload in (("A44", mix), ("A75", PRICES)):
        with pytest.raises(FeedDataInvalid, match=f"documentType: must be {option}"):
            parse_guarded(Entsoe({"document": option}), payload, START_AT)


def test_the_quantity_is_the_option_s_and_of_a_payload_its_own() -> None:
    assert Entsoe({}).quantity is Quantity.PRICE
    assert Entsoe({"document": "A75"}).quantity is Quantity.AVERAGE_INTENSITY
    assert Entsoe({}).quantity_of(document(GAS)) is Quantity.AVERAGE_INTENSITY
    assert Entsoe({}).quantity_of(PRICES) is Quantity.PRICE
    assert Entsoe({}).quantity_of(b"{}") is Quantity.PRICE
    assert Entsoe({"document": "A75"}).quantity_of(b"") is Quantity.AVERAGE_INTENSITY


def test_consumption_is_subtracted_and_storage_left_out() -> None:
    payload = document(
        GAS,
        plant("B16", (1, 20), (2, 110)),
        plant("B16", (1, 30), (2, 10), direction="out"),
        plant("B10", (1, 900), hours=1),
        plant("B10", (1, 900), start_h=2, hours=1, direction="out"),
        plant("B25", (1, 50)),
    )
    assert values(payload) == [(0, 490.0), (60, (490 + 48) / 2), (120, (490 + 48) / 2)]


def test_either_direction_is_a_value() -> None:
    by_day = plant("B16", (1, 100), hours=1)
    by_night = plant("B16", (1, 2), start_h=1, hours=2, direction="out")
    assert values(document(GAS, by_day, by_night)) == [(0, 269.0), (60, 490.0), (120, 490.0)]


def test_an_hour_without_a_plant_that_the_document_has_is_a_gap() -> None:
    late = plant("B05", (1, 100), start_h=1, hours=2)
    assert values(document(GAS, late)) == [(60, 655.0), (120, 655.0)]


def test_several_periods_and_series_of_one_plant_go_on() -> None:
    in_parts = plant("B05", (1, 100), hours=1, more=period((1, 300), start_h=1, step="PT60M"))
    assert values(document(GAS, in_parts)) == [
        (0, 655.0),
        (60, (490 + 3 * 820) / 4),
        (120, (490 + 3 * 820) / 4),
    ]
    another = plant("B05", (1, 300), start_h=1, hours=2)
    assert values(document(GAS, plant("B05", (1, 100), hours=1), another))[0] == (0, 655.0)
    with pytest.raises(FeedDataInvalid, match=r"ENTSO-E: B05 at .* must have one value"):
        values(document(GAS, plant("B05", (1, 100)), another))


def test_a03_repeats_inside_the_period_at_quarters_of_an_hour() -> None:
    payload = document(
        plant("B04", (1, 100), (6, 0), hours=2, step="PT15M"),
        plant("B14", (1, 100), hours=2, step="PT15M"),
    )
    found = values(payload)
    assert found == [(15 * at, 251.0 if at < 5 else 12.0) for at in range(8)]


def test_a_plant_by_the_hour_makes_the_mix_hourly() -> None:
    payload = document(GAS, plant("B14", (1, 0), (3, 200), step="PT15M"))
    # Half an hour at 0 MW, then 200 MW: 100 MW in the mean of the first hour.
    assert values(payload)[0] == (0, (490 + 12) / 2)
    assert len(values(payload)) == 3


@pytest.mark.parametrize(
    ("day", "hours"), [("2025-03-29T23:00", 23), ("2025-10-25T22:00", 25), ("2025-06-01T22:00", 24)]
)
def test_days_of_23_and_25_hours(day: str, hours: int) -> None:
    global_start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    start_h = round((global_start - START_AT).total_seconds() / 3600)
    payload = document(
        plant("B04", (1, 5), start_h=start_h, hours=hours, step="PT15M"),
        plant("B14", (1, 5), start_h=start_h, hours=hours, step="PT15M"),
    )
    found = Entsoe({}).parse(payload, START_AT)
    assert len(found) == 4 * hours
    assert found[0].start_at == global_start
    assert found[-1].end_at == global_start + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (document(plant("B21", (1, 1))), "psrType: must be one of B01.*got 'B21'"),
        (document(plant("", (1, 1))), "psrType: must be one of B01.*got ''"),
        (document(plant("B04", (1, 1), unit="MWH")), "quantity_Measure_Unit.*must be MAW"),
        (document(GAS, process="A01"), "processType: must be A16"),
        (document(GAS.replace("inBidding", "xBidding")), "BiddingZone_Domain.*in or out"),
        (document(plant("B04", (1, "NaN"))), "quantity: must be a finite number"),
        (document(plant("B04", (4, 1))), "position: must be from 1 to 3"),
        (document(plant("B04")), "Point: must be there"),
    ],
)
def test_bad_documents_are_refused_naming_the_field(payload: bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=f"ENTSO-E: .*{problem}"):
        Entsoe({}).parse(payload, START_AT)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_another_zone_is_refused(direction: str) -> None:
    payload = document(plant("B04", (1, 1), zone=ZONES["FR"], direction=direction))
    with pytest.raises(FeedDataInvalid, match=f"{direction}BiddingZone_Domain.*must be 10YNL"):
        Entsoe({"zone": "NL"}).parse(payload, START_AT)


def test_every_type_of_plant_is_known() -> None:
    assert set(FUELS) == {f"B{number:02}" for number in (*range(1, 21), 25)}
    assert set(FUELS.values()) == set(Fuel)


def test_the_question_is_for_generation_up_to_now() -> None:
    http = RecordedHttp({BASE: document(GAS)})
    connector = Entsoe({"zone": "NL", "document": "A75", "base_url": BASE})
    now = START_AT + timedelta(minutes=90)
    window = Interval(START_AT, START_AT + timedelta(hours=48))
    found = connector.fetch(window, FetchContext(http, now, "a-token"))
    assert [item.value for item in found] == [490.0] * 3
    assert http.asked == [
        (
            BASE,
            {
                "securityToken": "a-token",
                "documentType": "A75",
                "processType": "A16",
                "in_Domain": ZONES["NL"],
                "periodStart": "202502282300",
                "periodEnd": "202503020100",
            },
        )
    ]
    assert connector.rhythm.every_s == 3600
    ahead = Interval(now + timedelta(hours=3), now + timedelta(hours=9))
    assert connector.fetch(ahead, FetchContext(RecordedHttp({}), now, "a-token")) == []


def test_a_document_of_prices_in_answer_is_refused() -> None:
    http = RecordedHttp({BASE: PRICES})
    connector = Entsoe({"zone": "NL", "document": "A75", "base_url": BASE})
    window = Interval(START_AT, START_AT + timedelta(hours=1))
    with pytest.raises(FeedDataInvalid, match="must be A75 in GL_MarketDocument"):
        connector.fetch(window, FetchContext(http, window.end_at, "a-token"))
