"""What a provider allows and how it does, shared by all replicas; more of a feed's health.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "provider",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("next_free_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("trips", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("probe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_probing", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_provider"),
    )
    # Nullable and without a default, so that the release before goes on.
    op.add_column("feed_health", sa.Column("last_new_at", sa.DateTime(timezone=True)))
    op.add_column("feed_health", sa.Column("provider_key", sa.Text()))
    op.add_column("feed_health", sa.Column("credit_left", sa.Double()))
    op.add_column("feed_health", sa.Column("clock_skew_s", sa.Double()))
    op.execute("""
        UPDATE feed_health SET last_new_at =
            (SELECT max(recorded_at) FROM observation WHERE feed_id = feed_health.feed_id)
    """)
