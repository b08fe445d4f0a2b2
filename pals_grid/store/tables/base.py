"""What all tables share: names of constraints, and kinds of columns."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Double, ForeignKey, Identity, MetaData, func

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def id_column() -> Column[int]:
    """Make a column: the key that the database gives."""
    return Column("id", BigInteger, Identity(), primary_key=True)


def at_column(name: str, *, nullable: bool = False, now: bool = False) -> Column[object]:
    """Make a column: an instant; ``now`` sets it by the database's clock."""
    default = func.now() if now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


def number_column(name: str, *, nullable: bool = False) -> Column[float]:
    """Make a column: a number, in the unit that its name ends in."""
    return Column(name, Double, nullable=nullable)


def reference_column(target: str, *, name: str | None = None) -> Column[int]:
    """Make a column: the id of a row of another table."""
    column = name or f"{target}_id"
    return Column(column, BigInteger, ForeignKey(f"{target}.id"), nullable=False)
