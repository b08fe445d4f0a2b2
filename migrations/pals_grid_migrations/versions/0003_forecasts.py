"""Forecasts: models, what they said beside what came, withdrawals.

Three new tables and nothing else, so the previous release runs beside it; the lock and statement
time-outs are set for every revision by the environment.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "forecaster",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        _reference("forecaster", "site"),
        _reference("forecaster", "feed", nullable=True),
        _at("trained_at"),
        _at("history_start_at"),
        _number("step_s"),
        _number("delay_s"),
        _number("train_s"),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("rival", sa.Text(), nullable=False),
        sa.Column("model", sa.LargeBinary(), nullable=True),
        sa.Column("widths", postgresql.JSONB(), nullable=False),
        sa.Column("hold_out", postgresql.JSONB(), nullable=False),
        sa.Column("is_used", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_forecaster"),
    )
    op.create_index(
        "uq_forecaster_site_id_feed_id",
        "forecaster",
        ["site_id", "feed_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.create_table(
        "forecast_value",
        _reference("forecast_value", "forecaster"),
        _at("start_at"),
        _at("end_at"),
        _at("issued_at"),
        _number("p10"),
        _number("p50"),
        _number("p90"),
        _number("rival", nullable=True),
        _number("value", nullable=True),
        sa.PrimaryKeyConstraint("forecaster_id", "start_at", "issued_at", name="pk_forecast_value"),
        sa.CheckConstraint("p10 <= p50 AND p50 <= p90", name="ck_forecast_value_order"),
    )
    op.create_index(
        "ix_forecast_value_forecaster_id_issued_at",
        "forecast_value",
        ["forecaster_id", "issued_at"],
        unique=False,
    )
    op.create_table(
        "forecast_withdrawal",
        _reference("forecast_withdrawal", "feed"),
        _at("withdrawn_at"),
        sa.PrimaryKeyConstraint("feed_id", "withdrawn_at", name="pk_forecast_withdrawal"),
    )


def _reference(table: str, target: str, *, nullable: bool = False) -> sa.Column[int]:
    name = f"fk_{table}_{target}_id"
    key = sa.ForeignKey(f"{target}.id", name=name)
    return sa.Column(f"{target}_id", sa.BigInteger(), key, nullable=nullable)


def _at(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _number(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=nullable)
