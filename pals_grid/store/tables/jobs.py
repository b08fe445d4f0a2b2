"""Runs of jobs, and the replicas that take them."""

from __future__ import annotations

from sqlalchemy import Column, PrimaryKeyConstraint, Table, Text

from pals_grid.store.tables.base import at_column, metadata

job_run = Table(
    "job_run",
    metadata,
    Column("job_id", Text, nullable=False),
    at_column("scheduled_for"),
    Column("claimed_by", Text, nullable=False),
    at_column("started_at"),
    at_column("finished_at", nullable=True),
    Column("error", Text, nullable=True),
    PrimaryKeyConstraint("job_id", "scheduled_for"),
)

# Processes that take runs; one that was not seen lately is taken to be dead.
replica = Table(
    "replica",
    metadata,
    Column("name", Text, primary_key=True),
    at_column("started_at"),
    at_column("seen_at"),
)
