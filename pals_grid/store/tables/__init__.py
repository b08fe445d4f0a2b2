"""The tables. Imported only inside ``store`` and by the migrations' drift test.

Power is in W, energy in J, times are timestamptz in UTC, intervals are half-open.
"""

from __future__ import annotations

from pals_grid.store.tables.base import metadata
from pals_grid.store.tables.events import dr_event
from pals_grid.store.tables.feeds import (
    feed,
    feed_health,
    observation,
    observation_day,
    provider,
    tariff,
)
from pals_grid.store.tables.forecasts import forecast_value, forecast_withdrawal, forecaster
from pals_grid.store.tables.jobs import job_run, replica
from pals_grid.store.tables.live import (
    allocator,
    grant_round,
    power_grant,
    site_lease,
    site_meter_reading,
)
from pals_grid.store.tables.plans import (
    SHARE_NUMBERS,
    envelope,
    envelope_row,
    plan,
    plan_input,
    plan_interval,
    plan_share,
)
from pals_grid.store.tables.sites import enrolment_token, node, node_live, site
from pals_grid.store.tables.telemetry import (
    ENERGY_COLUMNS,
    engine_hour,
    engine_minute,
    engine_row,
    gpu_row,
    ingest_batch,
    site_demand,
)

__all__ = [
    "ENERGY_COLUMNS",
    "SHARE_NUMBERS",
    "allocator",
    "dr_event",
    "engine_hour",
    "engine_minute",
    "engine_row",
    "enrolment_token",
    "envelope",
    "envelope_row",
    "feed",
    "feed_health",
    "forecast_value",
    "forecast_withdrawal",
    "forecaster",
    "gpu_row",
    "grant_round",
    "ingest_batch",
    "job_run",
    "metadata",
    "node",
    "node_live",
    "observation",
    "observation_day",
    "plan",
    "plan_input",
    "plan_interval",
    "plan_share",
    "power_grant",
    "provider",
    "replica",
    "site",
    "site_demand",
    "site_lease",
    "site_meter_reading",
    "tariff",
]
