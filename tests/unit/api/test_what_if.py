from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.api.routes.what_if import EXAMPLE, WhatIfIn
from pals_grid.core.errors import Busy
from pals_grid.service import what_if as service
from pals_grid.service.feeds import fetch_feed

if TYPE_CHECKING:
    from tests.unit.api.client import TestClient
    from tests.unit.service.world import World

PATH = "/api/v1/sites/oslo/what-if"


@pytest.fixture(autouse=True)
def priced(world: World) -> None:
    world.make_site(demand_tokens_per_s=600.0, deferrable_ratio=0.4)
    feed = world.make_feed()
    world.register()
    world.price.say(*(100.0 if i % 48 < 12 else 40.0 for i in range(72)))
    fetch_feed(world.context, feed.id)


def test_alternatives_have_sums_series_and_labels(client: TestClient) -> None:
    plans = client.get("/api/v1/plans").json()["items"]
    body = {"policy": {"maximum_w": 900.0}, "demand_ratio": 1.1}
    answer = client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert client.get("/api/v1/plans").json()["items"] == plans
    assert (found["origin"], found["boundary"], found["currency"]) == ("modelled", "node", "EUR")
    assert (found["start_at"], found["end_at"]) == ("2026-03-03T00:00:00Z", "2026-03-04T00:00:00Z")
    by_name = {item["name"]: item for item in found["alternatives"]}
    assert list(by_name) == [
        "as-it-stands",
        "with-changes",
        "no-control",
        "as-it-comes",
        "price-threshold",
    ]
    changed = by_name["with-changes"]
    assert len(changed["intervals"]) == 48
    assert max(item["limit_w"] for item in changed["intervals"]) == 900
    assert by_name["no-control"]["intervals"][0]["limit_w"] is None
    assert {item["name"] for item in found["absent"]} == {
        "perfect-foresight",
        "static-limit",
        "carbon-threshold",
    }
    assert found["sources"][0]["quantity"] == "price"


def test_an_event_that_cannot_be_kept_is_a_finding(client: TestClient) -> None:
    event = {"start_at": "2026-03-03T06:00Z", "end_at": "2026-03-03T07:00Z", "limit_w": 10}
    found = client.post(PATH, json={"event": event}).json()
    changed = next(i for i in found["alternatives"] if i["name"] == "with-changes")
    assert changed["findings"][0]["constraint"] == "event"
    assert changed["findings"][0]["amount"] == pytest.approx(290)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"policy": {"reserve_ratio": -1}}, "reserve_ratio"),
        ({"policy": {"horizon_s": 3600}}, "policy.horizon_s"),
        ({"policy": {"minimum_w": "much"}}, "policy.minimum_w"),
        ({"demand_ratio": 1000}, "demand_ratio"),
        ({"start_at": "2026-03-03T12:00"}, "start_at"),
        ({"end_at": "2026-04-01T00:00Z"}, "end_at"),
        ({"tariff": {"name": "x"}}, "valid_from_at"),
        (
            {"event": {"start_at": "2026-03-03T07:00Z", "end_at": "2026-03-03T06:00Z"}},
            "event.end_at",
        ),
    ],
)
def test_what_is_wrong_is_named(client: TestClient, body: dict[str, Any], field: str) -> None:
    answer = client.post(PATH, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


def test_an_unknown_site_is_not_found(client: TestClient) -> None:
    assert client.post("/api/v1/sites/none/what-if", json={}).status_code == 404


def test_a_busy_service_says_when_to_come_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise Busy("another what-if is being worked out")

    monkeypatch.setattr(service, "what_if", busy)
    answer = client.post(PATH, json={})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["detail"] == "another what-if is being worked out"


def test_the_example_of_the_reference_is_a_body() -> None:
    assert WhatIfIn.model_validate(EXAMPLE).demand_ratio == 1.2
