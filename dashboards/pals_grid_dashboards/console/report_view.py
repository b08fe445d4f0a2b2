"""The energy report: what was asked for, and its rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import ValueKind
from pals_grid_dashboards.console import formats
from pals_grid_dashboards.console.words import KIND_WORDS, origin_labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.service.reports import EnergyReport, EnergyReportRow
    from pals_grid_dashboards.console.local_time import LocalTime
    from pals_grid_dashboards.console.words import Label

GROUPS = ("node", "model", "hour")
MAX_DAYS = 366
MAX_DAYS_BY_HOUR = 31


@dataclass(frozen=True, slots=True)
class ReportChoice:
    """Days from ``first`` to ``last``, both included, and what to group by."""

    first: date
    last: date
    by: frozenset[str]
    interval: Interval


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A row with what its figures need said beside them."""

    figures: EnergyReportRow
    idle_ratio: float | None
    origins: tuple[Label, ...]
    price_note: str
    carbon_note: str


def read_choice(query: Mapping[str, str], by: tuple[str, ...], local: LocalTime) -> ReportChoice:
    """Read the query; without one, today by node and model.

    Raises:
        InvalidValue: for what is no date, a reversed or too long range, an unknown group.
    """
    first = local.day("from", query["from"]) if query.get("from") else local.today
    last = local.day("to", query["to"]) if query.get("to") else max(first, local.today)
    groups = frozenset(by or ("node", "model"))
    if not groups <= set(GROUPS):
        raise InvalidValue("by", sorted(groups - set(GROUPS)), f"must be of {', '.join(GROUPS)}")
    interval = local.days(first, last)
    longest = MAX_DAYS_BY_HOUR if "hour" in groups else MAX_DAYS
    if (last - first) >= timedelta(days=longest):
        hourly = " by hour" if "hour" in groups else ""
        raise InvalidValue("to", last.isoformat(), f"a report{hourly} is at most {longest} days")
    return ReportChoice(first, last, groups, interval)


def api_url(slug: str, choice: ReportChoice, form: str) -> str:
    """Address of the same report from the API, as ``json`` or ``csv``."""
    query = {
        "site": slug,
        "start_at": _iso(choice.interval.start_at),
        "end_at": _iso(choice.interval.end_at),
        "by": ",".join(group for group in GROUPS if group in choice.by),
        "format": form,
    }
    return f"/api/v1/reports/energy?{urlencode(query)}"


def report_rows(report: EnergyReport) -> tuple[ReportRow, ...]:
    """Rows in the report's order."""
    return tuple(report_row(row) for row in report.rows)


def report_row(row: EnergyReportRow) -> ReportRow:
    """One row, or the total."""
    node_kwh = row.node_energy_kwh
    return ReportRow(
        figures=row,
        idle_ratio=row.idle_energy_kwh / node_kwh if node_kwh > 0 else None,
        origins=origin_labels(row.origins),
        price_note=_note(row.priced_ratio, row.price_kinds, "priced"),
        carbon_note=_note(row.carbon_ratio, row.carbon_kinds, "known"),
    )


def _note(ratio: float, kinds: frozenset[ValueKind], word: str) -> str:
    """What a sum leaves out, and what in it is not final."""
    parts = [f"{formats.percent(ratio)} {word}"] if 0 < ratio < 0.995 else []
    parts += [KIND_WORDS[kind] for kind in ValueKind if kind in kinds - {ValueKind.MEASURED}]
    return ", ".join(parts)


def _iso(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
