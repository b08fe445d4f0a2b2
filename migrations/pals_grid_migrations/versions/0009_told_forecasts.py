"""The feed whose announced prices a forecaster is told. The previous release leaves it empty.

Revision ID: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    told_by = sa.Column("told_by", sa.Text(), nullable=False, server_default="")
    op.add_column("forecaster", told_by)
