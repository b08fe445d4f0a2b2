from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import fmean

import pytest
from pals_grid_connectors.synthetic import Synthetic

from pals_grid.core.errors import FeedDataInvalid, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.feeds.recorded import RecordedHttp

START_AT = datetime(2025, 3, 1, tzinfo=UTC)
CONTEXT = FetchContext(RecordedHttp({}), START_AT)
DAY = Interval(START_AT, START_AT + timedelta(days=1))


def fetch(window: Interval = DAY, **options: str) -> list[Observation]:
    return Synthetic(options).fetch(window, CONTEXT)


def test_a_day_has_48_values_labelled_synthetic_around_its_mean() -> None:
    found = fetch(mean="100", currency="GBP")
    assert len(found) == 48
    assert {(item.kind, item.unit) for item in found} == {(ValueKind.SYNTHETIC, "GBP/MWh")}
    assert fmean(item.value for item in found) == pytest.approx(100, abs=0.01)
    assert max(found, key=lambda item: item.value).start_at.hour in {18, 19}
    assert all(abs(a.value - b.value) < 10 for a, b in pairwise(found))


def test_any_window_gives_the_same_values_for_the_same_half_hour() -> None:
    part = Interval(START_AT + timedelta(hours=30, minutes=10), START_AT + timedelta(hours=31))
    found = fetch(part, quantity="average_intensity")
    assert [item.start_at.strftime("%H:%M") for item in found] == ["06:00", "06:30"]
    whole = fetch(quantity="average_intensity")
    assert [item.value for item in found] == [whole[12].value, whole[13].value]
    assert {item.unit for item in found} == {"gCO2eq/kWh"}


def test_quantity_follows_the_option() -> None:
    assert Synthetic({}).quantity is Quantity.PRICE
    assert Synthetic({"quantity": "average_intensity"}).quantity is Quantity.AVERAGE_INTENSITY


@pytest.mark.parametrize(
    "options",
    [
        {"quantity": "marginal_intensity"},
        {"currency": "euro"},
        {"mean": "NaN"},
        {"mean": "0"},
        {"shape": "flat"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidValue, match="options"):
        Synthetic(options)


def test_it_reads_no_payload() -> None:
    with pytest.raises(FeedDataInvalid, match="reads no payload"):
        Synthetic({}).parse(b"{}", START_AT)
