"""The helper's socket: who may speak, one in control, nothing that it says can break it."""

from __future__ import annotations

import logging
import selectors
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from pals_grid.node.helper.messages import (
    HELPER_VERSION,
    MAX_MESSAGE_BYTES,
    Beat,
    Hello,
    Refusal,
    Release,
    Released,
    SetClockLimit,
    SetPowerLimit,
    Taken,
    Welcome,
    Wrote,
    decode_request,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.commands import ActuationResult
    from pals_grid.core.ports import Clock
    from pals_grid.node.helper.keeper import Keeper
    from pals_grid.node.helper.messages import Reply, Request

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 8
LOOK_S = 0.5
HELLO_WITHIN_S = 5.0
_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who may connect: users and groups by number; root may always."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    def admits(self, uid: int, gid: int) -> bool:
        """Whether a peer of this user and primary group may speak."""
        return uid == 0 or uid in self.uids or gid in self.gids


@dataclass(slots=True)
class _Peer:
    """One connection. ``name`` is for people; ``in_control`` after its hello."""

    connection: socket.socket
    name: str
    since_s: float
    in_control: bool = field(default=False)


class HelperServer:
    """Serves ``keeper`` on a listening SOCK_SEQPACKET socket, in one thread."""

    def __init__(
        self, listener: socket.socket, keeper: Keeper, allowed: Allowed, clock: Clock
    ) -> None:
        self._listener = listener
        self._keeper = keeper
        self._allowed = allowed
        self._clock = clock
        self._peers: dict[int, _Peer] = {}
        self._selector = selectors.DefaultSelector()
        listener.settimeout(0.0)
        self._selector.register(listener, selectors.EVENT_READ)

    def serve(self, is_stopped: Callable[[], bool], on_turn: Callable[[], None]) -> None:
        """Serve until ``is_stopped``; ``on_turn`` runs at least every half second."""
        while not is_stopped():
            self.turn(LOOK_S)
            on_turn()

    def turn(self, wait_s: float) -> None:
        """Wait for packets up to ``wait_s``, answer them, then do what is due."""
        ready = self._selector.select(wait_s)
        # Old connections first: a peer that is gone gives control to one that has just come.
        for key, _ in sorted(ready, key=lambda item: item[0].fileobj is self._listener):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fd in self._peers:
                self._hear(self._peers[key.fd])
        self._drop_silent()
        try:
            self._keeper.look()
        except Exception:
            log.exception("looking after the limits failed; tried again")

    def close(self) -> None:
        """Close every connection and the listener."""
        for peer in list(self._peers.values()):
            self._drop(peer, "the helper stops")
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # gone again
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(credentials)
        if not self._allowed.admits(uid, gid):
            log.warning("refused: process %d of user %d, group %d may not speak", pid, uid, gid)
            connection.close()
            return
        if len(self._peers) >= MAX_CONNECTIONS:
            log.warning("refused: process %d, there are %d connections", pid, MAX_CONNECTIONS)
            connection.close()
            return
        connection.settimeout(0.0)
        peer = _Peer(connection, f"process {pid} of user {uid}", self._clock.monotonic_s())
        self._peers[connection.fileno()] = peer
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, peer: _Peer) -> None:
        try:
            packet, _, flags, _ = peer.connection.recvmsg(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(peer, str(error))
            return
        if not packet:
            self._drop(peer, "it closed")
            return
        if flags & socket.MSG_TRUNC:
            self._drop(peer, f"a message of more than {MAX_MESSAGE_BYTES} bytes")
            return
        try:
            request = decode_request(packet)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._drop(peer, f"no request: {error}")
            return
        try:
            reply = self._answer(peer, request)
        except Exception:
            log.exception("%s: its request failed", peer.name)
            self._drop(peer, "its request failed")
            return
        self._send(peer, reply)

    def _answer(self, peer: _Peer, request: Request) -> Reply:
        if isinstance(request, Hello):
            return self._greet(peer, request)
        if not peer.in_control:
            return Refusal(reason="say hello first")
        self._keeper.hear()
        match request:
            case Beat():
                self._keeper.beat(request)
                return Taken()
            case SetPowerLimit():
                return _wrote(self._keeper.set_power_limit(request.uuid, request.power_limit_w))
            case SetClockLimit():
                return _wrote(self._keeper.set_clock_limit(request.uuid, request.sm_clock_mhz))
            case Release():
                peer.in_control, peer.since_s = False, self._clock.monotonic_s()
                failures = self._keeper.release()
                return Released(failures=list(failures), held_until=self._keeper.held_until)

    def _greet(self, peer: _Peer, hello: Hello) -> Reply:
        if hello.version != HELPER_VERSION:
            return Refusal(reason=f"version: must be {HELPER_VERSION}, got {hello.version}")
        if self._keeper.holder is not None and not peer.in_control:
            return Refusal(reason=f"{self._keeper.holder} is in control")
        if not peer.in_control:
            peer.in_control = True
            self._keeper.take(f"{hello.name!r}, {peer.name}")
        return Welcome(uuids=self._keeper.uuids)

    def _send(self, peer: _Peer, reply: Reply) -> None:
        try:
            peer.connection.send(msgspec.json.encode(reply))
        except OSError as error:
            self._drop(peer, f"takes no answer: {error}")
            return
        if isinstance(reply, Refusal):
            self._drop(peer, reply.reason)

    def _drop_silent(self) -> None:
        now_s = self._clock.monotonic_s()
        for peer in list(self._peers.values()):
            if peer.in_control:
                if self._keeper.is_silent():
                    self._drop(peer, "it says nothing any more")
            elif now_s - peer.since_s > HELLO_WITHIN_S:
                self._drop(peer, "it said no hello")

    def _drop(self, peer: _Peer, why: str) -> None:
        log.info("%s: connection closed: %s", peer.name, why)
        self._peers.pop(peer.connection.fileno(), None)
        self._selector.unregister(peer.connection)
        peer.connection.close()
        if peer.in_control:
            self._keeper.lose()


def _wrote(result: ActuationResult) -> Wrote:
    return Wrote(
        outcome=result.outcome,
        requested=result.requested,
        read_back=result.read_back,
        detail=result.detail,
        retry_after_s=result.retry_after_s,
    )
