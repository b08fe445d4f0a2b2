"""Live grants: who decides for a site, what each node was granted, and the site's meter.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

_POWER = "power_w >= 0 AND power_w < 'infinity'::float8"


def upgrade() -> None:
    op.create_table(
        "allocator",
        sa.Column("name", sa.Text(), nullable=False),
        _at("seen_at"),
        sa.Column("sites", sa.Integer(), nullable=False),
        sa.Column("nodes", sa.Integer(), nullable=False),
        sa.Column("round_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_allocator"),
    )
    op.create_table(
        "site_lease",
        _site(),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        _at("until_at"),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_site_lease_site_id"),
        sa.PrimaryKeyConstraint("site_id", name="pk_site_lease"),
    )
    op.create_table(
        "power_grant",
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        _site(),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("power_w", sa.Double(), nullable=False),
        sa.Column("lease_s", sa.Double(), nullable=False),
        _at("ends_at"),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name="fk_power_grant_node_id"),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_power_grant_site_id"),
        sa.PrimaryKeyConstraint("node_id", name="pk_power_grant"),
        sa.CheckConstraint(_POWER, name="ck_power_grant_power"),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "grant_round",
        _site(),
        _at("at"),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("record", postgresql.JSONB(), nullable=False),
        sa.Column("rounds", sa.BigInteger(), nullable=False),
        sa.Column("cuts", sa.BigInteger(), nullable=False),
        sa.Column("raises", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_grant_round_site_id"),
        sa.PrimaryKeyConstraint("site_id", name="pk_grant_round"),
    )
    op.create_table(
        "site_meter_reading",
        _site(),
        _at("at"),
        sa.Column("power_w", sa.Double(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        _at("received_at"),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_site_meter_reading_site_id"),
        sa.PrimaryKeyConstraint("site_id", "at", name="pk_site_meter_reading"),
        sa.CheckConstraint(_POWER, name="ck_site_meter_reading_power"),
    )


def _at(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _site() -> sa.Column[int]:
    return sa.Column("site_id", sa.BigInteger(), nullable=False, autoincrement=False)
