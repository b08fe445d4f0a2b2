from __future__ import annotations

import math

import pytest

from pals_grid.core.connecting import raise_for_status, read_options
from pals_grid.core.errors import FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.ports import ConnectorOption, HttpResponse
from pals_grid.core.site import ServiceTier, SitePolicy, Slo
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
        ({"maximum_w": 50.0}, "maximum_w"),
        ({"maximum_w": 2e4}, "maximum_w"),
        ({"ramp_w_per_min": 0.0}, "ramp_w_per_min"),
        ({"marginal_carbon_ratio": 1.1}, "marginal_carbon_ratio"),
        ({"carbon_cap_kg_per_day": -1.0}, "carbon_cap_kg_per_day"),
        ({"carbon_cap_kg_per_day": math.nan}, "carbon_cap_kg_per_day"),
        ({"live_grants": "maybe"}, "live_grants"),
        ({"other_load_w": -1.0}, "other_load_w"),
        ({"other_load_w": 2e4}, "other_load_w"),
        ({"tiers": (ServiceTier("a", 0.5),)}, "tiers.demand_ratio"),
        ({"tiers": (ServiceTier("a", 1.0),), "deferrable_ratio": 0.1}, "deferrable_ratio"),
        ({"tiers": (ServiceTier("a", 0.5), ServiceTier("a", 0.5))}, "tiers[1].name"),
        ({"tiers": (ServiceTier("", 1.0),)}, "tiers[0].name"),
        ({"tiers": (ServiceTier("a", 1.0, 1.5, 1.0),)}, "tiers[0].loss_ratio"),
        ({"tiers": (ServiceTier("a", 1.0, 0.1),)}, "tiers[0].value_per_mtoken"),
        ({"tiers": (ServiceTier("a", 1.0, deferral_s=-1.0),)}, "tiers[0].deferral_s"),
        ({"tiers": (ServiceTier("a", math.nan),)}, "tiers[0].demand_ratio"),
        ({"tiers": tuple(ServiceTier(f"{i}", 1 / 21) for i in range(21))}, "tiers"),
    ],
)
def test_an_impossible_policy_is_refused_by_field(change: dict[str, object], field: str) -> None:
    SitePolicy(**GIVEN)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue) as caught:
        SitePolicy(**(GIVEN | change))  # type: ignore[arg-type]
    assert caught.value.field == field


def test_without_tiers_a_part_may_wait_and_nothing_may_be_lost() -> None:
    policy = SitePolicy(**GIVEN, deferrable_ratio=0.2, deferral_s=60.0)  # type: ignore[arg-type]
    now, later = policy.service_tiers
    assert (now.demand_ratio, now.deferral_s) == (0.8, 0.0)
    assert (later.demand_ratio, later.deferral_s) == (0.2, 60.0)
    assert {tier.loss_ratio for tier in policy.service_tiers} == {0.0}


def test_the_lower_of_connection_and_maximum_is_the_limit() -> None:
    assert SitePolicy(**GIVEN).limit_w == 1e4  # type: ignore[arg-type]
    assert SitePolicy(**GIVEN, maximum_w=5e3).limit_w == 5e3  # type: ignore[arg-type]


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
