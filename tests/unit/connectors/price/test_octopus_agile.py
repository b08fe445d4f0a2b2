import json
from datetime import UTC, datetime, timedelta

import pytest
from pals_grid_connectors.price.octopus_agile import OctopusAgile

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.series import Quantity, ValueKind
from pals_grid.feeds.recorded import RecordedHttp

KNOWN_AT = datetime(2025, 3, 1, 18, 0, tzinfo=UTC)
BASE = "https://octopus.example/v1"
RATES = f"{BASE}/products/AGILE-24-10-01/electricity-tariffs/E-1R-AGILE-24-10-01-C"
RATES += "/standard-unit-rates/"
WINDOW = Interval(datetime(2025, 3, 1, 23, 10, tzinfo=UTC), datetime(2025, 3, 2, 0, 30, tzinfo=UTC))


def rate(start: str, end: str | None, exc: float, method: str | None = None) -> dict[str, object]:
    return {
        "value_exc_vat": exc,
        "value_inc_vat": round(exc * 1.05, 6),
        "valid_from": start,
        "valid_to": end,
        "payment_method": method,
    }


def page(*rates: dict[str, object], following: str | None = None) -> bytes:
    return json.dumps({"count": len(rates), "next": following, "results": rates}).encode()


EVENING = rate("2025-03-01T23:00:00Z", "2025-03-01T23:30:00Z", 6.95)
LATE = rate("2025-03-01T23:30:00Z", "2025-03-02T00:00:00Z", -2.31)
NIGHT = rate("2025-03-02T00:00:00Z", "2025-03-02T00:30:00Z", 0)


def context(**answers: HttpResponse | bytes) -> FetchContext:
    names = {"first": RATES, "second": f"{RATES}?page=2"}
    return FetchContext(
        RecordedHttp({names[key]: value for key, value in answers.items()}), KNOWN_AT
    )


def test_rates_are_ordered_priced_per_mwh_and_without_dust() -> None:
    found = OctopusAgile({}).parse(page(NIGHT, LATE, EVENING), KNOWN_AT)

    assert [item.value for item in found] == [69.5, -23.1, 0.0]
    assert found[0].start_at == datetime(2025, 3, 1, 23, 0, tzinfo=UTC)
    assert found[0].end_at == datetime(2025, 3, 1, 23, 30, tzinfo=UTC)
    assert {item.unit for item in found} == {"GBP/MWh"}
    assert {item.kind for item in found} == {ValueKind.MEASURED}
    assert {item.known_at for item in found} == {KNOWN_AT}


def test_vat_is_included_when_asked_for() -> None:
    (found,) = OctopusAgile({"vat": "include"}).parse(page(EVENING), KNOWN_AT)
    assert found.value == 72.975


def test_offsets_are_turned_into_utc() -> None:
    summer = rate("2025-07-01T01:00:00+01:00", "2025-07-01T01:30:00+01:00", 1)
    (found,) = OctopusAgile({}).parse(page(summer), KNOWN_AT)
    assert found.start_at == datetime(2025, 7, 1, 0, 0, tzinfo=UTC)


def test_pages_are_followed_until_the_window_is_covered() -> None:
    first = page(NIGHT, LATE, following=f"{RATES}?page=2")
    asked = context(first=first, second=page(EVENING, following=f"{RATES}?page=3"))
    found = OctopusAgile({"base_url": BASE}).fetch(WINDOW, asked)

    assert [item.value for item in found] == [69.5, -23.1, 0.0]
    http = asked.http
    assert isinstance(http, RecordedHttp)
    assert http.asked == [
        (RATES, {"period_from": "2025-03-01T23:00Z", "period_to": "2025-03-02T00:30Z"}),
        (f"{RATES}?page=2", {}),
    ]


@pytest.mark.parametrize("following", ["https://elsewhere.example/?page=2", "/page=2", 7])
def test_the_next_page_stays_on_the_same_host(following: str) -> None:
    with pytest.raises(FeedDataInvalid, match=r"next: must stay at https://octopus\.example"):
        OctopusAgile({"base_url": BASE}).fetch(
            WINDOW, context(first=page(NIGHT, following=following))
        )


def test_pages_without_end_are_given_up() -> None:
    endless = page(NIGHT, following=RATES)
    with pytest.raises(FeedDataInvalid, match="more than 100 pages"):
        OctopusAgile({"base_url": BASE}).fetch(WINDOW, context(first=endless))


def test_values_outside_the_window_are_left_out() -> None:
    before = rate("2025-03-01T22:30:00Z", "2025-03-01T23:00:00Z", 1)
    after = rate("2025-03-02T00:30:00Z", "2025-03-02T01:00:00Z", 1)
    found = OctopusAgile({"base_url": BASE}).fetch(WINDOW, context(first=page(after, LATE, before)))
    assert [item.value for item in found] == [-23.1]


def test_a_rate_without_an_end_fills_the_window_in_half_hours_of_the_clock() -> None:
    open_ended = rate("2024-01-01T00:00:00Z", None, 20.64)
    found = OctopusAgile({"base_url": BASE}).fetch(WINDOW, context(first=page(open_ended)))

    assert [item.start_at.strftime("%H:%M") for item in found] == ["23:00", "23:30", "00:00"]
    assert {item.end_at - item.start_at for item in found} == {timedelta(minutes=30)}
    assert {item.value for item in found} == {206.4}


def test_a_rate_without_an_end_is_parsed_up_to_48_h_from_when_it_was_known() -> None:
    (found,) = OctopusAgile({}).parse(page(rate("2024-01-01T00:00:00Z", None, 1)), KNOWN_AT)
    assert found.end_at == KNOWN_AT + timedelta(hours=48)


def test_the_payment_method_is_chosen() -> None:
    both = page(
        rate("2025-03-01T23:00:00Z", "2025-03-01T23:30:00Z", 10, "DIRECT_DEBIT"),
        rate("2025-03-01T23:00:00Z", "2025-03-01T23:30:00Z", 11, "NON_DIRECT_DEBIT"),
        LATE,
    )
    direct = OctopusAgile({}).parse(both, KNOWN_AT)
    other = OctopusAgile({"payment_method": "NON_DIRECT_DEBIT"}).parse(both, KNOWN_AT)
    assert [item.value for item in direct] == [100.0, -23.1]
    assert [item.value for item in other] == [110.0, -23.1]


def test_only_rates_of_another_payment_method_are_refused() -> None:
    only = page(rate("2025-03-01T23:00:00Z", "2025-03-01T23:30:00Z", 1, "NON_DIRECT_DEBIT"))
    with pytest.raises(FeedRejected, match="DIRECT_DEBIT, only for NON_DIRECT_DEBIT"):
        OctopusAgile({}).parse(only, KNOWN_AT)


def test_an_unknown_product_is_said_in_a_sentence() -> None:
    gone = HttpResponse(RATES, 404, {}, b'{"detail":"No EnergyProduct matches"}')
    with pytest.raises(FeedRejected, match=r"no product 'AGILE-24-10-01'.*No EnergyProduct"):
        OctopusAgile({"base_url": BASE}).fetch(WINDOW, context(first=gone))


def test_a_busy_provider_is_unavailable_for_as_long_as_it_wishes() -> None:
    busy = HttpResponse(RATES, 429, {"retry-after": "30"}, b"slow down")
    with pytest.raises(FeedUnavailable, match="slow down") as caught:
        OctopusAgile({"base_url": BASE}).fetch(WINDOW, context(first=busy))
    assert caught.value.retry_after_s == 30.0


def test_the_provider_s_error_payload_is_rejected() -> None:
    with pytest.raises(FeedRejected, match="Not found"):
        OctopusAgile({}).parse(b'{"detail": "Not found."}', KNOWN_AT)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"<html>", "must be JSON"),
        (b"[1, 2]", "must be a page of unit rates"),
        (page({**EVENING, "value_exc_vat": None}), "value_exc_vat"),
        (page({**EVENING, "value_exc_vat": "6.95"}), "value_exc_vat"),
        (page(EVENING).replace(b"6.95", b"NaN"), "NaN is not a JSON number"),
        (page({**EVENING, "valid_from": "2025-03-01T23:00:00"}), "must carry a UTC offset"),
        (page({**EVENING, "valid_to": "2025-03-01T22:00:00Z"}), "must be after start_at"),
        (page({"valid_from": "2025-03-01T23:00:00Z"}), "valid_to"),
    ],
)
def test_bad_payloads_are_refused_naming_the_field(payload: bytes, problem: str) -> None:
    with pytest.raises(FeedDataInvalid, match=problem):
        OctopusAgile({}).parse(payload, KNOWN_AT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("region", "Z"),
        ("region", "I"),
        ("product", "../x"),
        ("vat", "maybe"),
        ("payment_method", "CASH"),
        ("base_url", "ftp://x"),
        ("zone", "NL"),
    ],
)
def test_impossible_options_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValue, match=rf"options\.{name}.*{value}"):
        OctopusAgile({name: value})


def test_it_gives_prices() -> None:
    assert OctopusAgile({}).quantity is Quantity.PRICE
