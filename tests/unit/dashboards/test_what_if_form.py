from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from pals_grid_dashboards.console.local_time import LocalTime
from pals_grid_dashboards.console.what_if_form import policy_fields, read_form

from pals_grid.core.errors import InvalidValue
from pals_grid.core.site import ServiceTier, Site, SitePolicy
from pals_grid.core.tariff import Tariff
from pals_grid.service.tariffs import StoredTariff

if TYPE_CHECKING:
    from pals_grid_dashboards.console.what_if_form import WhatIfForm

NOW = datetime(2026, 7, 1, 12, 20, tzinfo=UTC)
LOCAL = LocalTime(ZoneInfo("Europe/Berlin"), NOW)
POLICY = SitePolicy(slug="s", name="S", grid_connection_w=5000.0, minimum_w=300.0, safe_limit_w=0.0)
TIERED = replace(POLICY, tiers=(ServiceTier("chat", 0.7), ServiceTier("bulk", 0.3, 0.1, 2.0)))
TARIFFS = (StoredTariff(3, NOW, Tariff("old", NOW)),)
EVENT = {"event_start": "2026-07-02T18:00", "event_end": "2026-07-02T19:00"}


def _read(typed: dict[str, str], policy: SitePolicy = POLICY) -> WhatIfForm:
    return read_form(typed, policy, TARIFFS, LOCAL)


def test_nothing_typed_is_no_change() -> None:
    form = _read({})
    assert form.changes.is_none
    assert (form.errors, form.start_at, form.end_at) == ({}, None, None)


def test_units_of_the_form_become_those_of_the_policy() -> None:
    form = _read(
        {
            "maximum": "4,5",
            "reserve": "20",
            "carbon_price": "100",
            "demand": "150",
            "tariff": "3",
        }
    )
    assert form.changes.policy == {
        "maximum_w": 4500.0,
        "reserve_ratio": 0.2,
        "carbon_price_per_tonne": 100.0,
    }
    assert form.changes.demand_ratio == 1.5
    assert form.changes.tariff == TARIFFS[0].tariff


def test_tiers_keep_what_is_not_typed() -> None:
    form = _read({"tier-1": "25"}, TIERED)
    chat, bulk = TIERED.tiers
    assert form.changes.policy["tiers"] == (chat, replace(bulk, loss_ratio=0.25))
    assert "deferrable" not in [item.name for item in policy_fields(TIERED)]


def test_an_event_and_a_stretch_are_local_times() -> None:
    form = _read({**EVENT, "event_cut": "20", "from": "2026-07-02T00:00"})
    assert form.start_at == datetime(2026, 7, 1, 22, 0, tzinfo=UTC)
    event = form.changes.event
    assert event is not None
    assert event.start_at == datetime(2026, 7, 2, 16, 0, tzinfo=UTC)
    assert (event.limit_w, event.reduction_ratio) == (None, 0.2)


@pytest.mark.parametrize(
    ("typed", "field", "error"),
    [
        ({"maximum": "much"}, "maximum", "Must be a number."),
        ({"from": "soon"}, "from", "Must be a date and a time."),
        ({"demand": "-1"}, "demand", "Must be from 0\u202f% to 10\u202f000\u202f%."),
        ({"demand": "nan"}, "demand", "Must be from 0\u202f% to 10\u202f000\u202f%."),
        ({"event_cut": "20"}, "event_start", "Must be filled in for an event."),
        (EVENT, "event_limit", "Give a limit, or a reduction."),
        ({**EVENT, "event_limit": "1", "event_cut": "2"}, "event_cut", "Give a limit or"),
        ({**EVENT, "event_cut": "200"}, "event_cut", "Must be above 0 and at most 100 %."),
        ({**EVENT, "event_end": EVENT["event_start"], "event_cut": "2"}, "event_end", "Must be"),
        ({"tariff": "9"}, "tariff", "Must be one of the site's tariffs."),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    typed: dict[str, str], field: str, error: str
) -> None:
    assert _read(typed).errors[field].startswith(error)


def test_bounds_of_the_policy_are_told_in_the_form_s_units() -> None:
    form = _read({})
    form.refuse(InvalidValue("maximum_w", 9e9, "must be from 300 to 5000"), POLICY)
    form.refuse(InvalidValue("tiers[1].loss_ratio", 3, "must be from 0 to 1"), POLICY)
    assert form.errors == {
        "maximum": "Must be from 0.3\u202fkW to 5\u202fkW.",
        "tier-1": "Must be from 0 % to 100 %.",
    }


def test_a_bound_of_a_tier_stands_beside_its_field_in_the_form_s_words() -> None:
    for typed, words in (
        ("150", "Must be from 0 % to 100 %."),
        ("20", "The value of the tier's tokens must be above 0 where tokens may be lost."),
    ):
        form = _read({"tier-0": typed}, TIERED)
        with pytest.raises(InvalidValue) as refused:
            form.changes.site(Site(1, 1, TIERED))
        form.refuse(refused.value, TIERED)
        assert form.errors == {"tier-0": words}


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ({"event_limit": "-1"}, {"event_limit": "Must be from 0 to 10 000 000 kW."}),
        ({"event_limit": "nan"}, {"event_limit": "Must be from 0 to 10 000 000 kW."}),
        ({"event_cut": "150"}, {"event_cut": "Must be above 0 and at most 100 %."}),
        ({"from": "9999-12-31T23:59"}, {"from": "Must be in the years 1970 to 2199."}),
    ],
)
def test_an_event_s_bounds_are_in_the_units_of_the_form(
    typed: dict[str, str], error: dict[str, str]
) -> None:
    event = {} if "from" in typed else EVENT
    assert _read({**event, **typed}).errors == error
