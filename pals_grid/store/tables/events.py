"""Demand-response events."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table, Text

from pals_grid.store.tables.base import (
    at_column,
    id_column,
    metadata,
    number_column,
    reference_column,
)

dr_event = Table(
    "dr_event",
    metadata,
    id_column(),
    reference_column("site"),
    Column("version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("name", Text, nullable=False),
    at_column("start_at"),
    at_column("end_at"),
    at_column("notice_at", nullable=True),
    number_column("ramp_s"),
    number_column("limit_w", nullable=True),
    number_column("reduction_ratio", nullable=True),
    number_column("reference_w"),
    Column("reference_origin", Text, nullable=False),
    at_column("created_at"),
    at_column("cancelled_at", nullable=True),
    CheckConstraint("end_at > start_at", name="interval"),
    CheckConstraint("num_nonnulls(limit_w, reduction_ratio) = 1", name="one_order"),
    Index("ix_dr_event_site_id_end_at", "site_id", "end_at"),
)
