"""Shares of a plan by kinds of node, a site's demand by five minutes, replicas that live.

The table of envelopes becomes a view over its old rows and the new shares. The previous release
goes on beside it: it reads and writes the view as it did the table, and so reserves for silent
nodes what plans of either release have granted.

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0008"
down_revision = "0007"

# Also those of columns that are not null, which have names from PostgreSQL 18 on.
_RENAME = """
    DO $$
    DECLARE old text;
    BEGIN
        FOR old IN SELECT conname FROM pg_constraint WHERE conrelid = 'envelope_row'::regclass
        LOOP
            EXECUTE format('ALTER TABLE envelope_row RENAME CONSTRAINT %I TO %I',
                           old, replace(old, 'envelope', 'envelope_row'));
        END LOOP;
    END
    $$
"""

_VIEW = """
    CREATE VIEW envelope AS
    SELECT plan_id, node_id, during, power_min_w, power_max_w, target_tokens_per_s
    FROM envelope_row
    UNION ALL
    SELECT share.plan_id, node.id, tstzrange(item.start_at, item.end_at),
           item.power_min_w, item.power_max_w, item.target_tokens_per_s
    FROM plan_share AS share
    CROSS JOIN LATERAL unnest(share.node_ids) AS node (id)
    CROSS JOIN LATERAL unnest(
        trim_array(share.edges, 1), share.edges[2:],
        share.power_min_w, share.power_max_w, share.target_tokens_per_s
    ) AS item (start_at, end_at, power_min_w, power_max_w, target_tokens_per_s)
"""

_INSERT = """
    CREATE FUNCTION envelope_insert() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO envelope_row
            (plan_id, node_id, during, power_min_w, power_max_w, target_tokens_per_s)
        VALUES (NEW.plan_id, NEW.node_id, NEW.during,
                NEW.power_min_w, NEW.power_max_w, NEW.target_tokens_per_s);
        RETURN NEW;
    END
    $$
"""

_TRIGGER = """
    CREATE TRIGGER envelope_insert INSTEAD OF INSERT ON envelope
    FOR EACH ROW EXECUTE FUNCTION envelope_insert()
"""

# The same sums as store.demand adds from now on.
_DEMAND = """
    INSERT INTO site_demand (site_id, start_at, tokens_out, requests_arrived, requests_finished,
                             covered_s)
    SELECT site_id, date_bin('5 minutes', start_at, '1970-01-01 00:00+00'), sum(tokens_out),
           sum(requests_arrived), sum(requests_finished), sum(covered_s)
    FROM (
        SELECT site_id, start_at, sum(tokens_out) AS tokens_out,
               sum(requests_arrived) AS requests_arrived,
               sum(requests_finished) AS requests_finished, max(duration_s) AS covered_s
        FROM (
            SELECT node.site_id, minute.start_at, minute.node_id, minute.engine,
                   sum(tokens_out) AS tokens_out, sum(requests_arrived) AS requests_arrived,
                   sum(requests_finished) AS requests_finished, sum(duration_s) AS duration_s
            FROM engine_minute AS minute JOIN node ON node.id = minute.node_id
            WHERE minute.start_at >= now() - interval '180 days'
            GROUP BY node.site_id, minute.start_at, minute.node_id, minute.engine
        ) AS engine
        GROUP BY site_id, start_at
    ) AS minute
    GROUP BY 1, 2
"""


def upgrade() -> None:
    _rename_envelopes()
    _create_shares()
    for statement in (_VIEW, _INSERT, _TRIGGER):
        op.execute(statement)
    _create_demand()
    _create_replicas()


def _rename_envelopes() -> None:
    op.rename_table("envelope", "envelope_row")
    op.execute(_RENAME)
    op.execute("ALTER INDEX ix_envelope_node_id_plan_id RENAME TO ix_envelope_row_node_id_plan_id")


def _create_shares() -> None:
    numbers = ("power_min_w", "power_max_w", "target_tokens_per_s")
    op.create_table(
        "plan_share",
        sa.Column("plan_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("node_ids", ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("edges", ARRAY(sa.DateTime(timezone=True)), nullable=False),
        *(sa.Column(name, ARRAY(sa.Double()), nullable=False) for name in numbers),
        sa.ForeignKeyConstraint(["plan_id"], ["plan.id"], name="fk_plan_share_plan_id"),
        sa.PrimaryKeyConstraint("plan_id", "number", name="pk_plan_share"),
        *(
            sa.CheckConstraint(
                f"cardinality({name}) = cardinality(edges) - 1", name=f"ck_plan_share_{name}"
            )
            for name in numbers
        ),
    )


def _create_demand() -> None:
    op.create_table(
        "site_demand",
        sa.Column("site_id", sa.BigInteger(), nullable=False),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.Column(name, sa.Double(), nullable=False)
            for name in ("tokens_out", "requests_arrived", "requests_finished", "covered_s")
        ),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="fk_site_demand_site_id"),
        sa.PrimaryKeyConstraint("site_id", "start_at", name="pk_site_demand"),
    )
    op.execute(_DEMAND)


def _create_replicas() -> None:
    op.create_table(
        "replica",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_replica"),
    )
