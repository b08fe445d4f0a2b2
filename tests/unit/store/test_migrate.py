from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from pals_grid.core.errors import ConfigurationError
from pals_grid.store import migrate
from pals_grid.store.engine import Database
from pals_grid.store.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Callable

CATALOGUE = {
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND a.attnum > 0 AND NOT c.relispartition AND c.relname <> 'alembic_version'
        ORDER BY c.relname, a.attname""",
    "constraints": """
        SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition
          AND c.relname <> 'alembic_version' ORDER BY c.relname, k.conname""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY indexname""",
    "storage": """
        SELECT c.relname, c.relpersistence, c.relkind, pg_get_partkeydef(c.oid)
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT c.relispartition AND c.relname <> 'alembic_version' ORDER BY c.relname""",
}


def test_alembic_finds_no_difference_to_the_tables(database: Database) -> None:
    with database.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_migrated_catalogue_is_the_one_that_the_tables_make(
    database: Database, make_blank_database: Callable[[], str]
) -> None:
    made = Database(make_blank_database(), pool_size=1)
    with made.begin() as connection:
        metadata.create_all(connection)
        expected = {k: connection.execute(text(q)).all() for k, q in CATALOGUE.items()}
    made.dispose()
    with database.read() as connection:
        found = {k: connection.execute(text(q)).all() for k, q in CATALOGUE.items()}
    assert found == expected
    assert len(found["storage"]) == len(metadata.tables)


def test_there_is_no_default_partition(database: Database) -> None:
    with database.read() as connection:
        count = connection.execute(text("SELECT count(*) FROM pg_inherits")).scalar_one()
    assert count == 0


def test_head_read_from_file_names_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", f"{migrate.MIGRATIONS}:.")
    script = ScriptDirectory.from_config(config)
    assert migrate.head_revision() == script.get_current_head()


def test_upgrade_reaches_the_head_and_does_nothing_after(
    make_blank_database: Callable[[], str],
) -> None:
    url = make_blank_database()
    assert migrate.current_revision(url) is None
    migrate.upgrade(url)
    assert migrate.current_revision(url) == migrate.head_revision()
    migrate.upgrade(url)
    assert migrate.current_revision(url) == migrate.head_revision()


def test_services_that_start_together_migrate_once(make_blank_database: Callable[[], str]) -> None:
    url = make_blank_database()
    start = f"from pals_grid.store.migrate import upgrade; upgrade({url!r})"
    services = [
        subprocess.Popen([sys.executable, "-c", start], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [service.communicate(timeout=300)[1] for service in services] == ["", "", ""]
    assert [service.returncode for service in services] == [0, 0, 0]
    assert migrate.current_revision(url) == migrate.head_revision()


def test_threads_of_one_process_may_migrate_several_databases(
    make_blank_database: Callable[[], str],
) -> None:
    urls = [make_blank_database() for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(migrate.upgrade, urls))
    assert {migrate.current_revision(url) for url in urls} == {migrate.head_revision()}


def test_database_of_a_newer_release_is_left_alone(make_blank_database: Callable[[], str]) -> None:
    url = make_blank_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE alembic_version AS SELECT '9999' AS version_num")
    migrate.upgrade(url)
    assert migrate.current_revision(url) == "9999"


def test_database_that_does_not_answer_is_named() -> None:
    with pytest.raises(ConfigurationError, match="does not answer"):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/nothing")
