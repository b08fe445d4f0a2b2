"""Rows and roll-ups of engines and GPUs, demand by site, batches received."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from pals_grid.store.tables.base import at_column, metadata, number_column, reference_column

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
        at_column("start_at"),
    ]


def _energy_sums() -> list[Column[float]]:
    return [number_column(name) for name in ENERGY_COLUMNS]


# Range-partitioned by day on start_at; partitions are made ahead by a job and dropped by age.
engine_row = Table(
    "engine_row",
    metadata,
    *_engine_key(),
    at_column("end_at"),
    *_energy_sums(),
    Column("energy_origin", Text, nullable=False),
    Column("node_energy_origin", Text, nullable=False),
    number_column("power_draw_w"),
    number_column("power_draw_max_w"),
    number_column("power_limit_w"),
    number_column("power_envelope_w"),
    Column("max_num_seqs", Integer, nullable=False),
    number_column("requests_running"),
    number_column("requests_waiting"),
    PrimaryKeyConstraint("node_id", "engine", "start_at"),
    Index("ix_engine_row_start_at", "start_at", postgresql_using="brin"),
    postgresql_partition_by="RANGE (start_at)",
)

gpu_row = Table(
    "gpu_row",
    metadata,
    Column("node_id", BigInteger, nullable=False),
    Column("gpu_uuid", Text, nullable=False),
    at_column("start_at"),
    at_column("end_at"),
    number_column("energy_j"),
    number_column("power_draw_w"),
    number_column("power_limit_w"),
    number_column("temperature_c", nullable=True),
    number_column("sm_clock_mhz", nullable=True),
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
        number_column("power_draw_max_w"),
        # Time that the rows cover, and the integral of power_limit_w over it: their ratio is the
        # mean limit, and energy over duration the mean power.
        number_column("duration_s"),
        number_column("power_limit_j"),
        Column("rows", Integer, nullable=False),
        PrimaryKeyConstraint("node_id", "engine", "model", "start_at"),
        Index(f"ix_{name}_start_at", "start_at", postgresql_using="brin"),
    )


# Added to in the statement that inserts the raw rows, so that they can never disagree.
engine_minute = _rollup("engine_minute")
engine_hour = _rollup("engine_hour")

# What a site's clients asked for and got, by five minutes: sums of engine_minute over its nodes.
site_demand = Table(
    "site_demand",
    metadata,
    reference_column("site"),
    at_column("start_at"),
    *(
        number_column(name)
        for name in ("tokens_out", "requests_arrived", "requests_finished", "covered_s")
    ),
    PrimaryKeyConstraint("site_id", "start_at"),
)

ingest_batch = Table(
    "ingest_batch",
    metadata,
    Column("node_id", BigInteger, ForeignKey("node.id"), nullable=False),
    Column("spool_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("engine_rows", Integer, nullable=False),
    Column("gpu_rows", Integer, nullable=False),
    at_column("received_at"),
    PrimaryKeyConstraint("node_id", "spool_id", "seq"),
    Index("ix_ingest_batch_received_at", "received_at", postgresql_using="brin"),
)
