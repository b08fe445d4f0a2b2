"""One of a replay's two nodes in simulated time: the agent's parts without its threads."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from pals_grid.evaluate.link import DirectLink
from pals_grid.node.lease import Lease
from pals_grid.node.loop import ControlLoop
from pals_grid.node.meter import RowMeter
from pals_grid.node.restore import RestoreFile
from pals_grid.node.status import StatusBoard
from pals_grid.service.nodes import issue_enrolment_token
from pals_grid.wire.messages import TelemetryBatch

if TYPE_CHECKING:
    from pals_grid.core.ports import Clock
    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import NodeHardware
    from pals_grid.node.report import TickReport
    from pals_grid.node.rows import Rows
    from pals_grid.service.context import Context
    from pals_grid.wire.messages import EngineRow, RegisterRequest

TICK_S = 0.5


class ReplaySide:
    """A registered node: ticks, rows, status, schedule.

    GPU rows are not sent: a replay reports by engine.
    """

    def __init__(
        self,
        context: Context,
        slug: str,
        hardware: NodeHardware,
        request: RegisterRequest,
        slo: Slo,
    ) -> None:
        clock: Clock = context.clock
        self.slug = slug
        self._link = DirectLink(context, issue_enrolment_token(context, slug))
        self._lease = Lease(None, request.power_max_w)
        self._loop = ControlLoop(
            hardware, self._lease, clock, slo, RestoreFile(None), period_s=TICK_S
        )
        self._meter = RowMeter()
        self._board = StatusBoard()
        self._rows: list[EngineRow] = []
        self._sequence = itertools.count()
        self._last: TickReport | None = None
        self._link.register(request)

    def tick(self) -> None:
        """Observe, decide, act, and count."""
        self._last = self._loop.tick()
        self._keep(self._meter.add(self._last))

    def follow(self) -> None:
        """Take the newest schedule."""
        schedule = self._link.fetch_schedule(self._lease.version, 0.0)
        if schedule is not None:
            self._lease.store(schedule)

    def show_status(self) -> None:
        """Send the sign of life."""
        if self._last is not None:
            self._link.send_status(self._board.add(self._last))

    def send_rows(self) -> None:
        """Send the rows that are finished."""
        self.send(self._rows)
        self._rows = []

    def send(self, rows: list[EngineRow]) -> None:
        """Send rows, which may be another time's."""
        if rows:
            batch = TelemetryBatch(
                spool_id=self.slug, seq=next(self._sequence), engine_rows=rows, gpu_rows=[]
            )
            self._link.send_telemetry(batch)

    def end(self) -> int:
        """Send what is left; returns the requests that are still inside."""
        self._keep(self._meter.flush())
        self.send_rows()
        samples = [engine.sample for engine in self._last.engines] if self._last else []
        return sum(
            s.requests_running + s.requests_waiting + s.requests_deferred
            for s in samples
            if s is not None
        )

    def _keep(self, rows: Rows) -> None:
        self._rows += rows.engine_rows
