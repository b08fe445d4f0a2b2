from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import InvalidValue, LinkRejected, LinkUnavailable
from pals_grid.core.fleet import Origin
from pals_grid.core.grant import Grant
from pals_grid.core.site import Slo
from pals_grid.node import uplink as module
from pals_grid.node.grants import GrantFile, LiveGrants
from pals_grid.node.lease import Lease
from pals_grid.node.link import MessageRefused
from pals_grid.node.rows import Rows
from pals_grid.node.spool import Spool
from pals_grid.node.uplink import Uplink
from pals_grid.wire.messages import (
    CurvePoint,
    EnvelopeSchedule,
    GpuRow,
    NodeStatus,
    PowerGrant,
    RegisterReply,
    RegisterRequest,
    StatusReply,
    TelemetryAck,
)
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pals_grid.wire.messages import TelemetryBatch

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class FakeLink:
    """A service in memory that fails the first calls it is told to fail."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.batches: list[TelemetryBatch] = []
        self.statuses: list[NodeStatus] = []
        self.polls: list[int] = []
        self.version = 1
        self.grant: PowerGrant | None = None

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    def register(self, request: RegisterRequest) -> RegisterReply:
        self._fail()
        return RegisterReply(
            node_id=1, node_token="t", site=request.name, ttft_slo_s=3.0, itl_slo_s=0.2
        )

    def fetch_schedule(self, after_version: int, wait_s: float) -> EnvelopeSchedule | None:
        self.polls.append(after_version)
        for _ in range(int(wait_s / 0.01)):
            if self.version > after_version:
                break
            time.sleep(0.01)
        return EnvelopeSchedule(
            node_id=1, version=self.version, issued_at=START_AT, safe_power_w=5.0, intervals=[]
        )

    def send_telemetry(self, batch: TelemetryBatch) -> TelemetryAck:
        self._fail()
        self.batches.append(batch)
        return TelemetryAck(
            spool_id=batch.spool_id, seq=batch.seq, engine_rows_inserted=0, gpu_rows_inserted=0
        )

    def send_status(self, status: NodeStatus) -> StatusReply:
        self.statuses.append(status)
        return StatusReply(grant=self.grant)


def rows(count: int) -> Rows:
    return Rows(
        (),
        tuple(
            GpuRow(
                gpu_uuid="g",
                start_at=START_AT + timedelta(seconds=5 * n),
                end_at=START_AT + timedelta(seconds=5 * n + 5),
                energy_j=1.0,
                power_draw_w=1.0,
                power_limit_w=1.0,
            )
            for n in range(count)
        ),
    )


REQUEST = RegisterRequest(
    name="n",
    hardware="h",
    agent_version="0",
    origin=Origin.SIMULATED,
    gpus=[],
    models=[],
    power_min_w=1,
    power_max_w=2,
    curve=[CurvePoint(tokens_per_s=0, power_w=1)],
)


STATUS = NodeStatus(
    at=START_AT,
    mode="safe",
    envelope_version=0,
    power_envelope_w=1,
    node_power_w=1,
    node_power_origin=Origin.MODELLED,
    gpu_power_w=1,
    tick_lag_ms=0,
    engines=[],
    gpus=[],
)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.sqlite3", batch_rows=2)
    yield spool
    spool.close()


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Uplink], None]]:
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.02)
    monkeypatch.setattr(module, "STATUS_S", 0.02)
    monkeypatch.setattr(module, "POLL_WAIT_S", 0.1)  # no thread outlives its test
    started: list[Uplink] = []

    def start(uplink: Uplink) -> None:
        started.append(uplink)
        uplink.start()

    yield start
    for uplink in started:
        uplink.stop()
    for thread in threading.enumerate():
        if thread.name in {"pals-grid-envelopes", "pals-grid-telemetry", "pals-grid-status"}:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.fixture
def start(spool: Spool, begin: Callable[[Uplink], None]) -> Callable[..., Uplink]:
    def make(link: FakeLink, lease: Lease, slos: list[Slo]) -> Uplink:
        uplink = Uplink(link, REQUEST, lease, spool, slos.append)
        begin(uplink)
        return uplink

    return make


def test_it_registers_when_the_service_is_back_and_follows_changes(
    start: Callable[..., Uplink],
) -> None:
    link = FakeLink(LinkUnavailable("away"), LinkUnavailable("away"))
    lease, slos = Lease(None, 1.0), list[Slo]()
    start(link, lease, slos)
    wait_until(lambda: lease.version == 1)
    assert slos == [Slo(3.0, 0.2)]
    link.version = 2
    wait_until(lambda: lease.version == 2)
    assert link.polls[:2] == [0, 1]


def test_it_introduces_itself_anew_where_the_sites_objectives_change_what_it_can_do(
    spool: Spool,
) -> None:
    class Recording(FakeLink):
        def register(self, request: RegisterRequest) -> RegisterReply:
            self.seen.append(request.power_max_w)
            return super().register(request)

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[float] = []

    def register(describe: Callable[[Slo], RegisterRequest]) -> list[float]:
        link = Recording()
        args = (link, REQUEST, Lease(None, 1.0), spool, lambda _: None)
        assert Uplink(*args, describe=describe)._register()
        return link.seen

    def unable(slo: Slo) -> RegisterRequest:
        raise InvalidValue("slo.itl_s", slo.itl_s, "must be more")

    assert register(lambda slo: replace(REQUEST, power_max_w=10 * slo.itl_s)) == [2]
    assert register(lambda slo: replace(REQUEST, power_max_w=20 * slo.itl_s)) == [2, 4.0]
    drifting = iter(range(5, 99))
    assert register(lambda _: replace(REQUEST, power_max_w=next(drifting))) == [2, 5]
    assert register(unable) == [2]


def test_rows_spooled_while_the_service_was_away_are_delivered_once(
    start: Callable[..., Uplink], spool: Spool
) -> None:
    spool.append(rows(5))
    link = FakeLink(LinkUnavailable("away"))
    uplink = start(link, Lease(None, 1.0), [])
    uplink.rows_waiting()
    wait_until(lambda: len(spool) == 0)
    assert [len(batch.gpu_rows) for batch in link.batches] == [2, 2, 1]
    assert len({batch.seq for batch in link.batches}) == 3


def test_a_refused_message_does_not_block_the_rest(spool: Spool) -> None:
    spool.append(rows(4))
    link = FakeLink(MessageRefused("HTTP 422"))
    Uplink(link, REQUEST, Lease(None, 1.0), spool, lambda _: None).drain()
    assert len(link.batches) == 1
    assert (len(spool), spool.dropped_rows) == (0, 2)


def test_trouble_keeps_every_row(spool: Spool) -> None:
    spool.append(rows(4))
    for error in (LinkUnavailable("away"), LinkRejected("HTTP 401")):
        uplink = Uplink(FakeLink(error), REQUEST, Lease(None, 1.0), spool, lambda _: None)
        with pytest.raises(type(error)):
            uplink.drain()
    assert len(spool) == 4


def test_the_last_upload_does_not_wait_for_a_service_that_hangs(
    start: Callable[..., Uplink], spool: Spool
) -> None:
    asked, release = threading.Event(), threading.Event()

    class Hanging(FakeLink):
        def send_telemetry(self, batch: TelemetryBatch) -> TelemetryAck:
            asked.set()
            assert release.wait(PATIENCE_S)
            return super().send_telemetry(batch)

    spool.append(rows(1))
    link = Hanging()
    uplink = start(link, Lease(None, 1.0), [])
    uplink.rows_waiting()
    try:
        assert asked.wait(PATIENCE_S)
        uplink.drain_within(0.05)
        uplink.stop()
        assert link.batches == []
    finally:
        release.set()


def test_a_refused_registration_is_told_and_tried_again(start: Callable[..., Uplink]) -> None:
    link = FakeLink(*[LinkRejected("HTTP 401: wrong token")] * 3)
    slos: list[Slo] = []
    uplink = start(link, Lease(None, 1.0), slos)
    wait_until(lambda: bool(slos))
    assert uplink.refused is None


def test_the_latest_status_is_sent_and_no_status_twice(start: Callable[..., Uplink]) -> None:
    link = FakeLink()
    uplink = start(link, Lease(None, 1.0), [])
    uplink.show(STATUS)
    wait_until(lambda: len(link.statuses) == 1)
    later = replace(STATUS, gpu_power_w=2)
    uplink.show(later)
    wait_until(lambda: len(link.statuses) == 2)
    assert link.statuses == [STATUS, later]


def test_a_grant_in_the_answer_is_taken_and_counts_from_when_the_node_asked(
    spool: Spool, begin: Callable[[Uplink], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pals_grid.core.grant.REPLY_AGE_S", PATIENCE_S)
    reached_s: list[float] = []

    class Noting(FakeLink):
        def send_status(self, status: NodeStatus) -> StatusReply:
            reached_s.append(time.monotonic())
            return super().send_status(status)

    link = Noting()
    link.grant = PowerGrant(epoch=3, sequence=5, power_w=700.0, lease_s=20.0)
    live = LiveGrants(GrantFile(None), SystemClock())
    uplink = Uplink(link, REQUEST, Lease(None, 1.0), spool, lambda _: None, grants=live)
    begin(uplink)
    shown_s = time.monotonic()
    uplink.show(STATUS)
    wait_until(lambda: live.held is not None)
    assert live.held is not None
    assert live.held.grant == Grant(3, 5, 700.0, 20.0)
    assert shown_s + 20.0 <= live.held.end_s <= reached_s[0] + 20.0


def test_an_answer_that_took_too_long_is_not_taken(
    spool: Spool, begin: Callable[[Uplink], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pals_grid.core.grant.REPLY_AGE_S", 0.05)

    class Late(FakeLink):
        def send_status(self, status: NodeStatus) -> StatusReply:
            time.sleep(0.1)
            return super().send_status(status)

    link = Late()
    link.grant = PowerGrant(epoch=3, sequence=5, power_w=700.0, lease_s=20.0)
    live = LiveGrants(GrantFile(None), SystemClock())
    uplink = Uplink(link, REQUEST, Lease(None, 1.0), spool, lambda _: None, grants=live)
    begin(uplink)
    for count in (1, 2):  # with the second one sent, the answer to the first is done with
        uplink.show(STATUS)
        wait_until(lambda: len(link.statuses) == count)  # noqa: B023 - called here alone
    assert live.held is None


def test_without_a_place_for_grants_none_is_taken(start: Callable[..., Uplink]) -> None:
    link = FakeLink()
    link.grant = PowerGrant(epoch=3, sequence=5, power_w=700.0, lease_s=20.0)
    uplink = start(link, Lease(None, 1.0), [])
    uplink.show(STATUS)
    wait_until(lambda: len(link.statuses) == 1)
    uplink.show(STATUS)
    wait_until(lambda: len(link.statuses) == 2)  # the thread lives on
