"""Live grants: replicas, leases of sites, grants, rounds and the site's meter."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

from pals_grid.store.tables.base import at_column, metadata, number_column, reference_column

# Replicas that may decide about grants, by name, as they last said so: for fair shares of sites;
# and what their last pass over their sites came to.
allocator = Table(
    "allocator",
    metadata,
    Column("name", Text, primary_key=True),
    at_column("seen_at"),
    Column("sites", Integer, nullable=False),
    Column("nodes", Integer, nullable=False),
    number_column("round_s"),
)

# Who decides about a site's grants, until when by the database's clock. A new holder has a higher
# epoch, and only the holder of the epoch writes grants.
site_lease = Table(
    "site_lease",
    metadata,
    Column("site_id", BigInteger, ForeignKey("site.id"), primary_key=True, autoincrement=False),
    Column("holder", Text, nullable=True),
    Column("epoch", BigInteger, nullable=False),
    at_column("until_at"),
)

# The newest grant of each node; lost in a crash, by design: leases end by themselves.
power_grant = Table(
    "power_grant",
    metadata,
    Column("node_id", BigInteger, ForeignKey("node.id"), primary_key=True, autoincrement=False),
    reference_column("site"),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    number_column("power_w"),
    number_column("lease_s"),
    at_column("ends_at"),
    CheckConstraint("power_w >= 0 AND power_w < 'infinity'::float8", name="power"),
    prefixes=["UNLOGGED"],
)

# The last round of each site, and how much there was of what since its first.
grant_round = Table(
    "grant_round",
    metadata,
    Column("site_id", BigInteger, ForeignKey("site.id"), primary_key=True, autoincrement=False),
    at_column("at"),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("record", JSONB, nullable=False),
    Column("rounds", BigInteger, nullable=False),
    Column("cuts", BigInteger, nullable=False),
    Column("raises", BigInteger, nullable=False),
)

# What a site's own meter says, at its grid connection.
site_meter_reading = Table(
    "site_meter_reading",
    metadata,
    reference_column("site"),
    at_column("at"),
    number_column("power_w"),
    Column("source", Text, nullable=False),
    at_column("received_at"),
    PrimaryKeyConstraint("site_id", "at"),
    CheckConstraint("power_w >= 0 AND power_w < 'infinity'::float8", name="power"),
)
