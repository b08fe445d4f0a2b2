"""/reports/energy: kWh, cost, gCO2, tokens and J/token, as JSON or CSV."""

import csv
import io
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, Query, Response
from pydantic import AliasPath, BeforeValidator, Field

from pals_grid.api.base import Instant, Model
from pals_grid.api.deps import ContextDep, IntervalDep, SiteDep
from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.core.series import ValueKind
from pals_grid.service import reports
from pals_grid.service.demand import load_demand_charges

router = APIRouter(prefix="/reports", tags=["reports"])

KEYS = ("node", "model", "hour")
MAX_HOURLY_DAYS = 31


T = TypeVar("T")
Sorted = Annotated[list[T], BeforeValidator(sorted)]


class RowOut(Model):
    """One group's sums; see the report for units. Joules per token count output tokens."""

    node: str | None
    model: str | None
    start_at: Instant | None
    gpu_energy_kwh: float
    node_energy_kwh: float
    idle_energy_kwh: float
    tokens_in: float
    tokens_out: float
    gpu_energy_j_per_token: float | None
    node_energy_j_per_token: float | None
    cost: float | None
    carbon_g: float | None
    priced_ratio: float
    carbon_ratio: float
    requests_finished: int
    ttft_misses: int
    itl_misses: int
    origins: Sorted[Origin]
    price_kinds: Sorted[ValueKind]
    carbon_kinds: Sorted[ValueKind]
    price_feeds: Sorted[str]
    carbon_feeds: Sorted[str]


def _during(name: str) -> Any:  # noqa: ANN401 - a default of any field's type
    return Field(validation_alias=AliasPath("interval", name))


def _in_order(keys: Collection[str]) -> list[str]:
    return [key for key in KEYS if key in keys]


class PeakOut(Model):
    """The month's highest mean power; None where nothing was measured."""

    power_w: float | None
    start_at: Instant | None
    covered_ratio: float


class DemandCostOut(Model):
    """One demand charge; ``billed_w`` is the peak, or what a ratchet holds it up to."""

    name: str
    price_per_kw: float
    peak: PeakOut
    billed_w: float | None
    cost: float | None


class MonthlyDemandOut(Model):
    """Demand charges of one whole calendar month, so far where it is ``running``.

    From the power of the nodes, not the meter of the grid connection. ``coincident_cost`` is an
    expectation over the hours at risk.
    """

    start_at: Instant = Field(validation_alias=AliasPath("month", "start_at"))
    end_at: Instant = Field(validation_alias=AliasPath("month", "end_at"))
    running: bool
    tariff: str
    currency: str
    charges: list[DemandCostOut]
    coincident_cost: float
    origins: Sorted[Origin]


class EnergyReportOut(Model):
    """Rows by ``by`` and their total; ``cost`` is in ``currency``, at the node's boundary.

    ``cost`` is of energy alone, by the tariff that was in force. ``demand_charges`` are of whole
    months and never a part of it.
    """

    site: str
    start_at: Instant = _during("start_at")
    end_at: Instant = _during("end_at")
    by: Annotated[list[str], BeforeValidator(_in_order)]
    currency: str
    rows: list[RowOut]
    total: RowOut
    demand_charges: list[MonthlyDemandOut] = Field(default_factory=list)


def read_keys(by: str) -> frozenset[str]:
    """What the rows are grouped by."""
    keys = frozenset(part.strip() for part in by.split(",") if part.strip())
    if unknown := keys - set(KEYS):
        raise InvalidValue("by", ",".join(sorted(unknown)), f"must be of {', '.join(KEYS)}")
    return keys


@router.get(
    "/energy",
    response_model=EnergyReportOut,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def energy_report(
    context: ContextDep,
    site: SiteDep,
    interval: IntervalDep,
    by: Annotated[str, Query(description="any of node, model, hour, with commas")] = "node",
    report_format: Annotated[Literal["json", "csv"] | None, Query(alias="format")] = None,
    accept: Annotated[str, Header()] = "",
) -> Response | EnergyReportOut:
    """Energy, cost, emissions and tokens of a site over an interval."""
    keys = read_keys(by)
    if "hour" in keys and interval.duration_s > MAX_HOURLY_DAYS * 86_400:
        bound = f"must be at most {MAX_HOURLY_DAYS} days after start_at when grouped by hour"
        raise InvalidValue("end_at", interval.end_at.isoformat(), bound)
    report = EnergyReportOut.model_validate(reports.energy_report(context, site, interval, keys))
    report.demand_charges = [
        MonthlyDemandOut.model_validate(month)
        for month in load_demand_charges(context, site, interval)
    ]
    if report_format == "csv" or (report_format is None and _prefers_csv(accept)):
        return Response(csv_of(report), media_type="text/csv; charset=utf-8")
    return report


def _prefers_csv(accept: str) -> bool:
    kinds = [part.split(";")[0].strip() for part in accept.split(",")]
    return "text/csv" in kinds and "application/json" not in kinds


def csv_of(report: EnergyReportOut) -> str:
    """The rows as CSV, units in the header; None is an empty field."""
    names = {name: name for name in RowOut.model_fields}
    names["cost"] = f"cost_{report.currency.lower()}"
    names["carbon_g"] = "carbon_gco2eq"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["site", *names.values()])
    for row in report.rows:
        values = row.model_dump(mode="json")
        writer.writerow([report.site, *(_cell(values[name]) for name in names)])
    return text.getvalue()


def _cell(value: object) -> object:
    return "+".join(value) if isinstance(value, list) else value
