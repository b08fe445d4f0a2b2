"""A node of real processes whose parts die: limits are restored, or held while an event lasts.

`make test-deploy` plays a hundred rounds of what a few are played of here.
"""

from __future__ import annotations

import itertools
import random
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.node.helper.leases import LeaseFile
from tests.deploy.world import ORIGINALS, Broken, Mother, Node, play_round, shorten_event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def mother() -> Iterator[Mother]:
    mother = Mother()
    yield mother
    mother.end()


@pytest.fixture
def node(mother: Mother, tmp_path: Path) -> Iterator[Node]:
    node = Node(mother, tmp_path / "node")
    yield node
    node.end()


def is_held(node: Node, limit_w: float) -> bool:
    return max(node.limits_w.values()) <= limit_w + 0.5


def cut(node: Node, limit_w: float, lease_s: float, within_s: float) -> float:
    """Lend the node less, until it says so; return the seconds for which it is sure to hold that.

    The lease is made longer where the machine needs more than ``within_s`` of it.
    """
    for attempt in range(6):
        begun_s = time.monotonic()
        node.order_grant(limit_w, lease_s * 2.0**attempt)
        while (took_s := time.monotonic() - begun_s) < within_s * 2.0**attempt:
            if is_held(node, limit_w) and node.is_acknowledged:
                # Less what passed between question and answer, in which the lease begins.
                return lease_s * 2.0**attempt - 3 * took_s - 1.0
            time.sleep(0.01)
    raise Broken(f"{limit_w} W are never held in time: {node.limits_w}")


def test_ten_rounds_of_kill_9(node: Node) -> None:
    orders = list(itertools.permutations(("agent", "helper", "page", "service")))
    for seed in range(10):
        play_round(node, orders[seed * 5 % 24], random.Random(1000 + seed))
        assert node.problems == [], node.log[-4000:]


def test_a_dry_run_with_a_helper_writes_nothing(node: Node) -> None:
    node.start("helper")
    node.order_event(600, 150.0)
    node.start("dry-run")
    node.until("it has the schedule", (node.folder / "agent" / "schedule.json").exists)
    node.pause(1.0)
    assert node.limits_w == ORIGINALS
    assert not (node.folder / "helper" / "original-limits.json").exists()
    assert not (node.folder / "helper" / "leases.json").exists()
    assert "is in control" not in node.log


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_that_is_gone_in_an_event_lifts_no_limit_and_its_successor_takes_over(
    node: Node, how: int
) -> None:
    node.start("helper")
    node.order_event(600, 150.0)
    node.start("agent")
    node.until("held", lambda: is_held(node, 150.0) and node.is_told)
    node.ceiling_w = 150.0
    node.kill("agent", how)
    node.pause(1.0)  # longer than the grace time
    node.start("agent")
    node.pause(0.5)
    node.order_event(600, 130.0)
    node.until("steered anew", lambda: is_held(node, 130.0))
    assert node.problems == []
    assert node.journal == ORIGINALS


def test_without_service_the_schedule_is_followed_events_included(node: Node) -> None:
    node.start("helper")
    node.order_event(600, 150.0)
    node.start("agent")
    node.until("held", lambda: is_held(node, 150.0) and node.is_told)
    shorten_event(node, 2.5, 150.0)
    node.ceiling_w = 150.0
    node.kill("service")
    node.kill("agent")
    node.start("agent")  # has nothing but its disk
    assert node.event_end_at is not None
    node.pause((node.event_end_at - datetime.now(UTC)).total_seconds())
    assert node.problems == []
    node.until("the interval after the event", lambda: max(node.limits_w.values()) > 160.0)
    assert max(node.limits_w.values()) <= 300.0
    assert node.journal == ORIGINALS


def test_after_a_reboot_the_event_holds_before_the_socket_answers(node: Node) -> None:
    node.start("helper")
    node.order_event(600, 150.0)
    node.start("agent")
    node.until("held", lambda: is_held(node, 150.0) and node.is_told)
    node.reboot()
    (node.folder / "helper.sock").unlink()
    node.start("helper")
    node.until("it listens", (node.folder / "helper.sock").exists)
    assert is_held(node, 150.0)
    node.ceiling_w = 150.0
    node.pause(1.0)
    assert node.problems == []
    assert node.journal == ORIGINALS


def test_after_a_reboot_the_safe_limit_holds_until_an_agent_is_there(node: Node) -> None:
    node.start("helper")
    node.order_demand(170.0)  # less than the safe limit of 250 W: the least of all that is granted
    node.start("agent")
    record = node.folder / "helper" / "leases.json"
    node.until(
        "the lease is told", lambda: record.exists() and b'"lease_until":"' in record.read_bytes()
    )
    node.until("steered", lambda: is_held(node, 170.0))
    node.reboot()
    node.start("helper")
    node.until("safe", lambda: node.limits_w == {"GPU-a": 170.0, "GPU-b": 170.0})
    node.pause(1.0)
    assert node.limits_w == {"GPU-a": 170.0, "GPU-b": 170.0}
    for part in ("page", "service", "agent"):
        node.start(part)
    node.order_demand(220.0)
    node.until("steered", lambda: min(node.limits_w.values()) > 170.5)
    assert node.journal == ORIGINALS


def test_a_node_follows_a_grant_and_goes_back_when_it_ends(node: Node) -> None:
    node.start("helper")
    node.order_demand(200.0)
    node.start("agent")
    node.until("steered", lambda: is_held(node, 200.0))
    node.order_grant(260.0, 600.0)
    node.until("raised", lambda: min(node.limits_w.values()) > 250.0)
    cut(node, 150.0, 4.0, 3.0)
    assert node.status.takes_grants
    node.kill("service")  # and nobody prolongs it
    node.until("back", lambda: min(node.limits_w.values()) > 190.0)
    assert is_held(node, 200.0)
    assert node.problems == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_that_is_gone_under_a_grant_lifts_no_limit_before_it_ends(
    node: Node, how: int
) -> None:
    node.start("helper")
    node.order_demand(200.0)
    node.start("agent")
    left_s = cut(node, 150.0, 12.0, 2.0)
    end_at = datetime.now(UTC) + timedelta(seconds=left_s)
    node.kill("agent", how)
    node.event_end_at, node.ceiling_w = end_at, 150.0
    node.pause(left_s)
    assert node.problems == []
    node.until("restored", lambda: node.limits_w == ORIGINALS and node.journal == {})


def test_an_agent_that_is_gone_under_a_raise_in_an_event_leaves_the_events_limit(
    node: Node,
) -> None:
    node.start("helper")
    node.order_event(600, 150.0)
    node.start("agent")
    node.until("held", lambda: is_held(node, 150.0) and node.is_told)
    node.order_grant(220.0, 600.0)
    node.until("raised", lambda: min(node.limits_w.values()) > 210.0)
    node.kill("agent")
    record = LeaseFile(node.folder / "helper" / "leases.json").record
    assert record is not None
    begin_at = min(hold.start_at for hold in record.holds if hold.end_at == node.event_end_at)
    assert begin_at <= datetime.now(UTC) + timedelta(seconds=10)
    node.until("lowered", lambda: is_held(node, 150.0))
    node.ceiling_w = 150.0
    node.pause(1.0)
    assert node.problems == []
    assert node.journal == ORIGINALS


def test_an_agent_killed_in_the_midst_of_storing_a_grant_keeps_the_one_before(node: Node) -> None:
    node.start("helper")
    node.order_demand(200.0)
    node.start("agent")
    node.order_grant(150.0, 600.0)
    node.until("cut", lambda: is_held(node, 150.0) and node.is_acknowledged)
    node.kill("agent")
    node.start("stalling")
    node.until("it has the old one", lambda: node.status.power_envelope_w == 400.0)
    node.order_grant(250.0, 600.0)
    node.until("in the midst", (node.folder / "stalled").exists)
    node.pause(1.0)
    assert is_held(node, 150.0)
    node.kill("stalling")
    stored = (node.folder / "agent" / "grant.json").read_bytes()
    assert b'"sequence":1,' in stored
    node.kill("service")
    node.ceiling_w, node.event_end_at = 150.0, datetime.now(UTC) + timedelta(hours=1)
    node.start("agent")
    node.pause(3.0)
    assert node.problems == []  # what it kept holds on
    node.ceiling_w = None
    node.start("service")
    node.until("raised", lambda: min(node.limits_w.values()) > 240.0 and node.is_acknowledged)


def test_a_dry_run_takes_no_grant(node: Node) -> None:
    node.order_demand(200.0)
    node.order_grant(150.0, 600.0)
    node.start("dry-run")
    node.until("it shows itself", (node.folder / "status.json").exists)
    node.until("it has the schedule", lambda: node.status.envelope_version > 0)
    node.pause(2.5)
    status = node.status
    assert (status.takes_grants, status.grant_sequence) == (False, 0)
    assert status.power_envelope_w == 500.0
    assert not (node.folder / "agent" / "grant.json").exists()
