"""The first schema: sites, nodes, feeds, plans, events, telemetry, jobs.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_SUMS = (
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


def upgrade() -> None:
    _create_sites_and_nodes()
    _create_feeds()
    _create_observations()
    _create_demand_response()
    _create_plans()
    _create_plan_intervals()
    _create_raw_telemetry()
    _create_rollup("engine_minute")
    _create_rollup("engine_hour")
    _create_jobs()


def _create_sites_and_nodes() -> None:
    op.create_table(
        "site",
        _id(),
        _text("slug"),
        _integer("version"),
        _json("policy"),
        _at("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_site"),
        sa.UniqueConstraint("slug", name="uq_site_slug"),
    )
    op.create_table(
        "enrolment_token",
        _id(),
        _big("site_id"),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        _at("created_at"),
        _at("revoked_at", nullable=True),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_enrolment_token_site_id"),
        sa.PrimaryKeyConstraint("id", name="pk_enrolment_token"),
        sa.UniqueConstraint("token_sha256", name="uq_enrolment_token_token_sha256"),
    )
    op.create_table(
        "node",
        _id(),
        _big("site_id"),
        _text("name"),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        _text("hardware"),
        _text("origin"),
        _text("agent_version"),
        _json("gpus"),
        _json("models"),
        _number("power_min_w"),
        _number("power_max_w"),
        _json("curve"),
        _at("registered_at"),
        _at("last_seen_at", nullable=True),
        _at("removed_at", nullable=True),
        sa.CheckConstraint(
            "power_min_w >= 0 AND power_max_w >= power_min_w", name="ck_node_power_range"
        ),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_node_site_id"),
        sa.PrimaryKeyConstraint("id", name="pk_node"),
        sa.UniqueConstraint("site_id", "name", name="uq_node_site_id_name"),
        sa.UniqueConstraint("token_sha256", name="uq_node_token_sha256"),
    )
    op.create_table(
        "node_live",
        _big("node_id"),
        _at("at"),
        _json("status"),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name="fk_node_live_node_id"),
        sa.PrimaryKeyConstraint("node_id", name="pk_node_live"),
        prefixes=["UNLOGGED"],
    )


def _create_feeds() -> None:
    op.create_table(
        "feed",
        _id(),
        _big("site_id"),
        _text("name"),
        _text("connector"),
        _text("quantity"),
        _json("options"),
        _text("secret_ref", nullable=True),
        _number("poll_s"),
        _number("stale_after_s"),
        _at("created_at"),
        _at("removed_at", nullable=True),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_feed_site_id"),
        sa.PrimaryKeyConstraint("id", name="pk_feed"),
    )
    op.create_index(
        "uq_feed_site_id_name",
        "feed",
        ["site_id", "name"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_table(
        "feed_health",
        _big("feed_id"),
        _at("last_attempt_at", nullable=True),
        _at("last_success_at", nullable=True),
        _at("next_attempt_at", nullable=True),
        _text("last_error", nullable=True),
        _text("last_error_kind", nullable=True),
        sa.Column(
            "consecutive_failures", sa.Integer(), server_default=sa.text("0"), nullable=False
        ),
        sa.Column("invalid_total", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["feed_id"], ["feed.id"], name="fk_feed_health_feed_id"),
        sa.PrimaryKeyConstraint("feed_id", name="pk_feed_health"),
    )


def _create_observations() -> None:
    op.create_table(
        "observation",
        _big("feed_id"),
        _at("start_at"),
        _at("end_at"),
        _at("known_at"),
        _at("recorded_at"),
        _text("kind"),
        _number("value"),
        _text("unit"),
        sa.CheckConstraint(
            "value = value AND abs(value) < 'infinity'::float8", name="ck_observation_finite"
        ),
        sa.CheckConstraint("end_at > start_at", name="ck_observation_interval"),
        sa.ForeignKeyConstraint(["feed_id"], ["feed.id"], name="fk_observation_feed_id"),
        sa.PrimaryKeyConstraint("feed_id", "start_at", "kind", "known_at", name="pk_observation"),
    )
    op.create_index(
        "ix_observation_feed_id_recorded_at",
        "observation",
        ["feed_id", "recorded_at"],
        unique=False,
    )


def _create_demand_response() -> None:
    op.create_table(
        "dr_event",
        _id(),
        _big("site_id"),
        _integer("version"),
        _text("status"),
        _text("name"),
        _at("start_at"),
        _at("end_at"),
        _at("notice_at", nullable=True),
        _number("ramp_s"),
        _number("limit_w", nullable=True),
        _number("reduction_ratio", nullable=True),
        _number("reference_w"),
        _text("reference_origin"),
        _at("created_at"),
        _at("cancelled_at", nullable=True),
        sa.CheckConstraint("end_at > start_at", name="ck_dr_event_interval"),
        sa.CheckConstraint(
            "num_nonnulls(limit_w, reduction_ratio) = 1", name="ck_dr_event_one_order"
        ),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_dr_event_site_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dr_event"),
    )
    op.create_index("ix_dr_event_site_id_end_at", "dr_event", ["site_id", "end_at"], unique=False)


def _create_plans() -> None:
    op.create_table(
        "plan",
        _id(),
        _big("site_id"),
        _integer("version"),
        _text("planner"),
        _text("trigger"),
        _json("policy"),
        _at("created_at"),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_plan_site_id"),
        sa.PrimaryKeyConstraint("id", name="pk_plan"),
        sa.UniqueConstraint("site_id", "version", name="uq_plan_site_id_version"),
    )
    op.create_table(
        "plan_input",
        _big("plan_id"),
        _big("feed_id"),
        _at("as_of"),
        _at("latest_known_at", nullable=True),
        _integer("values"),
        _number("coverage_ratio"),
        _json("kinds"),
        sa.ForeignKeyConstraint(["feed_id"], ["feed.id"], name="fk_plan_input_feed_id"),
        sa.ForeignKeyConstraint(["plan_id"], ["plan.id"], name="fk_plan_input_plan_id"),
        sa.PrimaryKeyConstraint("plan_id", "feed_id", name="pk_plan_input"),
    )


def _create_plan_intervals() -> None:
    op.create_table(
        "plan_interval",
        _big("plan_id"),
        sa.Column("during", postgresql.TSTZRANGE(), nullable=False),
        _number("limit_w"),
        _text("reason"),
        _text("explanation"),
        _number("price_per_mwh", nullable=True),
        _number("carbon_g_per_kwh", nullable=True),
        _number("demand_tokens_per_s"),
        _number("planned_tokens_per_s"),
        _number("expected_power_w"),
        _number("shortfall_tokens_per_s"),
        _big("event_id", nullable=True),
        postgresql.ExcludeConstraint(
            (sa.text("int8range(plan_id, plan_id, '[]')"), "="),
            (sa.column("during"), "&&"),
            using="gist",
            name="plan_interval_no_overlap",
        ),
        sa.CheckConstraint("NOT isempty(during)", name="ck_plan_interval_during"),
        sa.CheckConstraint("limit_w >= 0", name="ck_plan_interval_limit_w"),
        sa.ForeignKeyConstraint(["event_id"], ["dr_event.id"], name="fk_plan_interval_event_id"),
        sa.ForeignKeyConstraint(["plan_id"], ["plan.id"], name="fk_plan_interval_plan_id"),
        sa.PrimaryKeyConstraint("plan_id", "during", name="pk_plan_interval"),
    )
    op.create_table(
        "envelope",
        _big("plan_id"),
        _big("node_id"),
        sa.Column("during", postgresql.TSTZRANGE(), nullable=False),
        _number("power_min_w"),
        _number("power_max_w"),
        _number("target_tokens_per_s"),
        sa.CheckConstraint(
            "power_min_w >= 0 AND power_max_w >= power_min_w", name="ck_envelope_power_range"
        ),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name="fk_envelope_node_id"),
        sa.ForeignKeyConstraint(
            ["plan_id", "during"],
            ["plan_interval.plan_id", "plan_interval.during"],
            name="fk_envelope_plan_id_during",
        ),
        sa.ForeignKeyConstraint(["plan_id"], ["plan.id"], name="fk_envelope_plan_id"),
        sa.PrimaryKeyConstraint("plan_id", "node_id", "during", name="pk_envelope"),
    )
    op.create_index("ix_envelope_node_id_plan_id", "envelope", ["node_id", "plan_id"], unique=False)


def _create_raw_telemetry() -> None:
    op.create_table(
        "engine_row",
        _big("node_id"),
        _text("engine"),
        _text("model"),
        _at("start_at"),
        _at("end_at"),
        *_sums(),
        _text("energy_origin"),
        _text("node_energy_origin"),
        _number("power_draw_w"),
        _number("power_draw_max_w"),
        _number("power_limit_w"),
        _number("power_envelope_w"),
        _integer("max_num_seqs"),
        _number("requests_running"),
        _number("requests_waiting"),
        sa.PrimaryKeyConstraint("node_id", "engine", "start_at", name="pk_engine_row"),
        postgresql_partition_by="RANGE (start_at)",
    )
    op.create_index(
        "ix_engine_row_start_at", "engine_row", ["start_at"], unique=False, postgresql_using="brin"
    )
    op.create_table(
        "gpu_row",
        _big("node_id"),
        _text("gpu_uuid"),
        _at("start_at"),
        _at("end_at"),
        _number("energy_j"),
        _number("power_draw_w"),
        _number("power_limit_w"),
        _number("temperature_c", nullable=True),
        _number("sm_clock_mhz", nullable=True),
        sa.PrimaryKeyConstraint("node_id", "gpu_uuid", "start_at", name="pk_gpu_row"),
        postgresql_partition_by="RANGE (start_at)",
    )
    op.create_index(
        "ix_gpu_row_start_at", "gpu_row", ["start_at"], unique=False, postgresql_using="brin"
    )
    op.create_table(
        "ingest_batch",
        _big("node_id"),
        _text("spool_id"),
        _big("seq"),
        _integer("engine_rows"),
        _integer("gpu_rows"),
        _at("received_at"),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name="fk_ingest_batch_node_id"),
        sa.PrimaryKeyConstraint("node_id", "spool_id", "seq", name="pk_ingest_batch"),
    )
    op.create_index(
        "ix_ingest_batch_received_at",
        "ingest_batch",
        ["received_at"],
        unique=False,
        postgresql_using="brin",
    )


def _create_jobs() -> None:
    op.create_table(
        "job_run",
        _text("job_id"),
        _at("scheduled_for"),
        _text("claimed_by"),
        _at("started_at"),
        _at("finished_at", nullable=True),
        _text("error", nullable=True),
        sa.PrimaryKeyConstraint("job_id", "scheduled_for", name="pk_job_run"),
    )


def _create_rollup(name: str) -> None:
    op.create_table(
        name,
        _big("node_id"),
        _text("engine"),
        _text("model"),
        _at("start_at"),
        *_sums(),
        _text("energy_origin"),
        _text("node_energy_origin"),
        _number("power_draw_max_w"),
        _number("duration_s"),
        _number("power_limit_j"),
        _integer("rows"),
        sa.PrimaryKeyConstraint("node_id", "engine", "model", "start_at", name=f"pk_{name}"),
    )
    op.create_index(
        f"ix_{name}_start_at", name, ["start_at"], unique=False, postgresql_using="brin"
    )


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _number(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, postgresql.JSONB(), nullable=False)


def _sums() -> list[sa.Column[float]]:
    return [_number(name) for name in _SUMS]
