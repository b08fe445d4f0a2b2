from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pals_grid.api.routes.tariffs import EXAMPLE
from pals_grid.core.tariff_document import read_tariff
from pals_grid.service.nodes import authenticate_node
from pals_grid.service.telemetry import ingest
from tests.unit.service.world import T0, batch

if TYPE_CHECKING:
    from tests.unit.api.client import TestClient
    from tests.unit.service.world import World

TARIFFS = "/api/v1/sites/oslo/tariffs"
PLAIN: dict[str, Any] = {
    "name": "plain",
    "valid_from_at": "2026-03-02T12:00:00Z",
    "adders": [{"name": "network", "price_per_mwh": 12}],
    "demand_charges": [{"name": "capacity", "price_per_kw": 10}],
}


def test_a_tariff_is_previewed_set_and_listed(client: TestClient, world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    world.price.say(50.0)
    client.post(f"/api/v1/feeds/{feed.id}/fetch")
    preview = client.post(f"{TARIFFS}/preview", json=PLAIN)
    assert preview.status_code == 200, preview.text
    slot = preview.json()["slots"][0]
    assert (slot["before"]["price_per_mwh"], slot["after"]["price_per_mwh"]) == (50, 62)
    assert slot["after"]["sentence"] == "62.00 = 50.00 × 1 + 12.00 network"
    assert slot["source"]["feed"] == "p"
    assert client.get(TARIFFS).json()["tariffs"] == []
    stored = client.put(TARIFFS, json=PLAIN).json()
    listed = client.get(TARIFFS).json()
    assert (listed["in_force_id"], listed["currency"]) == (stored["id"], "EUR")
    assert read_tariff(listed["tariffs"][0]["tariff"]) == read_tariff(PLAIN)
    interval = client.get("/api/v1/plans/latest").json()["intervals"][0]
    assert interval["price_per_mwh"] == 62
    assert interval["price_source"]["tariff_id"] == stored["id"]


def test_a_bad_tariff_is_named_by_path(client: TestClient, world: World) -> None:
    world.make_site()
    bad = {**PLAIN, "taxes": [{"name": "VAT", "ratio": 20}]}
    answer = client.put(TARIFFS, json=bad)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error == {"field": "taxes[0].ratio", "bound": "must be from 0 to 10", "value": 20.0}
    assert client.put("/api/v1/sites/none/tariffs", json=PLAIN).status_code == 404


def test_the_example_of_the_reference_is_a_tariff() -> None:
    assert read_tariff(EXAMPLE).periods[0].name == "peak"


def test_a_report_keeps_demand_charges_apart(client: TestClient, world: World) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    world.clock.advance(3600)
    ingest(world.context, node, batch(T0, 720, power_w=1200.0))
    assert client.get("/api/v1/reports/energy").json()["demand_charges"] == []
    client.put(TARIFFS, json=PLAIN)
    report = client.get("/api/v1/reports/energy").json()
    (month,) = report["demand_charges"]
    assert month["running"] is True
    assert month["origins"] == ["simulated"]
    assert month["charges"][0]["cost"] == pytest.approx(12)
    assert report["total"]["cost"] is None


def test_fallbacks_are_added_changed_and_told(client: TestClient, world: World) -> None:
    world.make_site()
    body = {"name": "p", "connector": "price", "fallbacks": [{"constant": 80}]}
    feed = client.post("/api/v1/feeds", json=body).json()
    assert feed["fallbacks"] == [{"constant": 80.0}]
    path = f"/api/v1/feeds/{feed['id']}"
    chain = [{"last_week": True, "weeks": 2}, {"constant": 90}]
    assert client.patch(path, json={"fallbacks": chain}).json()["fallbacks"] == chain
    plan = client.get("/api/v1/plans/latest").json()
    (told,) = plan["substitutions"]
    assert (told["quantity"], told["start_at"]) == ("price", "2026-03-02T12:00:00Z")
    assert (told["source"]["kind"], told["source"]["absence"]) == ("constant", "never_answered")
    assert plan["intervals"][0]["price_source"]["value"] == 90
    bad = client.patch(path, json={"fallbacks": [{"feed": "gone"}]})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["field"] == "fallbacks[0].feed"
    metrics = client.get("/metrics").text
    ratios = {
        sample.labels["quantity"]: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "pals_grid_plan_substitute_ratio"
    }
    assert ratios == {"price": 1.0}


def test_a_tariff_names_the_version_that_it_was_made_against(
    client: TestClient, world: World
) -> None:
    world.make_site()
    assert client.get(TARIFFS).json()["version"] == 0

    def put(name: str, version: int) -> Any:  # noqa: ANN401 - a response
        body = {**PLAIN, "name": name}
        return client.put(TARIFFS, json=body, headers={"If-Match": f'"{version}"'})

    first = put("first", 0)
    assert first.status_code == 200
    held = client.get(TARIFFS).json()["version"]
    assert first.headers["etag"] == f'"{held}"'
    late = put("late", 0)
    assert late.status_code == 412
    assert late.json()["detail"] == f'If-Match: must be "{held}", the current version, got "0"'
    assert put("first", 0).status_code == 200  # it is there already
    assert put("second", held).status_code == 200
    names = [item["tariff"]["name"] for item in client.get(TARIFFS).json()["tariffs"]]
    assert names == ["second", "first"]
    assert client.put(TARIFFS, json=PLAIN).status_code == 200


def test_a_number_that_no_float_holds_is_refused_by_its_path(
    client: TestClient, world: World
) -> None:
    world.make_site()
    huge = "1" + 400 * "0"
    text = f'{{"name": "x", "valid_from_at": "2026-03-02T12:00:00Z", "factor": {huge}}}'
    for path in (TARIFFS, f"{TARIFFS}/preview"):
        send = client.put if path == TARIFFS else client.post
        answer = send(path, content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["field"] == "factor"
    feed = world.make_feed()
    chain = f'{{"fallbacks": [{{"constant": {huge}}}]}}'
    answer = client.patch(
        f"/api/v1/feeds/{feed.id}", content=chain, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert "must be from -1e+06 to 1e+06" in answer.text


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000"])
def test_what_is_no_text_is_refused_by_its_path(
    client: TestClient, world: World, text: str
) -> None:
    world.make_site()
    headers = {"Content-Type": "application/json"}
    begin = '{"valid_from_at": "2026-03-02T12:00:00Z", '
    for body, field in ((f'"name": "{text}"}}', "name"), (f'"name": "x", "{text}": 1}}', text)):
        answer = client.post(f"{TARIFFS}/preview", content=begin + body, headers=headers)
        assert answer.status_code == 422, answer.text
        assert json.dumps(answer.json()["errors"][0]["field"]) == f'"{field}"'
