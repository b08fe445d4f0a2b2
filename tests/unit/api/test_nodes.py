from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from pals_grid.core.events import EventRequest
from pals_grid.service.events import create_event
from pals_grid.wire.messages import (
    EnvelopeSchedule,
    RegisterReply,
    TelemetryAck,
    decode,
    encode,
)
from tests.unit.service.world import T0, batch, registration, status

if TYPE_CHECKING:
    from httpx import Response

    from tests.unit.api.client import TestClient
    from tests.unit.service.world import World


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def node(client: TestClient, world: World) -> RegisterReply:
    world.make_site()
    made = client.post("/api/v1/sites/oslo/enrolment-tokens")
    answer = client.post(
        "/api/v1/nodes/register",
        content=encode(registration()),
        headers=bearer(made.json()["enrolment_token"]),
    )
    assert answer.status_code == 201
    return decode(answer.content, RegisterReply)


def test_a_node_joins_and_is_shown(client: TestClient, node: RegisterReply, world: World) -> None:
    own = bearer(node.node_token)
    path = f"/api/v1/nodes/{node.node_id}"
    assert client.get(path).json()["status"] is None
    assert client.post(f"{path}/status", content=encode(status()), headers=own).status_code == 200
    shown = client.get(path).json()
    assert shown["online"] is True
    assert shown["status"]["node_power_w"] == 800.0
    assert shown["gpu_model"] == "H100"
    world.clock.advance(20)
    assert client.get("/api/v1/nodes").json()["items"][0]["online"] is False


def test_no_token_or_a_wrong_one_is_401_and_another_node_s_is_403(
    client: TestClient, node: RegisterReply, world: World
) -> None:
    other = world.register("gpu-2")
    path = f"/api/v1/nodes/{node.node_id}/status"
    body = encode(status())
    assert client.post(path, content=body).status_code == 401
    assert client.post(path, content=body, headers=bearer("wrong")).status_code == 401
    assert client.post(path, content=body, headers=bearer(other.node_token)).status_code == 403
    refused = client.post(
        "/api/v1/nodes/register", content=encode(registration()), headers=bearer("wrong")
    )
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


def test_telemetry_is_taken_once(client: TestClient, node: RegisterReply) -> None:
    path = f"/api/v1/nodes/{node.node_id}/telemetry"
    body = encode(batch(T0 - timedelta(minutes=5), 12))
    acks = [
        decode(
            client.post(path, content=body, headers=bearer(node.node_token)).content, TelemetryAck
        )
        for _ in range(2)
    ]
    assert [ack.engine_rows_inserted for ack in acks] == [12, 0]
    rows = client.get("/api/v1/telemetry/rows", params={"limit": 5}).json()
    assert len(rows["items"]) == 5
    assert rows["items"][0]["row"]["node_energy_j"] == 5000.0
    points = client.get("/api/v1/telemetry", params={"step_s": 60}).json()
    assert [point["node_power_w"] for point in points] == [1000.0]


def test_a_message_out_of_bounds_is_named(client: TestClient, node: RegisterReply) -> None:
    body = msgspec.to_builtins(status()) | {"node_power_w": -1.0}
    answer = client.post(
        f"/api/v1/nodes/{node.node_id}/status", json=body, headers=bearer(node.node_token)
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "node_power_w"
    assert answer.json()["errors"][0]["value"] == -1.0


def fetch(client: TestClient, node: RegisterReply, after_version: int, wait_s: float) -> Response:
    answer: Response = client.get(
        f"/api/v1/nodes/{node.node_id}/envelopes",
        params={"after_version": after_version, "wait_s": wait_s},
        headers=bearer(node.node_token),
    )
    return answer


def test_the_schedule_is_there_at_once_and_newer_ones_are_waited_for(
    client: TestClient, node: RegisterReply, world: World
) -> None:
    schedule = decode(fetch(client, node, 0, 0).content, EnvelopeSchedule)
    assert schedule.intervals
    assert fetch(client, node, schedule.version, 0).status_code == 204
    began_s = time.monotonic()
    ordering = threading.Timer(0.1, lambda: create_event(world.context, "oslo", _order()))
    ordering.start()
    newer = decode(fetch(client, node, schedule.version, 30).content, EnvelopeSchedule)
    ordering.join()
    assert newer.version > schedule.version
    assert time.monotonic() - began_s < 25  # sooner than the wait would end
    assert min(item.power_max_w for item in newer.intervals) <= 600.0


def _order() -> EventRequest:
    return EventRequest("dip", T0 + timedelta(hours=1), T0 + timedelta(hours=2), limit_w=600.0)


def test_a_removed_node_is_gone_and_its_token_void(client: TestClient, node: RegisterReply) -> None:
    path = f"/api/v1/nodes/{node.node_id}"
    assert client.delete(path).status_code == 204
    assert client.delete(path).status_code == 404
    assert client.get(path).status_code == 404
    assert client.get("/api/v1/nodes").json()["items"] == []
    assert fetch(client, node, 0, 0).status_code == 401
    sign = client.post(f"{path}/status", content=encode(status()), headers=bearer(node.node_token))
    assert sign.status_code == 401


def test_a_name_that_no_column_holds_is_refused(client: TestClient, node: RegisterReply) -> None:
    said = msgspec.structs.replace(status(), mode="follow\0ing")
    path = f"/api/v1/nodes/{node.node_id}/status"
    answer = client.post(path, content=encode(said), headers=bearer(node.node_token))
    assert answer.status_code == 422
    token = client.post("/api/v1/sites/oslo/enrolment-tokens").json()["enrolment_token"]
    body = encode(registration("gpu\0"))
    answer = client.post("/api/v1/nodes/register", content=body, headers=bearer(token))
    assert answer.status_code == 422
    assert "NUL" in answer.json()["detail"]


def test_a_wait_without_news_ends(client: TestClient, node: RegisterReply) -> None:
    began_s = time.monotonic()
    assert fetch(client, node, 10_000, 0.2).status_code == 204
    assert 0.2 <= time.monotonic() - began_s < 25  # less than the longest wait


def test_a_wait_is_bounded(client: TestClient, node: RegisterReply) -> None:
    assert fetch(client, node, 0, 31).status_code == 422
