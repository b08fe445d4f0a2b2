from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.core.errors import FeedUnavailable
from pals_grid.forecast.issued import ForecastValue
from pals_grid.service.nodes import authenticate_node
from pals_grid.service.telemetry import ingest
from pals_grid.store.forecasts import ForecastRepository
from tests.unit.service.test_forecasting import load_forecaster
from tests.unit.service.world import T0, batch

if TYPE_CHECKING:
    from tests.unit.api.client import TestClient
    from tests.unit.service.world import World

HOUR = timedelta(hours=1)


def order(**changes: object) -> dict[str, Any]:
    return {
        "name": "evening",
        "start_at": (T0 + HOUR).isoformat(),
        "end_at": (T0 + 2 * HOUR).isoformat(),
        "limit_w": 800.0,
        **changes,
    }


def test_a_feed_is_added_fetched_and_read_back(client: TestClient, world: World) -> None:
    world.make_site()
    world.price.say(50.0, 60.0)
    made = client.post("/api/v1/feeds", json={"name": "agile", "connector": "price"})
    assert made.status_code == 201
    path = made.headers["location"]
    outcome = client.post(f"{path}/fetch").json()
    assert outcome == {"feed_id": made.json()["id"], "fetched": 2, "stored": 2, "error": None}
    shown = client.get(path).json()
    assert shown["current"]["value"] == 50.0
    assert shown["health"]["last_error"] is None
    series = client.get(f"{path}/series").json()
    assert [item["value"] for item in series["items"]] == [50.0, 60.0]
    assert series["items"][0]["start_at"] == "2026-03-02T12:00:00Z"
    day = {"start_at": T0.isoformat(), "end_at": (T0 + HOUR).isoformat(), "step_s": 1800}
    assert client.get(f"{path}/values", params=day).json() == {
        "feed_id": made.json()["id"],
        "quantity": "price",
        "unit": "EUR/MWh",
        "start_at": "2026-03-02T12:00:00Z",
        "end_at": "2026-03-02T13:00:00Z",
        "step_s": 1800,
        "values": [50.0, 60.0],
    }
    assert client.get(f"{path}/values", params={"step_s": 1}).status_code == 422
    before = {"as_of": (T0 - HOUR).isoformat()}
    assert client.get(f"{path}/series", params=before).json()["items"] == []
    past = {"start_at": (T0 - HOUR).isoformat(), "end_at": T0.isoformat()}
    filled = client.post(f"{path}/backfill", json=past).json()
    assert filled == {"feed_id": made.json()["id"], "fetched": 2, "stored": 0, "error": None}
    assert client.delete(path).status_code == 204
    assert client.get("/api/v1/feeds").json()["items"] == []


@pytest.mark.parametrize(
    "path", [f"nodes/{10**20}", f"events/{10**20}/delivery", "sites/%00", "plans?site=%00"]
)
def test_a_key_that_no_column_holds_is_bad_input(client: TestClient, path: str) -> None:
    answer = client.get(f"/api/v1/{path}")
    assert answer.status_code == 422
    assert "cannot be stored or looked for" in answer.json()["detail"]


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-05:00"])
def test_an_instant_out_of_all_bounds_is_named(client: TestClient, text: str) -> None:
    answer = client.get("/api/v1/telemetry", params={"site": "oslo", "end_at": text})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "end_at"
    assert "from 1970 to 2199" in answer.json()["errors"][0]["bound"]


def test_a_preview_stores_nothing_and_tells_the_provider_s_error(
    client: TestClient, world: World
) -> None:
    world.make_site()
    world.price.say(50.0)
    body = {"name": "x", "connector": "price"}
    found = client.post("/api/v1/feeds/preview", json=body).json()["observations"]
    assert [item["value"] for item in found] == [50.0]
    world.price.error = FeedUnavailable("HTTP 503 from the market", 30)
    failed = client.post("/api/v1/feeds/preview", json=body)
    assert (failed.status_code, failed.headers["retry-after"]) == (502, "30")
    assert "HTTP 503 from the market" in failed.json()["detail"]
    assert client.get("/api/v1/feeds").json()["items"] == []


def test_an_unknown_connector_is_named(client: TestClient, world: World) -> None:
    world.make_site()
    answer = client.post("/api/v1/feeds", json={"name": "x", "connector": "moon"})
    assert answer.json()["errors"][0]["field"] == "connector"


def test_an_event_is_ordered_planned_shown_and_cancelled(client: TestClient, world: World) -> None:
    world.make_site()
    world.register()
    made = client.post("/api/v1/events", json=order())
    assert made.status_code == 201
    path, tag = made.headers["location"], made.headers["etag"]
    assert made.json()["ordered_w"] == 800.0
    plan = client.get("/api/v1/plans/latest").json()
    during = [i for i in plan["intervals"] if i["event_id"] == made.json()["id"]]
    assert during
    assert all(item["limit_w"] <= 800.0 and item["explanation"] for item in during)
    assert client.get("/api/v1/plans").json()["items"][0]["version"] == plan["version"]
    assert client.get(f"/api/v1/plans/{plan['version']}").json() == plan
    assert client.get(f"/api/v1/plans/{plan['version']}/evidence").json() == []
    envelopes = client.get("/api/v1/envelopes").json()
    assert {item["node_id"] for item in envelopes} == {1}
    delivery = client.get(f"{path}/delivery").json()
    assert (delivery["mean_power_w"], delivery["points"]) == (None, [])
    stale = client.post(f"{path}/cancel", headers={"If-Match": '"99"'})
    assert stale.status_code == 412
    assert client.get(path).json()["status"] == "scheduled"
    gone = client.post(f"{path}/cancel", headers={"If-Match": tag})
    assert gone.json()["status"] == "cancelled"
    assert client.post(f"{path}/cancel", headers=dict(gone.headers)).status_code == 409
    assert len(client.get("/api/v1/events").json()["items"]) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"start_at": "2026-03-02T13:00:00"}, "start_at"),
        ({"start_at": 1772456400}, "start_at"),
        ({"end_at": (T0 + HOUR / 2).isoformat()}, "end_at"),
        ({"reduction_ratio": 0.5}, "limit_w, reduction_ratio"),
        ({"limit_w": "inf"}, "limit_w"),
        ({"limit_kw": 1.0}, "limit_kw"),
        ({"name": ""}, "name"),
    ],
)
def test_bad_orders_are_named(
    client: TestClient, world: World, change: dict[str, Any], field: str
) -> None:
    world.make_site()
    answer = client.post("/api/v1/events", json=order(**change))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert client.get("/api/v1/events").json()["items"] == []


def metered(world: World) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    ingest(world.context, node, batch(T0 - timedelta(minutes=10), 60))


def test_the_energy_report_adds_up(client: TestClient, world: World) -> None:
    metered(world)
    report = client.get("/api/v1/reports/energy", params={"by": "node,model"}).json()
    assert report["by"] == ["node", "model"]
    (row,) = report["rows"]
    assert row["node_energy_kwh"] == pytest.approx(60 * 5000 / 3.6e6)
    assert row["node_energy_j_per_token"] == pytest.approx(20.0)
    assert row["origins"] == ["simulated"]
    assert (row["cost"], row["priced_ratio"]) == (None, 0.0)
    assert report["total"]["tokens_out"] == row["tokens_out"]


@pytest.mark.parametrize(
    ("params", "headers"), [({"format": "csv"}, {}), ({}, {"Accept": "text/csv"})]
)
def test_the_energy_report_as_csv_has_units_in_its_header(
    client: TestClient, world: World, params: dict[str, str], headers: dict[str, str]
) -> None:
    metered(world)
    answer = client.get("/api/v1/reports/energy", params=params, headers=headers)
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["node"], row["cost_eur"], row["origins"]) == ("gpu-1", "", "simulated")
    assert float(row["gpu_energy_kwh"]) == pytest.approx(60 * 4000 / 3.6e6)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"by": "colour"}, "by"),
        ({"start_at": "2024-01-01T00:00:00Z"}, "end_at"),
        ({"start_at": "2026-01-01T00:00:00Z", "by": "hour"}, "end_at"),
        ({"start_at": "2026-01-01T00:00:00"}, "start_at"),
        ({"format": "xml"}, "format"),
    ],
)
def test_bad_questions_are_named(
    client: TestClient, world: World, params: dict[str, str], field: str
) -> None:
    world.make_site()
    answer = client.get("/api/v1/reports/energy", params=params)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_a_step_may_not_give_too_many_points(client: TestClient, world: World) -> None:
    world.make_site()
    params = {"start_at": (T0 - timedelta(days=30)).isoformat(), "step_s": "5"}
    answer = client.get("/api/v1/telemetry", params=params)
    assert answer.json()["errors"][0]["field"] == "step_s"


def test_an_offset_whose_plus_was_not_encoded_is_understood(
    client: TestClient, world: World
) -> None:
    world.make_site()
    answer = client.get("/api/v1/reports/energy?end_at=2026-03-02T13:00:00+01:00")
    assert answer.json()["end_at"] == datetime(2026, 3, 2, 12, tzinfo=UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def test_forecasts_say_why_there_is_none(client: TestClient, world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    for path in (f"/api/v1/feeds/{feed.id}/forecast", "/api/v1/forecasts/load"):
        found = client.get(path).json()
        assert found["state"] == "no model yet: waiting for its first training"
        assert (found["origin"], found["is_used"], found["values"]) == ("modelled", False, [])
    assert client.get("/api/v1/feeds/99/forecast").status_code == 404


def test_a_forecast_says_at_which_leads_it_is_used(client: TestClient, world: World) -> None:
    """The hold-out is better up to an hour; after it the rival's value stands."""
    site = world.make_site()
    begin_s = int(T0.timestamp())
    steps = [
        ForecastValue(begin_s + 3600 * i, begin_s + 3600 * (i + 1), 50.0, 70.0, 99.0, 60.0)
        for i in range(2)
    ]
    with world.database.begin() as connection:
        repository = ForecastRepository(connection)
        made = repository.store(load_forecaster(site.id))
        repository.add_values(made.id, T0, steps)
    world.clock.advance(1800)
    found = client.get("/api/v1/forecasts/load").json()
    assert [(band["up_to_h"], band["is_used"]) for band in found["bands"]] == [
        (1, True),
        *((up_to_h, False) for up_to_h in (3, 6, 12, 18, 24, 48)),
    ]
    assert found["bands"][1]["score"]["rival_mae"] == 2
    assert [(step["rival"], step["taken"]) for step in found["values"]] == [(60, 70), (60, 60)]
