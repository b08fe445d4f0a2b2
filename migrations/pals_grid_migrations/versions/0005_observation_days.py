"""A feed's values by quarter-hours and days, kept for questions over a year.

The index by time of recording goes: no question needs it, and where statistics were old it was
taken in place of the primary key, which made adding a month's values take minutes.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "observation_day",
        sa.Column("feed_id", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=True),
        sa.Column("means", ARRAY(sa.Double()), nullable=False),
        sa.Column("covered_s", ARRAY(sa.Double()), nullable=True),
        sa.ForeignKeyConstraint(["feed_id"], ["feed.id"], name="fk_observation_day_feed_id"),
        sa.PrimaryKeyConstraint("feed_id", "day", name="pk_observation_day"),
        sa.CheckConstraint("cardinality(means) = 96", name="ck_observation_day_means"),
        sa.CheckConstraint("cardinality(covered_s) = 96", name="ck_observation_day_covered_s"),
    )
    op.drop_index("ix_observation_feed_id_recorded_at", "observation")
