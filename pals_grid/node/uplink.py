"""The threads between a node and its service; none of them ever delays a tick.

One registers and then long-polls for envelopes, one uploads rows, one shows the status.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue, LinkError, LinkRejected
from pals_grid.core.site import Slo
from pals_grid.node.grants import read_grant
from pals_grid.node.link import MessageRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.node.grants import LiveGrants
    from pals_grid.node.lease import Lease
    from pals_grid.node.link import ServiceLink
    from pals_grid.node.spool import Spool
    from pals_grid.wire.messages import NodeStatus, RegisterRequest

log = logging.getLogger(__name__)

POLL_WAIT_S = 25.0
UPLOAD_S = 5.0
STATUS_S = 1.0
BACKOFF_MAX_S = 30.0


class Uplink:
    """Everything that a running node exchanges with its service.

    ``request`` introduces the node; ``describe`` makes another one for the site's objectives,
    which are known only after a first registration. Without ``grants`` none is taken.
    """

    def __init__(
        self,
        link: ServiceLink,
        request: RegisterRequest,
        lease: Lease,
        spool: Spool,
        on_slo: Callable[[Slo], None],
        *,
        describe: Callable[[Slo], RegisterRequest] | None = None,
        grants: LiveGrants | None = None,
    ) -> None:
        self._link = link
        self._request = request
        self._lease = lease
        self._spool = spool
        self._on_slo = on_slo
        self._describe = describe
        self._grants = grants
        self._described_for: Slo | None = None
        self._stop = threading.Event()
        self._registered = threading.Event()
        self._rows_waiting = threading.Event()
        self._status: NodeStatus | None = None
        self.refused: str | None = None

    def start(self) -> None:
        """Start the threads; they are daemons, for a long-poll cannot be interrupted."""
        for name, run in (
            ("envelopes", self._follow),
            ("telemetry", self._upload),
            ("status", self._show),
        ):
            threading.Thread(target=run, name=f"pals-grid-{name}", daemon=True).start()

    def stop(self) -> None:
        """Ask the threads to end; does not wait for a long-poll."""
        self._stop.set()
        self._registered.set()
        self._rows_waiting.set()

    def show(self, status: NodeStatus) -> None:
        """Send this status next."""
        self._status = status

    def rows_waiting(self) -> None:
        """Wake the uploader."""
        self._rows_waiting.set()

    def drain(self) -> None:
        """Deliver all spooled rows.

        Raises:
            LinkError: when the service does not take them now.
        """
        while (batch := self._spool.next_batch()) is not None:
            try:
                self._link.send_telemetry(batch)
            except MessageRefused as error:
                log.error("batch %d is refused and given up: %s", batch.seq, error)  # noqa: TRY400 - the message says it all
                self._spool.refuse(batch.seq)
            else:
                self._spool.acknowledge(batch.seq)

    def drain_within(self, timeout_s: float) -> None:
        """Try once to deliver what is spooled, for ``timeout_s`` at most."""
        if self._link_is_known:
            thread = threading.Thread(target=self._drain_quietly, daemon=True)
            thread.start()
            thread.join(timeout_s)

    @property
    def _link_is_known(self) -> bool:
        return self._registered.is_set() and self.refused is None

    def _drain_quietly(self) -> None:
        try:
            self.drain()
        except (LinkError, sqlite3.Error) as error:
            log.info("rows stay spooled for the next start: %s", error)

    def _follow(self) -> None:
        if not self._register():
            return
        patience = _Patience("envelopes")
        version = 0  # the first answer is wanted whatever the disk already holds
        while not self._stop.is_set():
            asked_s = time.monotonic()
            try:
                schedule = self._link.fetch_schedule(version, POLL_WAIT_S)
            except LinkError as error:
                self._stop.wait(patience.failed(error))
                continue
            patience.succeeded()
            if schedule is not None:
                version = schedule.version
                try:
                    self._lease.store(schedule)
                except OSError as error:
                    log.error("schedule %d holds, but is not on the disk: %s", version, error)  # noqa: TRY400 - the message says it all
            elif time.monotonic() - asked_s < 1.0:
                self._stop.wait(1.0)  # a service that does not hold the poll open

    def _register(self) -> bool:
        patience = _Patience("registration")
        while not self._stop.is_set():
            try:
                reply = self._link.register(self._request)
            except LinkError as error:
                if isinstance(error, LinkRejected):
                    self.refused = str(error)
                self._stop.wait(patience.failed(error))
                continue
            patience.succeeded()
            self.refused = None
            log.info("registered at site %s as node %d", reply.site, reply.node_id)
            slo = Slo(reply.ttft_slo_s, reply.itl_slo_s)
            self._on_slo(slo)
            if self._is_redescribed(slo):
                continue
            self._registered.set()
            return True
        return False

    def _is_redescribed(self, slo: Slo) -> bool:
        """Whether the node has to introduce itself anew: what it can do depends on ``slo``."""
        if self._describe is None or slo == self._described_for:
            return False
        self._described_for = slo
        try:
            request = self._describe(slo)
        except InvalidValue as error:
            log.warning("the site's objectives cannot be met here: %s", error)
            return False
        changed = request != self._request
        self._request = request
        return changed

    def _upload(self) -> None:
        self._registered.wait()
        patience = _Patience("telemetry")
        while not self._stop.is_set():
            self._rows_waiting.wait(UPLOAD_S)
            self._rows_waiting.clear()
            try:
                self.drain()
            except (LinkError, sqlite3.Error) as error:
                self._stop.wait(patience.failed(error))
            else:
                patience.succeeded()

    def _show(self) -> None:
        self._registered.wait()
        patience = _Patience("status")
        while not self._stop.wait(STATUS_S):
            status, self._status = self._status, None
            if status is None:
                continue
            asked_s = time.monotonic()
            try:
                reply = self._link.send_status(status)
            except LinkError as error:
                self._stop.wait(patience.failed(error))
                continue
            patience.succeeded()
            if reply.grant is not None and self._grants is not None:
                self._grants.take(read_grant(reply.grant), asked_s)


class _Patience:
    """Waits longer after each failure, with jitter; logs the first failure and the recovery."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0

    def failed(self, error: Exception) -> float:
        """Return how long to wait, in seconds."""
        if self._failures == 0:
            log.warning("%s: %s", self._what, error)
        self._failures += 1
        longest_s = min(BACKOFF_MAX_S, 0.5 * 2.0 ** min(self._failures, 10))
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def succeeded(self) -> None:
        if self._failures:
            log.info("%s: the service answers again", self._what)
        self._failures = 0
