"""The tables. Imported only inside ``store`` and by the migrations' drift test.

Power is in W, energy in J, times are timestamptz in UTC, intervals are half-open.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB, TSTZRANGE, ExcludeConstraint
from sqlalchemy.sql import text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(), primary_key=True)


def _at(name: str, *, nullable: bool = False, now: bool = False) -> Column[object]:
    default = func.now() if now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


def _number(name: str, *, nullable: bool = False) -> Column[float]:
    return Column(name, Double, nullable=nullable)


def _reference(target: str, *, name: str | None = None) -> Column[int]:
    column = name or f"{target}_id"
    return Column(column, BigInteger, ForeignKey(f"{target}.id"), nullable=False)


# --- sites and nodes -----------------------------------------------------------------------

site = Table(
    "site",
    metadata,
    _id(),
    Column("slug", Text, nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    Column("policy", JSONB, nullable=False),
    _at("created_at"),
)

enrolment_token = Table(
    "enrolment_token",
    metadata,
    _id(),
    _reference("site"),
    Column("token_sha256", LargeBinary, nullable=False, unique=True),
    _at("created_at"),
    _at("revoked_at", nullable=True),
)

node = Table(
    "node",
    metadata,
    _id(),
    _reference("site"),
    Column("name", Text, nullable=False),
    Column("token_sha256", LargeBinary, nullable=False, unique=True),
    Column("hardware", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("agent_version", Text, nullable=False),
    Column("gpus", JSONB, nullable=False),
    Column("models", JSONB, nullable=False),
    _number("power_min_w"),
    _number("power_max_w"),
    Column("curve", JSONB, nullable=False),
    _at("registered_at"),
    _at("last_seen_at", nullable=True),
    # The row stays for the telemetry and the plans that name it.
    _at("removed_at", nullable=True),
    UniqueConstraint("site_id", "name"),
    CheckConstraint("power_min_w >= 0 AND power_max_w >= power_min_w", name="power_range"),
)

# The last status of each node: one row, overwritten every second; lost in a crash, by design.
node_live = Table(
    "node_live",
    metadata,
    Column("node_id", BigInteger, ForeignKey("node.id"), primary_key=True),
    _at("at"),
    Column("status", JSONB, nullable=False),
    prefixes=["UNLOGGED"],
)

# --- feeds ---------------------------------------------------------------------------------

feed = Table(
    "feed",
    metadata,
    _id(),
    _reference("site"),
    Column("name", Text, nullable=False),
    Column("connector", Text, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("options", JSONB, nullable=False),
    # env:NAME or file:PATH; the secret itself is never stored.
    Column("secret_ref", Text, nullable=True),
    _number("poll_s"),
    _number("stale_after_s"),
    _at("created_at"),
    _at("removed_at", nullable=True),
    Index(
        "uq_feed_site_id_name",
        "site_id",
        "name",
        unique=True,
        postgresql_where=text("removed_at IS NULL"),
    ),
)

feed_health = Table(
    "feed_health",
    metadata,
    Column("feed_id", BigInteger, ForeignKey("feed.id"), primary_key=True),
    _at("last_attempt_at", nullable=True),
    _at("last_success_at", nullable=True),
    _at("next_attempt_at", nullable=True),
    Column("last_error", Text, nullable=True),
    Column("last_error_kind", Text, nullable=True),
    Column("consecutive_failures", Integer, nullable=False, server_default=text("0")),
    Column("invalid_total", BigInteger, nullable=False, server_default=text("0")),
)

# Bitemporal: (start_at, end_at) is when a value holds, known_at when its source knew it,
# recorded_at when we did. Rows are only ever added.
observation = Table(
    "observation",
    metadata,
    _reference("feed"),
    _at("start_at"),
    _at("end_at"),
    _at("known_at"),
    _at("recorded_at"),
    Column("kind", Text, nullable=False),
    _number("value"),
    Column("unit", Text, nullable=False),
    PrimaryKeyConstraint("feed_id", "start_at", "kind", "known_at"),
    CheckConstraint("end_at > start_at", name="interval"),
    CheckConstraint("value = value AND abs(value) < 'infinity'::float8", name="finite"),
    Index("ix_observation_feed_id_recorded_at", "feed_id", "recorded_at"),
)

# --- plans ---------------------------------------------------------------------------------

plan = Table(
    "plan",
    metadata,
    _id(),
    _reference("site"),
    Column("version", Integer, nullable=False),
    Column("planner", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("policy", JSONB, nullable=False),
    _at("created_at"),
    UniqueConstraint("site_id", "version"),
)

plan_input = Table(
    "plan_input",
    metadata,
    _reference("plan"),
    _reference("feed"),
    _at("as_of"),
    _at("latest_known_at", nullable=True),
    Column("values", Integer, nullable=False),
    _number("coverage_ratio"),
    Column("kinds", JSONB, nullable=False),
    PrimaryKeyConstraint("plan_id", "feed_id"),
)

plan_interval = Table(
    "plan_interval",
    metadata,
    _reference("plan"),
    Column("during", TSTZRANGE, nullable=False),
    _number("limit_w"),
    Column("reason", Text, nullable=False),
    Column("explanation", Text, nullable=False),
    _number("price_per_mwh", nullable=True),
    _number("carbon_g_per_kwh", nullable=True),
    _number("demand_tokens_per_s"),
    _number("planned_tokens_per_s"),
    _number("expected_power_w"),
    _number("shortfall_tokens_per_s"),
    Column("event_id", BigInteger, ForeignKey("dr_event.id"), nullable=True),
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

envelope = Table(
    "envelope",
    metadata,
    _reference("plan"),
    _reference("node"),
    Column("during", TSTZRANGE, nullable=False),
    _number("power_min_w"),
    _number("power_max_w"),
    _number("target_tokens_per_s"),
    PrimaryKeyConstraint("plan_id", "node_id", "during"),
    ForeignKeyConstraint(["plan_id", "during"], ["plan_interval.plan_id", "plan_interval.during"]),
    CheckConstraint("power_min_w >= 0 AND power_max_w >= power_min_w", name="power_range"),
    Index("ix_envelope_node_id_plan_id", "node_id", "plan_id"),
)

# --- demand response -----------------------------------------------------------------------

dr_event = Table(
    "dr_event",
    metadata,
    _id(),
    _reference("site"),
    Column("version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("name", Text, nullable=False),
    _at("start_at"),
    _at("end_at"),
    _at("notice_at", nullable=True),
    _number("ramp_s"),
    _number("limit_w", nullable=True),
    _number("reduction_ratio", nullable=True),
    _number("reference_w"),
    Column("reference_origin", Text, nullable=False),
    _at("created_at"),
    _at("cancelled_at", nullable=True),
    CheckConstraint("end_at > start_at", name="interval"),
    CheckConstraint("num_nonnulls(limit_w, reduction_ratio) = 1", name="one_order"),
    Index("ix_dr_event_site_id_end_at", "site_id", "end_at"),
)

# --- telemetry -----------------------------------------------------------------------------

ENERGY_COLUMNS = (
    "gpu_energy_j",
    "node_energy_j",
    "idle_energy_j",
    "tokens_in",
    "tokens_out",
    "requests_arrived",
    "requests_finished",
    "ttft_misses",
    "itl_misses",
    "ticks",
    "ticks_over_envelope",
)
"""Sums that the roll-ups add up; ``max_power_draw_w`` beside them takes the maximum."""


def _engine_key() -> list[Column[object]]:
    return [
        Column("node_id", BigInteger, nullable=False),
        Column("engine", Text, nullable=False),
        Column("model", Text, nullable=False),
        _at("start_at"),
    ]


def _energy_sums() -> list[Column[float]]:
    return [_number(name) for name in ENERGY_COLUMNS]


# Range-partitioned by day on start_at; partitions are made ahead by a job and dropped by age.
engine_row = Table(
    "engine_row",
    metadata,
    *_engine_key(),
    _at("end_at"),
    *_energy_sums(),
    Column("energy_origin", Text, nullable=False),
    Column("node_energy_origin", Text, nullable=False),
    _number("power_draw_w"),
    _number("power_draw_max_w"),
    _number("power_limit_w"),
    _number("power_envelope_w"),
    Column("max_num_seqs", Integer, nullable=False),
    _number("requests_running"),
    _number("requests_waiting"),
    PrimaryKeyConstraint("node_id", "engine", "start_at"),
    Index("ix_engine_row_start_at", "start_at", postgresql_using="brin"),
    postgresql_partition_by="RANGE (start_at)",
)

gpu_row = Table(
    "gpu_row",
    metadata,
    Column("node_id", BigInteger, nullable=False),
    Column("gpu_uuid", Text, nullable=False),
    _at("start_at"),
    _at("end_at"),
    _number("energy_j"),
    _number("power_draw_w"),
    _number("power_limit_w"),
    _number("temperature_c", nullable=True),
    _number("sm_clock_mhz", nullable=True),
    PrimaryKeyConstraint("node_id", "gpu_uuid", "start_at"),
    Index("ix_gpu_row_start_at", "start_at", postgresql_using="brin"),
    postgresql_partition_by="RANGE (start_at)",
)


def _rollup(name: str) -> Table:
    return Table(
        name,
        metadata,
        *_engine_key(),
        *_energy_sums(),
        Column("energy_origin", Text, nullable=False),
        Column("node_energy_origin", Text, nullable=False),
        _number("power_draw_max_w"),
        # Time that the rows cover, and the integral of power_limit_w over it: their ratio is the
        # mean limit, and energy over duration the mean power.
        _number("duration_s"),
        _number("power_limit_j"),
        Column("rows", Integer, nullable=False),
        PrimaryKeyConstraint("node_id", "engine", "model", "start_at"),
        Index(f"ix_{name}_start_at", "start_at", postgresql_using="brin"),
    )


# Added to in the statement that inserts the raw rows, so that they can never disagree.
engine_minute = _rollup("engine_minute")
engine_hour = _rollup("engine_hour")

ingest_batch = Table(
    "ingest_batch",
    metadata,
    Column("node_id", BigInteger, ForeignKey("node.id"), nullable=False),
    Column("spool_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("engine_rows", Integer, nullable=False),
    Column("gpu_rows", Integer, nullable=False),
    _at("received_at"),
    PrimaryKeyConstraint("node_id", "spool_id", "seq"),
    Index("ix_ingest_batch_received_at", "received_at", postgresql_using="brin"),
)

# --- jobs ----------------------------------------------------------------------------------

job_run = Table(
    "job_run",
    metadata,
    Column("job_id", Text, nullable=False),
    _at("scheduled_for"),
    Column("claimed_by", Text, nullable=False),
    _at("started_at"),
    _at("finished_at", nullable=True),
    Column("error", Text, nullable=True),
    PrimaryKeyConstraint("job_id", "scheduled_for"),
)
