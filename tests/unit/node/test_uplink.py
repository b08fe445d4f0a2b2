from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pals_grid.core.errors import InvalidValue, LinkRejected, LinkUnavailable
from pals_grid.core.fleet import Origin
from pals_grid.core.site import Slo
from pals_grid.node import uplink as module
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
    RegisterReply,
    RegisterRequest,
    TelemetryAck,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pals_grid.wire.messages import (
        TelemetryBatch,
    )

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class FakeLink:
    """A service in memory that fails the first calls it is told to fail."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.batches: list[TelemetryBatch] = []
        self.statuses: list[NodeStatus] = []
        self.polls: list[int] = []
        self.version = 1

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

    def send_status(self, status: NodeStatus) -> None:
        self.statuses.append(status)


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


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.sqlite3", batch_rows=2)
    yield spool
    spool.close()


@pytest.fixture
def start(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Uplink]]:
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.02)
    monkeypatch.setattr(module, "STATUS_S", 0.02)
    started: list[Uplink] = []

    def begin(link: FakeLink, lease: Lease, slos: list[Slo]) -> Uplink:
        uplink = Uplink(link, REQUEST, lease, spool, slos.append)
        started.append(uplink)
        uplink.start()
        return uplink

    yield begin
    for uplink in started:
        uplink.stop()
    for thread in threading.enumerate():
        if thread.name.startswith("pals-grid-"):
            thread.join(0.2)


def eventually(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 3.0
    while not holds():
        assert time.monotonic() < end_s, "did not happen within 3 s"
        time.sleep(0.01)


def test_it_registers_when_the_service_is_back_and_follows_changes(
    start: Callable[..., Uplink],
) -> None:
    link = FakeLink(LinkUnavailable("away"), LinkUnavailable("away"))
    lease, slos = Lease(None, 1.0), list[Slo]()
    start(link, lease, slos)
    eventually(lambda: lease.version == 1)
    assert slos == [Slo(3.0, 0.2)]
    link.version = 2
    eventually(lambda: lease.version == 2)
    assert link.polls[:2] == [0, 1]
    link.version = 99  # ends the poll


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
    eventually(lambda: len(spool) == 0)
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


def test_a_refused_registration_is_told_and_tried_again(start: Callable[..., Uplink]) -> None:
    link = FakeLink(*[LinkRejected("HTTP 401: wrong token")] * 3)
    slos: list[Slo] = []
    uplink = start(link, Lease(None, 1.0), slos)
    eventually(lambda: bool(slos))
    assert uplink.refused is None


def test_the_latest_status_is_sent_and_no_status_twice(start: Callable[..., Uplink]) -> None:
    link = FakeLink()
    uplink = start(link, Lease(None, 1.0), [])
    status = NodeStatus(
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
    uplink.show(status)
    eventually(lambda: len(link.statuses) == 1)
    time.sleep(0.1)
    assert link.statuses == [status]
