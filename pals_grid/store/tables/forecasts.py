"""Forecasters, what they said, and what was withdrawn."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pals_grid.store.tables.base import (
    at_column,
    id_column,
    metadata,
    number_column,
    reference_column,
)

# One of each feed, and with no feed the site's load; a new training overwrites it.
forecaster = Table(
    "forecaster",
    metadata,
    id_column(),
    reference_column("site"),
    Column("feed_id", BigInteger, ForeignKey("feed.id"), nullable=True),
    at_column("trained_at"),
    at_column("history_start_at"),
    number_column("step_s"),
    number_column("delay_s"),
    number_column("train_s"),
    Column("unit", Text, nullable=False),
    Column("rival", Text, nullable=False),
    # NULL where there is none, e.g. with too little history: state says why.
    Column("model", LargeBinary, nullable=True),
    Column("widths", JSONB, nullable=False),
    Column("hold_out", JSONB, nullable=False),
    Column("is_used", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    # Name of the feed whose announced prices the model is told; empty without one.
    Column("told_by", Text, nullable=False, server_default=""),
    Index(
        "uq_forecaster_site_id_feed_id",
        "site_id",
        "feed_id",
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
)

# What was said, beside what came: value and rival are filled in later, and only then judged.
forecast_value = Table(
    "forecast_value",
    metadata,
    reference_column("forecaster"),
    at_column("start_at"),
    at_column("end_at"),
    at_column("issued_at"),
    number_column("p10"),
    number_column("p50"),
    number_column("p90"),
    number_column("rival", nullable=True),
    number_column("value", nullable=True),
    PrimaryKeyConstraint("forecaster_id", "start_at", "issued_at"),
    CheckConstraint("p10 <= p50 AND p50 <= p90", name="order"),
    Index("ix_forecast_value_forecaster_id_issued_at", "forecaster_id", "issued_at"),
)

# From then on nothing holds that the model of the feed had said before.
forecast_withdrawal = Table(
    "forecast_withdrawal",
    metadata,
    reference_column("feed"),
    at_column("withdrawn_at"),
    PrimaryKeyConstraint("feed_id", "withdrawn_at"),
)
