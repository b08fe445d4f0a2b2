"""Sites, their tokens and nodes, and what a node said last."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB

from pals_grid.store.tables.base import (
    at_column,
    id_column,
    metadata,
    number_column,
    reference_column,
)

site = Table(
    "site",
    metadata,
    id_column(),
    Column("slug", Text, nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    Column("policy", JSONB, nullable=False),
    at_column("created_at"),
)

enrolment_token = Table(
    "enrolment_token",
    metadata,
    id_column(),
    reference_column("site"),
    Column("token_sha256", LargeBinary, nullable=False, unique=True),
    at_column("created_at"),
    at_column("revoked_at", nullable=True),
)

node = Table(
    "node",
    metadata,
    id_column(),
    reference_column("site"),
    Column("name", Text, nullable=False),
    Column("token_sha256", LargeBinary, nullable=False, unique=True),
    Column("hardware", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("agent_version", Text, nullable=False),
    Column("gpus", JSONB, nullable=False),
    Column("models", JSONB, nullable=False),
    number_column("power_min_w"),
    number_column("power_max_w"),
    Column("curve", JSONB, nullable=False),
    at_column("registered_at"),
    at_column("last_seen_at", nullable=True),
    # The row stays for the telemetry and the plans that name it.
    at_column("removed_at", nullable=True),
    UniqueConstraint("site_id", "name"),
    CheckConstraint("power_min_w >= 0 AND power_max_w >= power_min_w", name="power_range"),
)

# The last status of each node: one row, overwritten every second; lost in a crash, by design.
node_live = Table(
    "node_live",
    metadata,
    Column("node_id", BigInteger, ForeignKey("node.id"), primary_key=True),
    at_column("at"),
    Column("status", JSONB, nullable=False),
    prefixes=["UNLOGGED"],
)
