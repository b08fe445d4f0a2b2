"""Plans, what they saw, their intervals and the nodes' shares."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSTZRANGE, ExcludeConstraint
from sqlalchemy.sql import text

from pals_grid.store.tables.base import (
    at_column,
    id_column,
    metadata,
    number_column,
    reference_column,
)

SHARE_NUMBERS = ("power_min_w", "power_max_w", "target_tokens_per_s")

plan = Table(
    "plan",
    metadata,
    id_column(),
    reference_column("site"),
    Column("version", Integer, nullable=False),
    Column("planner", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("policy", JSONB, nullable=False),
    at_column("created_at"),
    Column("findings", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    UniqueConstraint("site_id", "version"),
)

plan_input = Table(
    "plan_input",
    metadata,
    reference_column("plan"),
    reference_column("feed"),
    at_column("as_of"),
    at_column("latest_known_at", nullable=True),
    Column("values", Integer, nullable=False),
    number_column("coverage_ratio"),
    Column("kinds", JSONB, nullable=False),
    PrimaryKeyConstraint("plan_id", "feed_id"),
)

plan_interval = Table(
    "plan_interval",
    metadata,
    reference_column("plan"),
    Column("during", TSTZRANGE, nullable=False),
    number_column("limit_w"),
    Column("reason", Text, nullable=False),
    Column("explanation", Text, nullable=False),
    number_column("price_per_mwh", nullable=True),
    number_column("carbon_g_per_kwh", nullable=True),
    number_column("demand_tokens_per_s"),
    number_column("planned_tokens_per_s"),
    number_column("expected_power_w"),
    number_column("shortfall_tokens_per_s"),
    Column("event_id", BigInteger, ForeignKey("dr_event.id"), nullable=True),
    Column("peak_risk_per_mwh", Double, nullable=False, server_default=text("0")),
    # Where the values come from, substitutes named as such; NULL where there is no value.
    *(Column(name, JSONB, nullable=True) for name in ("price_source", "carbon_source")),
    Column("shadow_price_per_kw_h", Double, nullable=False, server_default=text("0")),
    CheckConstraint("limit_w >= 0", name="limit_w"),
    CheckConstraint("NOT isempty(during)", name="during"),
    PrimaryKeyConstraint("plan_id", "during"),
    ExcludeConstraint(
        (func.int8range(text("plan_id"), text("plan_id"), text("'[]'")), "="),
        ("during", "&&"),
        name="plan_interval_no_overlap",
        using="gist",
    ),
)

# What one kind of node is granted over each interval of a plan: nodes that are alike get alike.
# ``edges`` are the intervals' bounds, so that it can be read when those are no longer kept.
plan_share = Table(
    "plan_share",
    metadata,
    reference_column("plan"),
    Column("number", Integer, nullable=False),
    Column("node_ids", ARRAY(BigInteger), nullable=False),
    Column("edges", ARRAY(DateTime(timezone=True)), nullable=False),
    *(Column(name, ARRAY(Double), nullable=False) for name in SHARE_NUMBERS),
    PrimaryKeyConstraint("plan_id", "number"),
    *(
        CheckConstraint(f"cardinality({name}) = cardinality(edges) - 1", name=name)
        for name in SHARE_NUMBERS
    ),
)

# As the previous release writes them: a row a node and interval. To be dropped.
envelope_row = Table(
    "envelope_row",
    metadata,
    reference_column("plan"),
    reference_column("node"),
    Column("during", TSTZRANGE, nullable=False),
    *(number_column(name) for name in SHARE_NUMBERS),
    PrimaryKeyConstraint("plan_id", "node_id", "during"),
    ForeignKeyConstraint(["plan_id", "during"], ["plan_interval.plan_id", "plan_interval.during"]),
    CheckConstraint("power_min_w >= 0 AND power_max_w >= power_min_w", name="power_range"),
    Index("ix_envelope_row_node_id_plan_id", "node_id", "plan_id"),
)

# A view over both, with a row a node and interval.
envelope = Table(
    "envelope",
    MetaData(),
    Column("plan_id", BigInteger),
    Column("node_id", BigInteger),
    Column("during", TSTZRANGE),
    *(number_column(name) for name in SHARE_NUMBERS),
)
