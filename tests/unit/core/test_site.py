from __future__ import annotations

import math

import pytest

from pals_grid.core.connecting import raise_for_status, read_options
from pals_grid.core.errors import FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.ports import ConnectorOption, HttpResponse
from pals_grid.core.site import SitePolicy, Slo
from pals_grid.core.units import cost_of_energy, emissions_g, kwh_from_j

GIVEN: dict[str, object] = {
    "slug": "s",
    "name": "S",
    "grid_connection_w": 1e4,
    "minimum_w": 100.0,
    "safe_limit_w": 200.0,
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"slug": "Two Words"}, "slug"),
        ({"currency": "euro"}, "currency"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"grid_connection_w": 0.0}, "grid_connection_w"),
        ({"grid_connection_w": math.inf}, "grid_connection_w"),
        ({"minimum_w": 2e4}, "minimum_w"),
        ({"safe_limit_w": 2e4}, "safe_limit_w"),
        ({"deferrable_ratio": 1.1}, "deferrable_ratio"),
        ({"reserve_ratio": math.nan}, "reserve_ratio"),
        ({"slot_s": 1.0}, "slot_s"),
        ({"horizon_s": 60.0}, "horizon_s"),
        ({"slo": Slo(ttft_s=0.0)}, "slo.ttft_s"),
    ],
)
def test_an_impossible_policy_is_refused_by_field(change: dict[str, object], field: str) -> None:
    SitePolicy(**GIVEN)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue) as caught:
        SitePolicy(**(GIVEN | change))  # type: ignore[arg-type]
    assert caught.value.field == field


def test_units() -> None:
    assert kwh_from_j(7.2e6) == 2.0
    assert cost_of_energy(3.6e9, 80.0) == 80.0
    assert emissions_g(3.6e6, 250.0) == 250.0


OPTIONS = (ConnectorOption("zone", "the zone"), ConnectorOption("product", "which", "AGILE"))


def test_options_get_their_defaults_and_are_checked() -> None:
    assert read_options({"zone": "A"}, OPTIONS) == {"zone": "A", "product": "AGILE"}
    with pytest.raises(InvalidValue, match=r"options\.zone: is required: the zone"):
        read_options({}, OPTIONS)
    with pytest.raises(InvalidValue, match=r"options\.zonne: unknown option.*product, zone"):
        read_options({"zonne": "A"}, OPTIONS)


def answer(status: int, **headers: str) -> HttpResponse:
    return HttpResponse("http://p/x", status, headers, b"")


def test_a_provider_is_quoted_and_its_status_says_whether_to_try_again() -> None:
    raise_for_status(answer(200), "fine")
    for status in (408, 425, 429, 500, 503):
        with pytest.raises(FeedUnavailable, match=f"HTTP {status} from http://p/x: busy"):
            raise_for_status(answer(status), "busy")
    with pytest.raises(FeedRejected, match="HTTP 403 from http://p/x: no key"):
        raise_for_status(answer(403), "no key")


def test_a_wish_for_time_is_passed_on() -> None:
    with pytest.raises(FeedUnavailable) as caught:
        raise_for_status(answer(429, **{"retry-after": "30"}), "busy")
    assert caught.value.retry_after_s == 30.0
