"""The way to the service: register, fetch envelopes, send telemetry and status."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol, TypeVar

import requests

from pals_grid.core.errors import InvalidValue, LinkRejected, LinkUnavailable
from pals_grid.wire.messages import (
    EnvelopeSchedule,
    RegisterReply,
    StatusReply,
    TelemetryAck,
    decode,
    encode,
)

if TYPE_CHECKING:
    from msgspec import Struct

    from pals_grid.wire.messages import (
        NodeStatus,
        RegisterRequest,
        TelemetryBatch,
    )

T = TypeVar("T", bound="Struct")

_FORGOTTEN = frozenset({401, 403, 404})
_TEMPORARY = frozenset({408, 425, 429})


class MessageRefused(LinkRejected):
    """The service knows this node and refuses this very message: never send it again."""


class ServiceLink(Protocol):
    """What a node asks of the service; every method raises LinkUnavailable or LinkRejected."""

    def register(self, request: RegisterRequest) -> RegisterReply:
        """Introduce this node, and act as it from here on."""
        ...

    def fetch_schedule(self, after_version: int, wait_s: float) -> EnvelopeSchedule | None:
        """Wait up to ``wait_s`` for a schedule newer than ``after_version``; None without one."""
        ...

    def send_telemetry(self, batch: TelemetryBatch) -> TelemetryAck:
        """Deliver a batch; sending it again changes nothing."""
        ...

    def send_status(self, status: NodeStatus) -> StatusReply:
        """Show the node's state now; a grant in the answer counts from before this call."""
        ...


class HttpLink:
    """The service's REST API. A node that the service forgot registers again, once a call.

    One link serves several threads: each has its own connection.
    """

    def __init__(self, url: str, enrolment_token: str, *, timeout_s: float = 5.0) -> None:
        self._base = url.rstrip("/") + "/api/v1"
        self._enrolment_token = enrolment_token
        self._timeout_s = timeout_s
        self._local = threading.local()
        self._lock = threading.Lock()
        self._request: RegisterRequest | None = None
        self._identity: RegisterReply | None = None

    def register(self, request: RegisterRequest) -> RegisterReply:
        """Introduce this node with the enrolment token and keep the token it gets."""
        response = self._send(
            "POST", "/nodes/register", self._enrolment_token, body=encode(request)
        )
        reply = _read(_accept(response), RegisterReply)
        with self._lock:
            self._request = request
            self._identity = reply
        return reply

    def fetch_schedule(self, after_version: int, wait_s: float) -> EnvelopeSchedule | None:
        """Long-poll; after a new registration the schedule is fetched whatever its version."""
        known = self._known()
        response = self._fetch_envelopes(known, after_version, wait_s)
        if response.status_code in _FORGOTTEN:
            response = self._fetch_envelopes(self._register_again(known), 0, 0.0)
        _accept(response)
        return None if response.status_code == 204 else _read(response, EnvelopeSchedule)

    def send_telemetry(self, batch: TelemetryBatch) -> TelemetryAck:
        """POST a batch."""
        return _read(self._post_as_node("telemetry", batch), TelemetryAck)

    def send_status(self, status: NodeStatus) -> StatusReply:
        """POST the status; a service from before live grants answers nothing."""
        response = self._post_as_node("status", status)
        return _read(response, StatusReply) if response.content else StatusReply()

    def _post_as_node(self, what: str, message: Struct) -> requests.Response:
        known = self._known()
        body = encode(message)
        path = f"/nodes/{known.node_id}/{what}"
        response = self._send("POST", path, known.node_token, body=body)
        if response.status_code in _FORGOTTEN:
            fresh = self._register_again(known)
            path = f"/nodes/{fresh.node_id}/{what}"
            response = self._send("POST", path, fresh.node_token, body=body)
        return _accept(response)

    def _fetch_envelopes(
        self, known: RegisterReply, after_version: int, wait_s: float
    ) -> requests.Response:
        return self._send(
            "GET",
            f"/nodes/{known.node_id}/envelopes",
            known.node_token,
            params={"after_version": str(after_version), "wait_s": f"{wait_s:g}"},
            extra_s=wait_s,
        )

    def _known(self) -> RegisterReply:
        with self._lock:
            if self._identity is None:
                raise LinkUnavailable("this node is not registered yet")
            return self._identity

    def _register_again(self, refused: RegisterReply) -> RegisterReply:
        with self._lock:
            identity, request = self._identity, self._request
        if identity is not None and identity.node_token != refused.node_token:
            return identity  # another thread was faster
        assert request is not None
        return self.register(request)

    def _send(
        self,
        method: str,
        path: str,
        token: str,
        *,
        body: bytes | None = None,
        params: dict[str, str] | None = None,
        extra_s: float = 0.0,
    ) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return self._session().request(
                method,
                self._base + path,
                data=body,
                params=params,
                headers=headers,
                timeout=(self._timeout_s, self._timeout_s + extra_s),
                allow_redirects=False,
            )
        except (requests.RequestException, ValueError) as error:
            raise LinkUnavailable(f"{method} {self._base}{path}: {error}") from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False  # ~/.netrc would replace the bearer token
            self._local.session = session
        return session


def _accept(response: requests.Response) -> requests.Response:
    """Translate every status that is no success, quoting the service."""
    status = response.status_code
    if 200 <= status < 300:
        return response
    message = f"HTTP {status} from {response.url}: {response.text[:300]}"
    if status in _TEMPORARY or status >= 500:
        raise LinkUnavailable(message)
    if status in _FORGOTTEN or status < 400:
        raise LinkRejected(message)
    raise MessageRefused(message)


def _read(response: requests.Response, kind: type[T]) -> T:
    try:
        return decode(response.content, kind)
    except InvalidValue as error:
        raise LinkUnavailable(f"{response.url} gave no {kind.__name__}: {error}") from error
