"""Live grants through the API: what goes wrong between nodes and replicas never adds up."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.api.app import build_api
from pals_grid.core.grant import GrantHolder
from pals_grid.service.nodes import authenticate_node
from pals_grid.store.grants import GrantRow, PowerGrantRepository
from pals_grid.store.listen import Notifications
from pals_grid.wire.messages import StatusReply, decode, encode
from tests.unit.api.client import TestClient
from tests.unit.service.live.live_world import QUIET_S, LiveWorld
from tests.unit.service.world import T0, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pals_grid.store.engine import Database
    from tests.unit.service.live.live_world import Machine

BUDGET_W = 4000.0


@pytest.fixture
def live(database: Database) -> LiveWorld:
    return LiveWorld(database)


@pytest.fixture
def client(live: LiveWorld) -> Iterator[TestClient]:
    app = build_api(live.context, Notifications(live.database.url))
    with TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False) as found:
        yield found


class Network:
    """Statuses and answers that get lost, come late or twice; writes of grants that come late."""

    def __init__(self, live: LiveWorld, client: TestClient, seed: int) -> None:
        self.live, self.client = live, client
        self.rng = random.Random(seed)
        self.pending: list[tuple[float, Callable[[], None]]] = []
        self.cut_off: dict[int, float] = {}

    @property
    def now_s(self) -> float:
        return (self.live.clock.now() - T0).total_seconds()

    def send(self, node_id: int, deliver: Callable[[], None]) -> None:
        if self.rng.random() < 0.1 or self.cut_off.get(node_id, 0) > self.now_s:
            return
        for _ in range(1 + (self.rng.random() < 0.1)):
            late_s = self.rng.uniform(0, 15) if self.rng.random() < 0.2 else 0.0
            self.pending.append((self.now_s + late_s, deliver))

    def deliver_due(self) -> None:
        due = [item for item in self.pending if item[0] <= self.now_s]
        self.pending = [item for item in self.pending if item[0] > self.now_s]
        for _, deliver in due:
            deliver()

    def speak(self, machine: Machine) -> None:
        asked_s, body, holder = self.now_s, encode(machine.status()), machine.holder
        headers = {"Authorization": f"Bearer {machine.token}"}

        def arrive() -> None:
            path = f"/api/v1/nodes/{machine.node.id}/status"
            answer = self.client.post(path, content=body, headers=headers)
            assert answer.status_code == 200
            reply = decode(answer.content, StatusReply)

            def back() -> None:
                if machine.holder is holder:  # else the agent that asked is gone
                    machine.take(reply, asked_s)

            self.send(machine.node.id, back)

        self.send(machine.node.id, arrive)

    def live_on(self, second_s: int) -> None:
        """A second in the nodes' lives."""
        for i, machine in enumerate(self.live.machines):
            self.trouble(machine)
            if (second_s + i) % 2 == 0:
                self.speak(machine)
        self.deliver_due()

    def trouble(self, machine: Machine) -> None:
        if self.rng.random() < 0.01:
            self.cut_off[machine.node.id] = self.now_s + self.rng.uniform(5, 50)
        if self.rng.random() < 0.01:
            machine.holder = GrantHolder(machine.holder.grant, self.now_s)
        if self.rng.random() < 0.05:
            machine.wants_w = self.rng.uniform(300, 2000)


def write_late(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tenth of the rounds hang before they write, up to 20 s."""
    write = PowerGrantRepository.write

    def late_write(own: PowerGrantRepository, holder: str, rows: list[GrantRow]) -> int:
        if network.rng.random() > 0.1:
            return write(own, holder, rows)

        def later() -> None:
            with network.live.database.begin() as connection:
                write(PowerGrantRepository(connection), holder, rows)

        network.pending.append((network.now_s + network.rng.uniform(0, 20), later))
        return 0

    monkeypatch.setattr(PowerGrantRepository, "write", late_write)


@pytest.mark.parametrize("seed", range(2))
def test_through_the_api_the_commanded_sum_stays_inside_the_budget(
    live: LiveWorld, client: TestClient, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    network = Network(live, client, seed)
    live.make_live_site()
    for i in range(5):
        live.add(str(i), takes_grants=i > 0)
    for machine in live.machines:
        machine.fetch()
    first, second = live.allocator("first"), live.allocator("second")
    live.rounds(first, 10 + QUIET_S)
    write_late(network, monkeypatch)
    raised = 0
    for second_s in range(220):
        network.live_on(second_s)
        if second_s % 5 == 0:
            second.round()
        if second_s % 5 == 0 and not 60 <= second_s <= 100:  # it hangs, and does not know it
            first.round()
        assert live.commanded_w <= BUDGET_W + 1e-6
        raised += sum(m.goes_by_w > m.scheduled_w + 1 for m in live.machines)
        live.pass_s(1)
    assert raised > 20
    assert (len(first.sites), len(second.sites)) == (0, 1)


def test_the_answer_to_a_status_holds_the_grant_with_what_is_left_of_it(
    live: LiveWorld, client: TestClient
) -> None:
    live.make_live_site()
    machine = live.add("a")
    headers = {"Authorization": f"Bearer {machine.token}"}
    path = f"/api/v1/nodes/{machine.node.id}/status"

    def ask() -> Any:  # noqa: ANN401
        answer = client.post(path, content=encode(machine.status()), headers=headers)
        assert answer.status_code == 200
        return answer.json()["grant"]

    assert ask() is None
    allocator = live.allocator()
    allocator.round()
    allocator.round()
    epoch, now_s = allocator.sites[1].epoch, live.clock.now().timestamp()
    with live.database.begin() as connection:
        row = GrantRow(machine.node.id, 1, epoch, 7, 1234.5, 20.0, now_s + 20)
        PowerGrantRepository(connection).write("a", [row])
    live.pass_s(8)
    assert ask() == {"epoch": epoch, "sequence": 7, "power_w": 1234.5, "lease_s": 12.0}
    live.pass_s(0, database_s=-100)
    assert ask()["lease_s"] == 20.0  # never more than it was made for
    machine.takes_grants = False
    assert ask() is None
    machine.takes_grants = True
    live.pass_s(0, database_s=112)
    assert ask() is None


def test_a_node_is_shown_with_its_plan_and_its_grant(live: LiveWorld, client: TestClient) -> None:
    live.make_live_site()
    machines = [live.add(name) for name in "abcd"]
    for machine in machines:
        machine.fetch()
    machines[0].wants_w = 1900.0
    live.rounds(live.allocator(), 10 + QUIET_S + 30)
    machines[1].speak()  # takes it, and says so the next time
    machines[1].speak()
    idle = machines[1].node.id
    (_, found, *_) = client.get("/api/v1/nodes").json()["items"]
    assert found == client.get(f"/api/v1/nodes/{idle}").json()
    assert found["planned"]["power_max_w"] == pytest.approx(1000.0)
    assert found["planned"]["reason"] == "maximum"
    assert found["held_grant_w"] == found["grant"]["power_w"] < 1000.0
    live.machines[1].holder = GrantHolder()
    live.machines[1].takes_grants = False
    live.machines[1].speak()
    assert client.get(f"/api/v1/nodes/{idle}").json()["held_grant_w"] is None
    metrics = client.get("/metrics").text
    for name in ("rounds", "excess_watts", "liars", "epoch", "lent_watts"):
        assert f'pals_grid_live_{name}{{site="oslo"}}' in metrics
    assert 'pals_grid_live_sites{replica="a"} 1.0' in metrics
    assert 'pals_grid_live_round_seconds{replica="a"}' in metrics
    assert 'pals_grid_live_other_load_watts{origin="modelled",site="oslo"' in metrics


def test_agents_of_before_are_answered_as_ever(live: LiveWorld, client: TestClient) -> None:
    live.make_live_site()
    token = live.add("a").token
    node_id = authenticate_node(live.context, token).id
    answer = client.post(
        f"/api/v1/nodes/{node_id}/status",
        content=encode(status()),
        headers={"Authorization": f"Bearer {token}"},
    )
    assert (answer.status_code, answer.json()["grant"]) == (200, None)


def test_live_grants_of_a_site_can_be_asked_for(live: LiveWorld, client: TestClient) -> None:
    live.make_live_site()
    live.add("a").fetch()
    before = client.get("/api/v1/sites/oslo/grants").json()
    assert before == {"mode": "on", "running": False, "last": None}
    live.rounds(live.allocator(), 15)
    found = client.get("/api/v1/sites/oslo/grants").json()
    assert (found["running"], found["last"]["rounds"]) == (True, 2)
    assert found["last"]["record"]["other_load"]["origin"] == "modelled"
    live.pass_s(60)
    assert not client.get("/api/v1/sites/oslo/grants").json()["running"]
    assert client.get("/api/v1/sites/none/grants").status_code == 404


def test_readings_of_a_site_s_meter_are_taken_once(live: LiveWorld, client: TestClient) -> None:
    live.make_live_site()
    assert client.get("/api/v1/sites/oslo/meter").json() == {"latest": None}
    readings = [
        {"at": (T0 - timedelta(seconds=s)).isoformat(), "power_w": 1000.0 + s, "source": "meter"}
        for s in (5, 0, 10)
    ]
    for inserted in (3, 0):
        answer = client.post("/api/v1/sites/oslo/meter", json={"readings": readings})
        assert (answer.status_code, answer.json()) == (200, {"inserted": inserted})
    latest = client.get("/api/v1/sites/oslo/meter").json()["latest"]
    assert (latest["power_w"], latest["source"]) == (1000.0, "meter")


@pytest.mark.parametrize(
    ("wrong", "field", "bound"),
    [
        ({"at": "2026-03-02T12:00:00"}, "at", "with offset"),
        ({"at": "2026-03-02T12:00:06Z"}, "readings[1].at", "at most 5 s ahead"),
        ({"at": "2026-03-01T11:59:59Z"}, "readings[1].at", "at most 24 h old"),
        ({"power_w": -1.0}, "readings[1].power_w", "from 0 to 100000"),
        ({"power_w": 100_001.0}, "readings[1].power_w", "from 0 to 100000"),
        ({"power_w": "NaN"}, "power_w", "finite"),
        ({"source": ""}, "source", "at least 1"),
        ({"source": "  "}, "readings[1].source", "1 to 200 characters"),
        ({"unit": "kW"}, "unit", "not permitted"),
    ],
)
def test_readings_that_cannot_be_are_refused_whole(
    live: LiveWorld, client: TestClient, wrong: dict[str, Any], field: str, bound: str
) -> None:
    live.make_live_site()
    good = {"at": T0.isoformat(), "power_w": 1.0, "source": "meter"}
    answer = client.post("/api/v1/sites/oslo/meter", json={"readings": [good, good | wrong]})
    assert answer.status_code == 422
    assert field in answer.text
    assert bound in answer.text
    assert client.get("/api/v1/sites/oslo/meter").json() == {"latest": None}


def test_too_many_readings_or_none_are_refused(live: LiveWorld, client: TestClient) -> None:
    live.make_live_site()
    good = {"at": T0.isoformat(), "power_w": 1.0, "source": "meter"}
    for readings in ([], [good] * 1001):
        answer = client.post("/api/v1/sites/oslo/meter", json={"readings": readings})
        assert answer.status_code == 422
