"""What a plan expects of the clients: our model's median while it is used, else seasonal-naive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, ValueKind
from pals_grid.feeds.slotting import slot_means
from pals_grid.forecast.seasonal import HISTORY_DAYS, forecast_demand
from pals_grid.service.verdicts import load_verdict
from pals_grid.store.forecasts import ForecastRepository
from pals_grid.store.telemetry import TelemetryRepository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pals_grid.core.site import Site
    from pals_grid.forecast.issued import ForecastValue

FRESH = timedelta(hours=3)
"""A model's forecast that is older than this is not relied on."""


class DemandSource(StrEnum):
    """Where a slot's demand comes from."""

    MODEL = "model"
    LAST_DAYS = "last_days"
    STATED = "stated"


@dataclass(frozen=True, slots=True)
class ExpectedDemand:
    """Output tokens/s of each slot, and where each comes from.

    ``low_tokens_per_s`` and ``high_tokens_per_s`` are P10 and P90, None where no model tells them.
    """

    tokens_per_s: list[float]
    high_tokens_per_s: list[float | None]
    low_tokens_per_s: list[float | None]
    sources: list[DemandSource]


def load_expected_demand(
    connection: Connection,
    site: Site,
    slots: Sequence[Interval],
    now: datetime,
    default_tokens_per_s: float,
) -> ExpectedDemand:
    """Return what is expected of the clients.

    Where the site's model is used, was asked in the last 3 hours and covers the slot: its median,
    or its rival's value at leads at which that is better. Else what was asked for at the same time
    of day lately; without any record ``default_tokens_per_s``.
    """
    past = Interval(now - timedelta(days=HISTORY_DAYS), now)
    history = TelemetryRepository(connection).load_demand_history(site.id, past, site.policy.slot_s)
    naive = forecast_demand(history, slots, default_tokens_per_s)
    forecast, taken = _load_forecast(connection, site.id, now)
    known = [
        (step, value) for step, value in zip(forecast, taken, strict=True) if value is not None
    ]
    medians = step_means([step for step, _ in known], [value for _, value in known], slots, now)
    lows = step_means(forecast, [value.p10 for value in forecast], slots, now)
    highs = step_means(forecast, [value.p90 for value in forecast], slots, now)
    expected = [
        usual if median is None else max(0.0, median)
        for median, usual in zip(medians, naive, strict=True)
    ]
    without_model = DemandSource.LAST_DAYS if history else DemandSource.STATED
    return ExpectedDemand(
        expected,
        [
            None if high is None else max(high, usual)
            for high, usual in zip(highs, expected, strict=True)
        ],
        [
            None if low is None else min(max(0.0, low), usual)
            for low, usual in zip(lows, expected, strict=True)
        ],
        [without_model if median is None else DemandSource.MODEL for median in medians],
    )


def _load_forecast(
    connection: Connection, site_id: int, now: datetime
) -> tuple[list[ForecastValue], list[float | None]]:
    """Steps of the forecast, and what stands for each."""
    repository = ForecastRepository(connection)
    held = repository.load(site_id, None)
    if held is None or not held.is_used:
        return [], []
    begin_s, found = repository.load_latest(held.id, now, issued_after=now - FRESH)
    verdict = load_verdict(connection, held, now)
    return found, [step.taken(verdict, begin_s) for step in found]


def step_means(
    steps: Sequence[ForecastValue],
    values: Sequence[float],
    slots: Sequence[Interval],
    now: datetime,
) -> list[float | None]:
    """Mean of one quantile of a forecast in each slot; None where it covers too little."""
    return slot_means(
        [
            Observation(
                datetime.fromtimestamp(step.start_s, UTC),
                datetime.fromtimestamp(step.end_s, UTC),
                value,
                "tokens/s",
                ValueKind.MODELLED,
                now,
            )
            for step, value in zip(steps, values, strict=True)
        ],
        slots,
    )
