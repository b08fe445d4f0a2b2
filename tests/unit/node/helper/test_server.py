"""The socket between an agent and the helper: who may speak, and what cannot break it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pals_grid.core.commands import Outcome
from pals_grid.core.ports import ClockLock
from pals_grid.node.fake import FakeClockGpu, FakeGpu
from pals_grid.node.helper import daemon
from pals_grid.node.helper import server as server_module
from pals_grid.node.helper.client import HelperClient, write_through
from pals_grid.node.helper.daemon import HelperConfig, run_helper
from pals_grid.node.helper.messages import (
    MAX_MESSAGE_BYTES,
    Beat,
    Hello,
    Refusal,
    SetPowerLimit,
    Welcome,
    decode_reply,
)
from pals_grid.node.helper.server import Allowed
from tests.unit.node.conftest import StepClock
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pals_grid.core.ports import Gpu
    from pals_grid.node.helper.messages import (
        Reply,
    )

ME = Allowed(frozenset({os.getuid()}))


class RunningHelper:
    """The helper in a thread, over fake GPUs ``a`` (clock) and ``b``; ``clock`` is its time."""

    def __init__(self, folder: Path, clock: StepClock) -> None:
        self.clock = clock
        self.gpus: list[Gpu] = [FakeClockGpu("a"), FakeGpu("b")]
        self.config = HelperConfig(
            allowed=ME, state_dir=folder / "state", socket_path=folder / "helper.sock"
        )
        self.clients: list[HelperClient] = []
        self.start()

    @property
    def limit_w(self) -> float:
        return self.gpus[0].observe().power_limit_w

    def start(self) -> None:
        self.stop = threading.Event()
        self.codes: list[int] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        wait_until(self._answers)

    def _run(self) -> None:
        run = run_helper(self.config, open_gpus=lambda: self.gpus, environment={}, stop=self.stop)
        self.codes.append(run)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), self.raw():
            return True
        return False

    def end(self) -> None:
        self.stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def client(self, name: str = "agent", answer_within_s: float = PATIENCE_S) -> HelperClient:
        """A client whose time to try again comes when ``clock`` is set on."""
        made = HelperClient(
            self.config.socket_path,
            name,
            monotonic_s=self.clock.monotonic_s,
            answer_within_s=answer_within_s,
        )
        self.clients.append(made)
        return made

    @contextlib.contextmanager
    def raw(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            # Without a timeout until then: one makes a full queue an error.
            connection.connect(str(self.config.socket_path))
            connection.settimeout(PATIENCE_S)
            yield connection


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningHelper]:
    clock = StepClock()
    monkeypatch.setattr(daemon, "SystemClock", lambda: clock)
    running = RunningHelper(tmp_path, clock)
    yield running
    for client in running.clients:
        client.close()
    running.end()


def ask(connection: socket.socket, request: msgspec.Struct | bytes) -> Reply | None:
    """The reply; None where the helper hung up, be it before the request or after it."""
    with contextlib.suppress(ConnectionError):
        connection.send(request if isinstance(request, bytes) else msgspec.json.encode(request))
        packet = connection.recv(MAX_MESSAGE_BYTES)
        return decode_reply(packet) if packet else None
    return None


def test_an_agent_reads_by_itself_and_writes_through_the_helper(helper: RunningHelper) -> None:
    client = helper.client()
    a, b = (write_through(gpu, client) for gpu in helper.gpus)
    assert isinstance(a, ClockLock)
    assert not isinstance(b, ClockLock)
    result = a.apply_power_limit(200.0)
    assert (result.outcome, result.read_back) == (Outcome.APPLIED, 200.0)
    assert a.observe().power_limit_w == helper.limit_w == 200.0
    assert a.apply_clock_limit(900.0).read_back == 900.0
    assert client.release() == ()
    assert helper.limit_w == 400.0


def test_a_second_agent_is_told_who_is_in_control(helper: RunningHelper) -> None:
    first, second = helper.client("first"), helper.client("second")
    assert first.set_power_limit("a", 200.0).outcome is Outcome.APPLIED
    refused = second.set_power_limit("a", 300.0)
    assert refused.outcome is Outcome.REFUSED
    assert f"'first', process {os.getpid()} of user {os.getuid()} is in control" in refused.detail
    assert refused.retry_after_s is not None
    assert helper.limit_w == 200.0
    first.close()
    helper.clock.step(refused.retry_after_s)
    assert second.set_power_limit("a", 300.0).outcome is Outcome.APPLIED


def test_a_lost_helper_is_a_refused_write_and_is_found_again(helper: RunningHelper) -> None:
    client = helper.client()
    message = Beat(uuids=["a", "b"])
    assert client.beat(message) is None
    assert client.set_power_limit("a", 200.0).outcome is Outcome.APPLIED
    helper.end()
    first = client.set_power_limit("a", 210.0)
    assert (first.outcome, first.read_back) == (Outcome.REFUSED, None)
    assert "no limit can be written" in first.detail
    assert client.beat(message) is None  # the write has said it
    helper.clock.step(0.25)
    assert "No such file" in str(client.beat(message))
    assert client.beat(message) is None  # said once
    helper.start()
    assert client.beat(message) is None  # it is not looked for yet
    helper.clock.step(0.5)
    assert client.beat(message) == "helper: it answers again"
    assert client.set_power_limit("a", 220.0).outcome is Outcome.APPLIED


def test_an_agent_that_says_nothing_loses_control(helper: RunningHelper) -> None:
    client = helper.client()
    assert client.set_power_limit("a", 200.0).outcome is Outcome.APPLIED

    def is_restored() -> bool:
        helper.clock.step(0.5)
        return helper.limit_w == 400.0

    wait_until(is_restored)  # its connection still open
    assert client.set_power_limit("a", 210.0).outcome is Outcome.REFUSED
    helper.clock.step(0.25)
    assert client.set_power_limit("a", 210.0).outcome is Outcome.APPLIED
    client.close()
    helper.end()
    assert helper.codes == [0]


def test_a_helper_that_does_not_answer_delays_a_tick_only_so_long(tmp_path: Path) -> None:
    """It is waited for once, and then not again until it is time to try."""
    path, clock = tmp_path / "dead.sock", StepClock()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(4)
        listener.settimeout(0.0)
        client = HelperClient(path, "agent", monotonic_s=clock.monotonic_s, answer_within_s=0.1)
        for _ in range(50):
            assert client.set_power_limit("a", 200.0).outcome is Outcome.REFUSED
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()
        clock.step(0.25)
        assert client.set_power_limit("a", 200.0).detail.endswith("no answer in 0.1 s")
        listener.accept()[0].close()
        client.close()


def test_strangers_are_turned_away(helper: RunningHelper, monkeypatch: pytest.MonkeyPatch) -> None:
    admits: list[tuple[int, int]] = []

    def refuse(_: Allowed, uid: int, gid: int) -> bool:
        admits.append((uid, gid))
        return False

    monkeypatch.setattr(Allowed, "admits", refuse)
    with helper.raw() as connection:
        assert ask(connection, Hello(name="x")) is None
    assert admits[-1] == (os.getuid(), os.getgid())


def test_root_the_users_and_the_groups_named_may_speak() -> None:
    allowed = Allowed(frozenset({1000}), frozenset({2000}))
    assert allowed.admits(0, 5)
    assert allowed.admits(1000, 5)
    assert allowed.admits(5, 2000)
    assert not allowed.admits(5, 1000)
    assert not Allowed().admits(1000, 1000)


@pytest.mark.parametrize(
    "packet",
    [
        b"{",
        b"\xff\xfe",
        b"null",
        b'{"type":"shell","command":"id"}',
        b'{"type":"hello","version":1}',
        b'{"type":"hello","version":1,"name":"x","more":1}',
        b'{"type":"power","uuid":"a","power_limit_w":1e9}',
        b'{"type":"power","uuid":"a","power_limit_w":-1}',
        b'{"type":"power","uuid":"a","power_limit_w":"NaN"}',
        b'{"type":"clock","uuid":"a","sm_clock_mhz":0}',
        b'{"type":"beat","uuids":["' + b"a" * 300 + b'"]}',
        b'{"type":"beat","uuids":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"type":"beat","uuids":[' + b",".join([b'"a"'] * 65) + b"]}",
        b'{"type":"hello","version":1,"name":"' + b"x" * (MAX_MESSAGE_BYTES) + b'"}',
    ],
    ids=lambda packet: packet[:40].decode("latin1"),
)
def test_what_is_no_request_closes_the_connection_and_nothing_else(
    helper: RunningHelper, packet: bytes
) -> None:
    with helper.raw() as connection:
        assert isinstance(ask(connection, Hello(name="x")), Welcome)
        assert ask(connection, packet) is None
    assert helper.client().set_power_limit("a", 200.0).outcome is Outcome.APPLIED


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(packets=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5))
def test_no_packet_breaks_it(helper: RunningHelper, packets: list[bytes]) -> None:
    for packet in packets:
        with helper.raw() as connection:
            ask(connection, packet)
    with helper.raw() as connection:
        assert isinstance(ask(connection, Hello(name="x")), Welcome)


def test_other_versions_and_the_unannounced_are_refused(helper: RunningHelper) -> None:
    with helper.raw() as connection:
        answer = ask(connection, Hello(version=2, name="x"))
        assert answer == Refusal(reason="version: must be 1, got 2")
    with helper.raw() as connection:
        answer = ask(connection, SetPowerLimit(uuid="a", power_limit_w=200.0))
        assert answer == Refusal(reason="say hello first")
    assert helper.limit_w == 400.0


def test_connections_are_few(helper: RunningHelper) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(server_module.MAX_CONNECTIONS):
            stack.enter_context(helper.raw())
        # They are taken in order: this one after the others.
        with helper.raw() as one_more, contextlib.suppress(ConnectionError):
            assert one_more.recv(10) == b""
    assert helper.client().set_power_limit("a", 200.0).outcome is Outcome.APPLIED


def test_a_device_that_fails_in_an_unknown_way_ends_one_connection(
    helper: RunningHelper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(_: float) -> None:
        raise RuntimeError("firmware")

    with monkeypatch.context() as patch:
        patch.setattr(helper.gpus[1], "apply_power_limit", explode)
        assert helper.client().set_power_limit("b", 200.0).outcome is Outcome.REFUSED
    assert "firmware" in caplog.text
    assert helper.client().set_power_limit("b", 200.0).outcome is Outcome.APPLIED


def test_the_socket_belongs_to_the_group_alone(helper: RunningHelper) -> None:
    assert helper.config.socket_path.stat().st_mode & 0o777 == 0o666
    helper.end()
    assert not helper.config.socket_path.exists()
    own = replace(helper.config, socket_gid=os.getgid())
    helper.config = own
    helper.start()
    found = own.socket_path.stat()
    assert (found.st_mode & 0o777, found.st_gid) == (0o660, os.getgid())
