"""Where a forecaster's model is used: by its record so far, and by its hold-out before that."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.forecast.scoring import judge
from pals_grid.store.forecasts import ForecastRepository

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from pals_grid.forecast.scoring import Verdict
    from pals_grid.store.forecasts import Forecaster

RECORD = timedelta(days=28)


def load_verdict(connection: Connection, held: Forecaster, now: datetime) -> Verdict:
    """Judge what was issued in the last 28 days, range by range; without a model it is not used."""
    live = ForecastRepository(connection).load_record(held.id, now - RECORD)
    learned = held.learned
    verdict = judge(
        live,
        learned.hold_out if learned else (),
        rival=learned.rival if learned else "",
        unit=held.unit,
    )
    if learned is None:
        return replace(verdict, is_used=False, reason=held.state)
    if learned.told_by:
        return replace(verdict, reason=f"{verdict.reason}; told the prices of {learned.told_by}")
    return verdict
