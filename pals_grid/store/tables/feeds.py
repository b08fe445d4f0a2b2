"""Feeds, their health and values, providers and tariffs."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql import text

from pals_grid.store.tables.base import (
    at_column,
    id_column,
    metadata,
    number_column,
    reference_column,
)

feed = Table(
    "feed",
    metadata,
    id_column(),
    reference_column("site"),
    Column("name", Text, nullable=False),
    Column("connector", Text, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("options", JSONB, nullable=False),
    # env:NAME or file:PATH; the secret itself is never stored.
    Column("secret_ref", Text, nullable=True),
    number_column("poll_s"),
    number_column("stale_after_s"),
    at_column("created_at"),
    at_column("removed_at", nullable=True),
    Column("fallbacks", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
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
    at_column("last_attempt_at", nullable=True),
    at_column("last_success_at", nullable=True),
    at_column("next_attempt_at", nullable=True),
    Column("last_error", Text, nullable=True),
    Column("last_error_kind", Text, nullable=True),
    Column("consecutive_failures", Integer, nullable=False, server_default=text("0")),
    Column("invalid_total", BigInteger, nullable=False, server_default=text("0")),
    at_column("last_new_at", nullable=True),
    Column("provider_key", Text, nullable=True),
    number_column("credit_left", nullable=True),
    number_column("clock_skew_s", nullable=True),
)

# One row a provider, by connector and host; its order of requests holds for all replicas.
provider = Table(
    "provider",
    metadata,
    Column("key", Text, primary_key=True),
    at_column("next_free_at"),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("trips", Integer, nullable=False, server_default=text("0")),
    # Held back until then; None while it does well.
    at_column("probe_at", nullable=True),
    Column("is_probing", Boolean, nullable=False, server_default=text("false")),
)

# Bitemporal: (start_at, end_at) is when a value holds, known_at when its source knew it,
# recorded_at when we did. Rows are only ever added.
observation = Table(
    "observation",
    metadata,
    reference_column("feed"),
    at_column("start_at"),
    at_column("end_at"),
    at_column("known_at"),
    at_column("recorded_at"),
    Column("kind", Text, nullable=False),
    number_column("value"),
    Column("unit", Text, nullable=False),
    PrimaryKeyConstraint("feed_id", "start_at", "kind", "known_at"),
    CheckConstraint("end_at > start_at", name="interval"),
    CheckConstraint("value = value AND abs(value) < 'infinity'::float8", name="finite"),
)

# What follows from a feed's observations, for questions over a year; made anew when they change.
observation_day = Table(
    "observation_day",
    metadata,
    reference_column("feed"),
    Column("day", Date, nullable=False),
    Column("unit", Text, nullable=True),
    Column("means", ARRAY(Double), nullable=False),
    Column("covered_s", ARRAY(Double), nullable=True),
    PrimaryKeyConstraint("feed_id", "day"),
    CheckConstraint("cardinality(means) = 96", name="means"),
    CheckConstraint("cardinality(covered_s) = 96", name="covered_s"),
)

# Rows are only added: of two tariffs from the same instant the later row holds.
tariff = Table(
    "tariff",
    metadata,
    id_column(),
    reference_column("site"),
    at_column("valid_from_at"),
    at_column("recorded_at"),
    Column("document", JSONB, nullable=False),
    Index("ix_tariff_site_id_valid_from_at", "site_id", "valid_from_at"),
)
