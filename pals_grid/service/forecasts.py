"""Forecasts as users read them; needs neither LightGBM nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pals_grid.service.forecasting import NO_PACKAGE, is_available
from pals_grid.service.verdicts import RECORD, load_verdict
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.forecasts import ForecastRepository
from pals_grid.store.sites import SiteRepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from pals_grid.forecast.scoring import Band, Score
    from pals_grid.service.context import Context

WAITING = "no model yet: waiting for its first training"


@dataclass(frozen=True, slots=True)
class ModelledValue:
    """One step of the latest forecast; modelled, not measured.

    ``taken`` is what the service takes: the median, or the rival's value at leads at which that is
    better; None while nothing is taken.
    """

    start_at: datetime
    end_at: datetime
    p10: float
    p50: float
    p90: float
    rival: float | None
    taken: float | None


@dataclass(frozen=True, slots=True)
class ForecastView:
    """A forecast and its record. ``state`` says in words whether it is used, and why.

    ``record`` scores what was issued in the last 28 days by lead; ``hold_out`` the 28 days that
    were kept back at the last training; ``bands`` are the ranges of leads, each with its verdict
    and the score that decided. ``train_s`` is CPU time. Without a model the times and
    names are None and the lists empty.
    """

    is_used: bool
    state: str
    unit: str | None
    rival: str | None
    trained_at: datetime | None
    history_start_at: datetime | None
    step_s: int | None
    train_s: float | None
    record: Sequence[Score]
    hold_out: Sequence[Score]
    bands: Sequence[Band]
    values: Sequence[ModelledValue]


def load_feed_forecast(context: Context, feed_id: int) -> ForecastView:
    """Return a feed's forecast and record.

    Raises:
        NotFound: no such feed.
    """
    with context.database.read() as connection:
        feed = FeedRepository(connection).load(feed_id)
        return _view(connection, feed.site_id, feed_id, context.clock.now())


def load_load_forecast(context: Context, slug: str) -> ForecastView:
    """Return the forecast of a site's load, in output tokens/s, and its record.

    Raises:
        NotFound: no such site.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        return _view(connection, site.id, None, context.clock.now())


def list_states(context: Context, slug: str) -> Mapping[int, str]:
    """State in words of the model of each of a site's feeds that has one, by the feed's id.

    Raises:
        NotFound: no such site.
    """
    with context.database.read() as connection:
        site = SiteRepository(connection).load(slug)
        return ForecastRepository(connection).list_states(site.id)


def _view(connection: Connection, site_id: int, feed_id: int | None, now: datetime) -> ForecastView:
    repository = ForecastRepository(connection)
    held = repository.load(site_id, feed_id)
    learned = held.learned if held else None
    if held is None or learned is None:
        state = held.state if held else WAITING if is_available() else NO_PACKAGE
        return ForecastView(
            is_used=False,
            state=state,
            unit=None,
            rival=None,
            trained_at=None,
            history_start_at=None,
            step_s=None,
            train_s=None,
            record=(),
            hold_out=(),
            bands=(),
            values=(),
        )
    verdict = load_verdict(connection, held, now)
    begin_s, found = repository.load_latest(held.id, now)
    values = [
        ModelledValue(
            _instant(v.start_s),
            _instant(v.end_s),
            v.p10,
            v.p50,
            v.p90,
            v.rival,
            v.taken(verdict, begin_s),
        )
        for v in found
    ]
    return ForecastView(
        is_used=held.is_used,
        state=held.state,
        unit=held.unit,
        rival=learned.rival,
        trained_at=held.trained_at,
        history_start_at=_instant(learned.history_start_s),
        step_s=learned.step_s,
        train_s=held.train_s,
        record=repository.load_record(held.id, now - RECORD),
        hold_out=learned.hold_out,
        bands=verdict.bands,
        values=values,
    )


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
