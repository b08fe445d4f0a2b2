"""Demand-response events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from pals_grid.core.errors import Conflict, NotFound
from pals_grid.core.events import DemandResponseEvent, EventRequest, EventStatus
from pals_grid.core.fleet import Origin
from pals_grid.store.tables import dr_event

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from pals_grid.core.intervals import Interval

_ORDER = ("name", "start_at", "end_at", "limit_w", "reduction_ratio", "notice_at", "ramp_s")


class EventRepository:
    """Events over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(
        self,
        site_id: int,
        order: EventRequest,
        reference: tuple[float, Origin],
        created_at: datetime,
    ) -> DemandResponseEvent:
        """Store a new event with its frozen reference power (W) and where that comes from."""
        row = {
            "site_id": site_id,
            "version": 1,
            "status": EventStatus.SCHEDULED.value,
            "reference_w": reference[0],
            "reference_origin": reference[1].value,
            "created_at": created_at,
            **{name: getattr(order, name) for name in _ORDER},
        }
        made = self._connection.execute(insert(dr_event).values(row).returning(dr_event))
        return _event(made.one())

    def cancel(
        self, event_id: int, expected_version: int | None, at: datetime
    ) -> DemandResponseEvent:
        """Cancel an event that has not ended.

        Raises:
            NotFound: no such event.
            Conflict: when it is cancelled or over, or not at ``expected_version``.
        """
        change = update(dr_event).where(
            dr_event.c.id == event_id,
            dr_event.c.status == EventStatus.SCHEDULED.value,
            dr_event.c.end_at > at,
        )
        if expected_version is not None:
            change = change.where(dr_event.c.version == expected_version)
        values = {
            "status": EventStatus.CANCELLED.value,
            "cancelled_at": at,
            "version": dr_event.c.version + 1,
        }
        row = self._connection.execute(change.values(values).returning(dr_event)).one_or_none()
        if row is None:
            raise Conflict(_refusal(self.load(event_id), expected_version))
        return _event(row)

    def load(self, event_id: int) -> DemandResponseEvent:
        """Return the event of this id.

        Raises:
            NotFound: no such event.
        """
        query = select(dr_event).where(dr_event.c.id == event_id)
        row = self._connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("event", event_id)
        return _event(row)

    def list_before(
        self, site_id: int, before: tuple[datetime, int] | None, limit: int
    ) -> list[DemandResponseEvent]:
        """Up to ``limit`` events, latest start first, those after ``before`` in that order."""
        key = func.row(dr_event.c.start_at, dr_event.c.id)
        query = select(dr_event).where(dr_event.c.site_id == site_id)
        if before is not None:
            query = query.where(key < func.row(*before))
        query = query.order_by(dr_event.c.start_at.desc(), dr_event.c.id.desc()).limit(limit)
        return [_event(row) for row in self._connection.execute(query)]

    def list_touching(self, site_id: int, interval: Interval) -> list[DemandResponseEvent]:
        """Events in force that, ramps included, touch ``interval``; by start."""
        ramp = func.make_interval(0, 0, 0, 0, 0, 0, dr_event.c.ramp_s)
        query = (
            select(dr_event)
            .where(
                dr_event.c.site_id == site_id,
                dr_event.c.status == EventStatus.SCHEDULED.value,
                dr_event.c.start_at - ramp < interval.end_at,
                dr_event.c.end_at + ramp > interval.start_at,
            )
            .order_by(dr_event.c.start_at, dr_event.c.id)
        )
        return [_event(row) for row in self._connection.execute(query)]


def _refusal(held: DemandResponseEvent, expected_version: int | None) -> str:
    if held.status is EventStatus.CANCELLED:
        return f"status: event {held.id} is cancelled already"
    if expected_version is not None and held.version != expected_version:
        return f"version: event {held.id} is at {held.version}, not {expected_version}"
    return f"end_at: event {held.id} is over since {held.order.end_at.isoformat()}"


def _event(row: Row[tuple[object, ...]]) -> DemandResponseEvent:
    return DemandResponseEvent(
        id=row.id,
        site_id=row.site_id,
        version=row.version,
        status=EventStatus(row.status),
        order=EventRequest(**{name: getattr(row, name) for name in _ORDER}),
        reference_w=row.reference_w,
        reference_origin=Origin(row.reference_origin),
        created_at=row.created_at,
        cancelled_at=row.cancelled_at,
    )
