from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.unit.api.client import TestClient
    from tests.unit.service.world import World

OSLO = {
    "slug": "oslo",
    "name": "Oslo",
    "grid_connection_w": 10_000.0,
    "minimum_w": 500.0,
    "safe_limit_w": 3000.0,
}


def test_a_site_is_created_read_and_listed(client: TestClient) -> None:
    made = client.post("/api/v1/sites", json=OSLO)
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/sites/oslo"
    found = client.get("/api/v1/sites/oslo")
    assert found.json() == made.json()
    assert found.json()["slo"] == {"ttft_s": 2.0, "itl_s": 0.1}
    assert found.headers["etag"] == f'"{found.json()["version"]}"'
    assert client.get("/api/v1/sites").json() == {"items": [found.json()], "next_cursor": None}


def test_a_slug_is_taken_once(client: TestClient) -> None:
    client.post("/api/v1/sites", json=OSLO)
    assert client.post("/api/v1/sites", json=OSLO).status_code == 409


def test_tiers_and_bounds_are_kept_replaced_and_taken_away(client: TestClient) -> None:
    tiers = [
        {"name": "gold", "demand_ratio": 0.7},
        {"name": "batch", "demand_ratio": 0.3, "deferral_s": 3600.0},
    ]
    client.post("/api/v1/sites", json=OSLO | {"maximum_w": 900.0, "tiers": tiers})
    found = client.get("/api/v1/sites/oslo").json()
    assert found["maximum_w"] == 900.0
    assert found["tiers"][1] == {
        "name": "batch",
        "demand_ratio": 0.3,
        "loss_ratio": 0.0,
        "value_per_mtoken": 0.0,
        "deferral_s": 3600.0,
    }
    change = {"maximum_w": None, "tiers": [{"name": "all", "demand_ratio": 1.0}]}
    changed = client.patch("/api/v1/sites/oslo", json=change).json()
    assert changed["maximum_w"] is None
    assert [tier["name"] for tier in changed["tiers"]] == ["all"]
    assert client.get("/api/v1/sites/oslo").json() == changed


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"minimum_w": 20_000.0}, "minimum_w"),
        ({"minimum_w": "NaN"}, "minimum_w"),
        ({"grid_connection_w": 1e400}, "grid_connection_w"),
        ({"colour": "red"}, "colour"),
        ({"name": None}, "name"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"slo": {"ttft_s": -1.0}}, "slo.ttft_s"),
        ({"maximum_w": 1.0}, "maximum_w"),
        ({"tiers": [{"name": "a", "demand_ratio": 0.5}]}, "tiers.demand_ratio"),
        ({"tiers": [{"name": "a", "demand_ratio": 1.0, "loss_ratio": 2.0}]}, "tiers[0].loss_ratio"),
    ],
)
def test_bad_values_are_named(client: TestClient, change: dict[str, Any], field: str) -> None:
    import json  # noqa: PLC0415 - the client's own encoder refuses infinities

    answer = client.post(
        "/api/v1/sites",
        content=json.dumps(OSLO | change),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert [item["field"] for item in answer.json()["errors"]] == [field]
    assert client.get("/api/v1/sites").json()["items"] == []


def test_a_change_names_the_version_it_was_made_against(client: TestClient) -> None:
    tag = client.post("/api/v1/sites", json=OSLO).headers["etag"]
    change = {"minimum_w": 600.0}
    changed = client.patch("/api/v1/sites/oslo", json=change, headers={"If-Match": tag})
    assert changed.status_code == 200
    assert changed.json()["minimum_w"] == 600.0
    assert changed.json()["name"] == "Oslo"
    assert changed.headers["etag"] != tag
    late = client.patch("/api/v1/sites/oslo", json=change, headers={"If-Match": tag})
    assert late.status_code == 412
    assert changed.headers["etag"] in late.json()["detail"]
    assert client.patch("/api/v1/sites/oslo", json=change).status_code == 200


def test_one_objective_changes_and_the_other_stays(client: TestClient) -> None:
    client.post("/api/v1/sites", json=OSLO | {"slo": {"ttft_s": 3.0, "itl_s": 0.2}})
    changed = client.patch("/api/v1/sites/oslo", json={"slo": {"itl_s": 0.05}})
    assert changed.json()["slo"] == {"ttft_s": 3.0, "itl_s": 0.05}


@pytest.mark.parametrize("tag", ["3", 'W/"3"', '"x"', '""', f'"{5000 * "1"}"'])
def test_an_if_match_that_is_no_version_is_refused(client: TestClient, tag: str) -> None:
    client.post("/api/v1/sites", json=OSLO)
    answer = client.patch("/api/v1/sites/oslo", json={}, headers={"If-Match": tag})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "If-Match"


def test_a_patch_takes_no_null_and_no_slug(client: TestClient) -> None:
    client.post("/api/v1/sites", json=OSLO)
    for change in ({"minimum_w": None}, {"slug": "bergen"}):
        assert client.patch("/api/v1/sites/oslo", json=change).status_code == 422


def test_lists_go_on_by_cursor_and_link(client: TestClient, world: World) -> None:
    for slug in ("a", "b", "c"):
        world.make_site(slug)
    first = client.get("/api/v1/sites", params={"limit": 2})
    assert [item["slug"] for item in first.json()["items"]] == ["a", "b"]
    address = first.headers["link"].removeprefix("<").removesuffix('>; rel="next"')
    second = client.get(address)
    assert [item["slug"] for item in second.json()["items"]] == ["c"]
    assert "link" not in second.headers
    assert second.json()["next_cursor"] is None


@pytest.mark.parametrize(
    ("name", "value"), [("limit", "0"), ("limit", "1001"), ("cursor", "nonsense")]
)
def test_bad_pages_are_named(client: TestClient, name: str, value: str) -> None:
    answer = client.get("/api/v1/sites", params={name: value})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == name


def test_what_the_caller_has_is_not_sent_again(client: TestClient) -> None:
    client.post("/api/v1/sites", json=OSLO)
    for path in ("/api/v1/sites", "/api/v1/sites/oslo"):
        tag = client.get(path).headers["etag"]
        same = client.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/api/v1/sites").headers["etag"].startswith('W/"')


def test_an_unknown_site_is_not_found(client: TestClient) -> None:
    answer = client.get("/api/v1/sites/nowhere")
    assert answer.status_code == 404
    assert "etag" not in answer.headers


def test_the_only_site_needs_no_name(client: TestClient, world: World) -> None:
    assert client.get("/api/v1/nodes").json()["errors"][0]["field"] == "site"
    world.make_site("a")
    assert client.get("/api/v1/nodes").status_code == 200
    world.make_site("b")
    assert client.get("/api/v1/nodes").json()["errors"][0]["bound"].endswith("there are several")
    assert client.get("/api/v1/nodes", params={"site": "b"}).status_code == 200
