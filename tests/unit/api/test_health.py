from __future__ import annotations

import re
from datetime import timedelta
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pals_grid.core.events import EventRequest
from pals_grid.core.feed import FeedHealth
from pals_grid.service.events import create_event
from pals_grid.service.nodes import authenticate_node, record_status
from pals_grid.service.telemetry import ingest
from pals_grid.store import migrate
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.providers import ProviderRepository
from pals_grid.wire.messages import GpuStatus
from tests.unit.service.world import T0, batch, status

if TYPE_CHECKING:
    from tests.unit.api.client import TestClient
    from tests.unit.service.world import World


def test_the_process_and_its_database_answer(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    ready = client.get("/readyz")
    assert ready.json() == {"status": "ready", "revision": migrate.head_revision()}


def test_not_ready_behind_the_migrations(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "head_revision", lambda: "9999")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "9999" in answer.json()["detail"]
    assert client.get("/healthz").status_code == 200


def test_not_ready_without_an_answer(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_url: str) -> str:
        raise OSError("secret-host refused")

    monkeypatch.setattr(migrate, "current_revision", silent)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "secret-host" not in answer.text


Samples = dict[tuple[str, str], float]


def scrape(client: TestClient, **wanted: str) -> Samples:
    """Values by name and boundary or direction, of the samples with these labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if wanted.items() <= sample.labels.items():
                side = sample.labels.get("boundary") or sample.labels.get("direction") or ""
                found[sample.name, side] = sample.value
    return found


def test_metrics_say_what_the_service_knows(client: TestClient, world: World) -> None:
    world.make_site()
    world.price.say(50.0)
    feed = world.make_feed()
    node = authenticate_node(world.context, world.register().node_token)
    record_status(world.context, node, status())
    order = EventRequest("now", T0, T0 + timedelta(hours=1), limit_w=600.0)
    create_event(world.context, "oslo", order)
    client.post(f"/api/v1/feeds/{feed.id}/fetch")
    world.clock.advance(300)
    ingest(world.context, node, batch(T0, 60))
    record_status(world.context, node, status(world.clock.now()))
    found = scrape(client, site="oslo")
    assert found["pals_grid_energy_joules_total", "node"] == pytest.approx(60 * 5000)
    assert found["pals_grid_energy_joules_total", "gpu"] == pytest.approx(60 * 4000)
    assert found["pals_grid_tokens_total", "out"] == pytest.approx(60 * 250)
    assert found["pals_grid_energy_joules_per_token", "node"] == pytest.approx(20)
    assert found["pals_grid_node_power_watts", ""] == 800.0
    assert found["pals_grid_node_online", ""] == 1
    assert found["pals_grid_event_active", ""] == 1
    assert found["pals_grid_power_budget_watts", ""] <= 600.0
    assert found["pals_grid_plan_version", ""] >= 1
    assert found["pals_grid_feed_up", ""] == 1
    assert found["pals_grid_feed_age_seconds", ""] == pytest.approx(300)


def test_alerts_are_about_metrics_that_there_are(client: TestClient, world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    told = FeedHealth(T0, T0, provider_key="price:host", credit_left=4.0, clock_skew_s=90.0)
    with world.database.begin() as connection:
        FeedRepository(connection).record_health(feed.id, told)
        ProviderRepository(connection).admit("price:host", T0, T0, 0.0, 0.0)
    found = scrape(client, site="oslo")
    assert found["pals_grid_feed_credit_left", ""] == 4
    assert found["pals_grid_feed_clock_skew_seconds", ""] == 90
    assert found["pals_grid_feed_held_back", ""] == 0
    assert (found["pals_grid_feed_stale", ""], found["pals_grid_feed_late", ""]) == (0, 0)
    rules = files("pals_grid_dashboards").joinpath("prometheus/feeds.yml").read_text("utf-8")
    (group,) = yaml.safe_load(rules)["groups"]
    named = {name for rule in group["rules"] for name in re.findall(r"pals_\w+", rule["expr"])}
    assert len(named) == 6
    assert named <= {name for name, _ in found}
    labels = {name for rule in group["rules"] for name in re.findall(r"labels\.(\w+)", str(rule))}
    assert labels == {"feed", "site"}


def test_metrics_say_where_node_power_comes_from_and_what_holds_a_clock(
    client: TestClient, world: World
) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    gpu = GpuStatus(
        gpu_uuid="GPU-1",
        power_draw_w=300.0,
        power_limit_w=300.0,
        clock_reasons=["power_limit", "thermal"],
    )
    now = msgspec.structs.replace(status(), gpus=[gpu], node_power_source="redfish")
    record_status(world.context, node, now)
    assert scrape(client, source="redfish")["pals_grid_node_power_watts", ""] == 800.0
    for reason in ("power_limit", "thermal"):
        assert scrape(client, reason=reason)["pals_grid_gpu_clock_reason", ""] == 1
    assert scrape(client, reason="idle") == {}


def test_counters_only_rise_over_days_and_count_late_rows(client: TestClient, world: World) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    total = ("pals_grid_energy_joules_total", "node")
    world.clock.advance(600)
    ingest(world.context, node, batch(T0, 12, seq=1))
    assert scrape(client, site="oslo")[total] == pytest.approx(12 * 5000)
    world.clock.advance(80 * 3600)
    assert scrape(client, site="oslo")[total] == pytest.approx(12 * 5000)
    late = world.clock.now() - timedelta(hours=20)
    ingest(world.context, node, batch(late, 12, seq=2))
    assert scrape(client, site="oslo")[total] == pytest.approx(24 * 5000)
    assert scrape(client, site="oslo")[total] == pytest.approx(24 * 5000)


def test_a_node_that_is_away_has_no_power(client: TestClient, world: World) -> None:
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    record_status(world.context, node, status())
    world.clock.advance(60)
    found = scrape(client, site="oslo")
    assert found["pals_grid_node_online", ""] == 0
    assert ("pals_grid_node_power_watts", "") not in found


def test_the_openapi_document_describes_the_wire(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    schemas = document["components"]["schemas"]
    body = document["paths"]["/api/v1/nodes/{node_id}/telemetry"]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    assert name == "TelemetryBatch"
    assert "engine_rows" in schemas[name]["properties"]
    text = client.get("/api/v1/openapi.json").text
    for part in text.split('"$ref":"#/components/schemas/')[1:]:
        assert part.split('"')[0] in schemas
    for path in ("sites", "nodes", "feeds/{feed_id}/series", "plans", "envelopes", "events"):
        assert f"/api/v1/{path}" in document["paths"]


def test_no_page_loads_scripts_from_elsewhere(client: TestClient) -> None:
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
