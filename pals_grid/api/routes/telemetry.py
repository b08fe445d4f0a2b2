"""/telemetry: what was measured, as the site's power over time and as the nodes' own rows."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator

from pals_grid.api.base import Instant, Model, PagedOut, link_next
from pals_grid.api.deps import ContextDep, IntervalDep, PageDep, SiteDep
from pals_grid.core.errors import InvalidValue
from pals_grid.service import telemetry
from pals_grid.service.paging import Paged
from pals_grid.store.power_series import PowerPoint
from pals_grid.store.telemetry import StoredEngineRow

router = APIRouter(prefix="/telemetry", tags=["telemetry"])

MAX_POINTS = 10_000


class PowerPointOut(Model):
    """Means of the site over one step; power at the boundary that the name says."""

    start_at: Instant
    node_power_w: float
    gpu_power_w: float
    tokens_out_per_s: float
    power_limit_w: float | None


class StoredRowOut(Model):
    """Five seconds of one engine, as its node sent them (EngineRow)."""

    node_id: int
    node: str
    row: Annotated[dict[str, Any], BeforeValidator(msgspec.to_builtins)]


@router.get("", response_model=list[PowerPointOut])
def load_power_series(
    context: ContextDep,
    site: SiteDep,
    interval: IntervalDep,
    step_s: Annotated[float, Query(ge=5, le=86_400)] = 300.0,
) -> list[PowerPoint]:
    """The site's power, tokens/s and limit over time."""
    if interval.duration_s / step_s > MAX_POINTS:
        bound = f"must be at least {interval.duration_s / MAX_POINTS:g} over this interval"
        raise InvalidValue("step_s", step_s, bound)
    return list(telemetry.load_power_series(context, site, interval, step_s))


@router.get("/rows", response_model=PagedOut[StoredRowOut])
def load_engine_rows(
    context: ContextDep,
    site: SiteDep,
    interval: IntervalDep,
    page: PageDep,
    request: Request,
    response: Response,
    node_id: Annotated[int | None, Query(ge=1, le=2**62)] = None,
) -> Paged[StoredEngineRow]:
    """The rows themselves, in order of time."""
    found = telemetry.load_engine_rows(context, site, interval, page, node_id=node_id)
    return link_next(request, response, found)
