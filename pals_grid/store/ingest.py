"""Taking in telemetry rows: checked, copied to a temporary table, inserted and summed at once.

One statement inserts the rows that are new and adds exactly those to the roll-ups, so that raw
rows and sums can never disagree.
"""

from __future__ import annotations

from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from typing import cast as typed

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    MetaData,
    Table,
    bindparam,
    cast,
    extract,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.schema import CreateTable

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import require_utc
from pals_grid.store.tables import (
    ENERGY_COLUMNS,
    engine_hour,
    engine_minute,
    engine_row,
    gpu_row,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg
    from sqlalchemy import CTE, ColumnElement, Connection, Insert, Select

    from pals_grid.wire.messages import EngineRow, GpuRow, TelemetryBatch

MAX_AGE = timedelta(days=30)
MAX_LENGTH = timedelta(minutes=10)
MAX_AHEAD = timedelta(days=1)
_MAX_INTEGER = 2**31 - 1
_COPY_TYPES = {"TEXT": "text", "INTEGER": "int4", "DOUBLE": "float8", "DATETIME": "timestamptz"}


def check_batch(batch: TelemetryBatch, received_at: datetime) -> None:
    """Look at every row before anything is written.

    Raises:
        InvalidValue: a time without offset, an empty interval or one of more than ten minutes, a
            row older than 30 days or more than a day ahead of ``received_at``, energies that
            contradict each other, or a value that its column cannot hold.
    """
    require_utc("received_at", received_at)
    _check_text("spool_id", batch.spool_id)
    for i, row in enumerate(batch.engine_rows):
        _check_times(f"engine_rows[{i}]", row, received_at)
        _check_energies(f"engine_rows[{i}]", row)
        _check_text(f"engine_rows[{i}].engine", row.engine)
        _check_text(f"engine_rows[{i}].model", row.model)
        if row.max_num_seqs > _MAX_INTEGER:
            raise InvalidValue(
                f"engine_rows[{i}].max_num_seqs", row.max_num_seqs, f"must be <= {_MAX_INTEGER}"
            )
    for i, gpu in enumerate(batch.gpu_rows):
        _check_times(f"gpu_rows[{i}]", gpu, received_at)
        _check_text(f"gpu_rows[{i}].gpu_uuid", gpu.gpu_uuid)


def insert_engine_rows(connection: Connection, node_id: int, rows: Sequence[EngineRow]) -> int:
    """Insert the rows whose ``(node, engine, start_at)`` is new and sum them; how many."""
    if not rows:
        return 0
    _stage(connection, _STAGED_ENGINE, rows)
    return connection.execute(_INSERT_ENGINE_ROWS, {"from_node": node_id}).scalar_one()


def insert_gpu_rows(connection: Connection, node_id: int, rows: Sequence[GpuRow]) -> int:
    """Insert the rows whose ``(node, gpu, start_at)`` is new; how many."""
    if not rows:
        return 0
    _stage(connection, _STAGED_GPU, rows)
    return connection.execute(_INSERT_GPU_ROWS, {"from_node": node_id}).scalar_one()


def _check_times(field: str, row: EngineRow | GpuRow, received_at: datetime) -> None:
    start_at = require_utc(f"{field}.start_at", row.start_at)
    end_at = require_utc(f"{field}.end_at", row.end_at)
    if end_at <= start_at:
        raise InvalidValue(
            f"{field}.end_at", row.end_at.isoformat(), f"must be after start_at {row.start_at}"
        )
    if start_at < received_at - MAX_AGE:
        raise InvalidValue(
            f"{field}.start_at", row.start_at.isoformat(), "must not be older than 30 days"
        )
    if end_at > received_at + MAX_AHEAD:
        raise InvalidValue(
            f"{field}.end_at",
            row.end_at.isoformat(),
            f"must not be more than a day ahead of {received_at.isoformat()}",
        )
    if end_at - start_at > MAX_LENGTH:
        bound = f"must not be more than ten minutes after start_at {row.start_at}"
        raise InvalidValue(f"{field}.end_at", row.end_at.isoformat(), bound)


def _check_energies(field: str, row: EngineRow) -> None:
    """A part cannot be more than the whole; meters of different makes agree within a tenth."""
    parts = {"idle_energy_j": row.idle_energy_j, "gpu_energy_j": row.gpu_energy_j}
    most_j = row.node_energy_j * 1.1 + 1.0
    for name, value_j in parts.items():
        if value_j > most_j:
            bound = f"must not be above node_energy_j {row.node_energy_j:g} by more than a tenth"
            raise InvalidValue(f"{field}.{name}", value_j, bound)


def _check_text(field: str, value: str) -> None:
    if "\0" in value:
        raise InvalidValue(field, value, "must not contain the character NUL")


# --- staging -------------------------------------------------------------------------------


def _staging_table(target: Table) -> Table:
    columns = [Column(c.name, c.type) for c in target.columns if c.name != "node_id"]
    return Table(
        f"staged_{target.name}",
        MetaData(),
        *columns,
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DELETE ROWS",
    )


def _stage(connection: Connection, staged: Table, rows: Sequence[EngineRow | GpuRow]) -> None:
    """Copy the rows into this session's temporary table, which holds nothing else."""
    connection.execute(CreateTable(staged, if_not_exists=True))
    names = [column.name for column in staged.columns]
    types = [_COPY_TYPES[str(column.type.__visit_name__).upper()] for column in staged.columns]
    values = attrgetter(*names)
    raw = typed("psycopg.Connection[object]", connection.connection.driver_connection)
    with raw.cursor() as cursor:
        cursor.execute(f"TRUNCATE {staged.name}")  # a batch before this one in the transaction
        statement = f"COPY {staged.name} ({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
        with cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(values(row))


# --- the statements ------------------------------------------------------------------------


def _insert_staged(target: Table, staged: Table) -> Insert:
    """Rows of ``staged`` that are new, for node ``:from_node``."""
    names = ["node_id", *(column.name for column in staged.columns)]
    source = select(bindparam("from_node", type_=BigInteger), *staged.columns)
    return insert(target).from_select(names, source).on_conflict_do_nothing()


def _add_to_rollup(rollup: Table, inserted: CTE, unit: str) -> CTE:
    """Add ``inserted`` to the roll-up whose rows are one ``unit`` long."""
    key = [column.name for column in rollup.primary_key]
    start_at = func.date_trunc(unit, inserted.c.start_at).label("start_at")
    keys = [inserted.c.node_id, inserted.c.engine, inserted.c.model, start_at]
    duration_s = cast(extract("epoch", inserted.c.end_at - inserted.c.start_at), Double)
    sums: dict[str, ColumnElement[Any]] = {n: func.sum(inserted.c[n]) for n in ENERGY_COLUMNS}
    sums["duration_s"] = func.sum(duration_s)
    sums["power_limit_j"] = func.sum(inserted.c.power_limit_w * duration_s)
    sums["rows"] = func.count()
    # Of two origins the weaker one holds, and the alphabet happens to sort them so: measured,
    # modelled, simulated. A test keeps it that way.
    greatest = ("energy_origin", "node_energy_origin", "power_draw_max_w")
    maxima = {name: func.max(inserted.c[name]) for name in greatest}
    statement = insert(rollup).from_select(
        [*key, *sums, *maxima],
        select(*keys, *sums.values(), *maxima.values()).group_by(*keys).order_by(*keys),
    )
    added = {name: rollup.c[name] + statement.excluded[name] for name in sums}
    raised = {name: func.greatest(rollup.c[name], statement.excluded[name]) for name in maxima}
    return statement.on_conflict_do_update(index_elements=key, set_={**added, **raised}).cte(
        f"to_{rollup.name}"
    )


def _insert_engine_rows() -> Select[int]:
    inserted = _insert_staged(engine_row, _STAGED_ENGINE).returning(engine_row).cte("inserted")
    return (
        select(func.count())
        .select_from(inserted)
        .add_cte(
            _add_to_rollup(engine_minute, inserted, "minute"),
            _add_to_rollup(engine_hour, inserted, "hour"),
        )
    )


def _insert_gpu_rows() -> Select[int]:
    inserted = _insert_staged(gpu_row, _STAGED_GPU).returning(gpu_row.c.start_at).cte("inserted")
    return select(func.count()).select_from(inserted)


_STAGED_ENGINE = _staging_table(engine_row)
_STAGED_GPU = _staging_table(gpu_row)
_INSERT_ENGINE_ROWS = _insert_engine_rows()
_INSERT_GPU_ROWS = _insert_gpu_rows()
