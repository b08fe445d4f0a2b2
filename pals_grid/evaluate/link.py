"""The node's link to the service without a network: the same use cases, called directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.service import envelopes, nodes, telemetry
from pals_grid.wire.messages import StatusReply

if TYPE_CHECKING:
    from pals_grid.core.fleet import Node
    from pals_grid.service.context import Context
    from pals_grid.wire.messages import (
        EnvelopeSchedule,
        NodeStatus,
        RegisterReply,
        RegisterRequest,
        TelemetryAck,
        TelemetryBatch,
    )


class DirectLink:
    """A ``ServiceLink`` in the service's own process; it never waits."""

    def __init__(self, context: Context, enrolment_token: str) -> None:
        self._context = context
        self._enrolment_token = enrolment_token
        self._node: Node | None = None

    def register(self, request: RegisterRequest) -> RegisterReply:
        """Introduce this node and keep its identity."""
        reply = nodes.register_node(self._context, self._enrolment_token, request)
        self._node = nodes.authenticate_node(self._context, reply.node_token)
        return reply

    def fetch_schedule(self, after_version: int, wait_s: float) -> EnvelopeSchedule | None:  # noqa: ARG002 - simulated time does not pass while one waits
        """Return the schedule when it is newer than ``after_version``."""
        node = self._known()
        if envelopes.load_schedule_version(self._context, node.id) <= after_version:
            return None
        return envelopes.load_schedule(self._context, node.id)

    def send_telemetry(self, batch: TelemetryBatch) -> TelemetryAck:
        """Ingest a batch."""
        return telemetry.ingest(self._context, self._known(), batch)

    def send_status(self, status: NodeStatus) -> StatusReply:
        """Record the status; a replay goes by plans alone."""
        nodes.record_status(self._context, self._known(), status)
        return StatusReply()

    def _known(self) -> Node:
        assert self._node is not None  # register comes first
        return self._node
