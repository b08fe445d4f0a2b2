"""What a plan saw and its intervals, as rows and back."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import null
from sqlalchemy.dialects.postgresql import Range

from pals_grid.core.budget import BudgetInterval, PlanInput, Reason
from pals_grid.core.fallback import Absence, SlotSource, SourceKind
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Quantity, ValueKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Row

_INTERVAL_NUMBERS = (
    "limit_w",
    "price_per_mwh",
    "carbon_g_per_kwh",
    "demand_tokens_per_s",
    "planned_tokens_per_s",
    "expected_power_w",
    "shortfall_tokens_per_s",
    "peak_risk_per_mwh",
    "shadow_price_per_kw_h",
)


def input_row(plan_id: int, item: PlanInput) -> dict[str, object]:
    """A row of ``plan_input``."""
    return {
        "plan_id": plan_id,
        "feed_id": item.feed_id,
        "as_of": item.as_of,
        "latest_known_at": item.latest_known_at,
        "values": item.values,
        "coverage_ratio": item.coverage_ratio,
        "kinds": [kind.value for kind in item.kinds],
    }


def read_input(row: Row[tuple[object, ...]]) -> PlanInput:
    """A row of ``plan_input`` with its feed's name and quantity, read."""
    return PlanInput(
        feed_id=row.feed_id,
        feed=row.name,
        quantity=Quantity(row.quantity),
        as_of=row.as_of,
        latest_known_at=row.latest_known_at,
        values=row._mapping["values"],  # noqa: SLF001 - public by its documentation
        coverage_ratio=row.coverage_ratio,
        kinds=tuple(ValueKind(kind) for kind in row.kinds),
    )


def interval_row(plan_id: int, item: BudgetInterval) -> dict[str, object]:
    """A row of ``plan_interval``."""
    return {
        "plan_id": plan_id,
        "during": Range(item.interval.start_at, item.interval.end_at, bounds="[)"),
        "reason": item.reason.value,
        "explanation": item.explanation,
        "event_id": item.event_id,
        "price_source": _source_document(item.price_source),
        "carbon_source": _source_document(item.carbon_source),
        **{name: getattr(item, name) for name in _INTERVAL_NUMBERS},
    }


def read_interval(row: Row[tuple[object, ...]]) -> BudgetInterval:
    """A row of ``plan_interval``, read."""
    return BudgetInterval(
        interval=Interval(row.during.lower, row.during.upper),
        reason=Reason(row.reason),
        explanation=row.explanation,
        event_id=row.event_id,
        price_source=_source(row.price_source),
        carbon_source=_source(row.carbon_source),
        **{name: getattr(row, name) for name in _INTERVAL_NUMBERS},
    )


def _source_document(source: SlotSource | None) -> object:
    if source is None:
        return null()
    document = msgspec.to_builtins(source)
    return {name: value for name, value in document.items() if value is not None}


def _source(document: Mapping[str, Any] | None) -> SlotSource | None:
    if document is None:
        return None
    rest = dict(document)
    taken = rest.pop("taken_from", None)
    since, absence, kind = (
        rest.pop(name, None) for name in ("silent_since_at", "absence", "value_kind")
    )
    return SlotSource(
        kind=SourceKind(rest.pop("kind")),
        value_kind=None if kind is None else ValueKind(kind),
        taken_from=None if taken is None else _taken_from(taken),
        absence=None if absence is None else Absence(absence),
        silent_since_at=None if since is None else datetime.fromisoformat(since),
        **rest,
    )


def _taken_from(document: Mapping[str, str]) -> Interval:
    start_at, end_at = (datetime.fromisoformat(document[n]) for n in ("start_at", "end_at"))
    return Interval(start_at, end_at)
