"""Tariffs; fallback chains of feeds; where each interval's signals come from.

Adds only: the previous release goes on beside it, and writes rows with the defaults.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "tariff",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("site_id", sa.BigInteger(), nullable=False),
        sa.Column("valid_from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_tariff_site_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tariff"),
    )
    op.create_index("ix_tariff_site_id_valid_from_at", "tariff", ["site_id", "valid_from_at"])
    op.add_column(
        "feed",
        sa.Column(
            "fallbacks", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb")
        ),
    )
    op.add_column(
        "plan_interval",
        sa.Column("peak_risk_per_mwh", sa.Double(), nullable=False, server_default=sa.text("0")),
    )
    for name in ("price_source", "carbon_source"):
        op.add_column("plan_interval", sa.Column(name, postgresql.JSONB(), nullable=True))
