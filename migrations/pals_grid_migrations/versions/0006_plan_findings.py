"""What plans could not keep, and what one more kW would be worth.

Adds only: the previous release goes on beside it, and writes rows with the defaults.

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column(
        "plan",
        sa.Column(
            "findings", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb")
        ),
    )
    op.add_column(
        "plan_interval",
        sa.Column(
            "shadow_price_per_kw_h", sa.Double(), nullable=False, server_default=sa.text("0")
        ),
    )
