"""Forecasts of our own: what they say, how good they were, whether they are used."""

from typing import Literal

from fastapi import APIRouter

from pals_grid.api.base import Instant, Model
from pals_grid.api.deps import ContextDep, SiteDep
from pals_grid.service import forecasts
from pals_grid.service.forecasts import ForecastView

router = APIRouter(tags=["forecasts"])


class ScoreOut(Model):
    """Errors over one range of leads, in the forecast's unit."""

    over_h: float
    up_to_h: float
    count: int
    mae: float
    rival_mae: float
    gain_ratio: float
    coverage_ratio: float


class BandOut(Model):
    """A range of leads: whether the model is used there, or the naive rival; and what decided."""

    over_h: float
    up_to_h: float
    is_used: bool
    score: ScoreOut | None


class ModelledOut(Model):
    """One step: the median, and the bounds that 80 % of the values should lie in.

    ``taken`` is what the service takes of it: the median, the naive rival's value, or nothing.
    """

    start_at: Instant
    end_at: Instant
    p10: float
    p50: float
    p90: float
    rival: float | None
    taken: float | None


class ForecastOut(Model):
    """A forecast and its record; every value is modelled, not measured."""

    origin: Literal["modelled"] = "modelled"
    is_used: bool
    state: str
    unit: str | None
    rival: str | None
    trained_at: Instant | None
    history_start_at: Instant | None
    step_s: int | None
    train_s: float | None
    record: list[ScoreOut]
    hold_out: list[ScoreOut]
    bands: list[BandOut]
    values: list[ModelledOut]


@router.get("/feeds/{feed_id}/forecast", response_model=ForecastOut)
def load_feed_forecast(context: ContextDep, feed_id: int) -> ForecastView:
    """Our model's forecast of a feed, its record, and whether it is used."""
    return forecasts.load_feed_forecast(context, feed_id)


@router.get("/forecasts/load", response_model=ForecastOut)
def load_load_forecast(context: ContextDep, site: SiteDep) -> ForecastView:
    """Our model's forecast of a site's load in output tokens/s, its record, and its use."""
    return forecasts.load_load_forecast(context, site)
