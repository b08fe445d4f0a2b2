from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from pals_grid.core.errors import ConfigurationError
from pals_grid.store import binaries, cluster
from pals_grid.store.binaries import ServerUser, find_binaries, pick_server_user
from pals_grid.store.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHILD = """
import sys, time
from pathlib import Path
import psycopg
from pals_grid.store.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), use_watchdog=sys.argv[2] == "watchdog")
url = server.start()
with psycopg.connect(url, autocommit=True) as connection:
    connection.execute("CREATE TABLE kept (n int)")
    n = 0
    while True:
        connection.execute("INSERT INTO kept VALUES (%s)", (n,))
        print(n, flush=True)
        n += 1
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # pytest's own folder is closed to the unprivileged user that serves root.
    made = Path(tempfile.mkdtemp(prefix="pals-grid-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_a_committed_row_outlives_a_clean_stop(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    url = server.start()
    assert server.is_running
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    server.stop()
    with EmbeddedPostgres(folder) as again, psycopg.connect(again) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (42,)


def test_settings(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url, psycopg.connect(url) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("fsync", "listen_addresses", "server_encoding", "timezone")
        }
        assert connection.info.dbname == "pals_grid"
        socket_dir = Path(connection.info.host)
    assert shown == {
        "fsync": ("on",),
        "listen_addresses": ("",),
        "server_encoding": ("UTF8",),
        "timezone": ("UTC",),
    }
    assert socket_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("parent_death", ["signal", "watchdog"])
def test_kill_of_the_parent_leaves_no_server_and_loses_no_row(
    folder: Path, parent_death: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), parent_death], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = [int(next(child.stdout)) for _ in range(500)]
        pid = _server_pid(folder)
        assert _is_alive(pid)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().splitlines(keepends=False)]
    _await(lambda: not _is_alive(pid))
    with EmbeddedPostgres(folder) as url, psycopg.connect(url) as connection:
        kept = {row[0] for row in connection.execute("SELECT n FROM kept")}
    assert kept >= set(acknowledged)
    assert len(kept) <= len(acknowledged) + 1  # one may have been committed but not printed


def test_kill_of_the_server_itself_loses_no_row(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        pid = _server_pid(folder)
        os.kill(pid, signal.SIGKILL)
        _await(lambda: not _is_alive(pid))  # its supervisor may have started another by now
    server.stop()
    with EmbeddedPostgres(folder) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_watchdog_stops_the_server_on_request(folder: Path) -> None:
    server = EmbeddedPostgres(folder, use_watchdog=True)
    url = server.start()
    pid = _server_pid(folder)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.stop()
    assert not _is_alive(pid)
    assert not (folder / "cluster" / "postmaster.pid").exists()


@pytest.mark.parametrize("use_watchdog", [False, True])
def test_server_runs_on_when_nothing_refers_to_its_supervisor(
    folder: Path, *, use_watchdog: bool
) -> None:
    server = EmbeddedPostgres(folder, use_watchdog=use_watchdog)
    supervisor = weakref.ref(server)
    url = server.start()
    del server
    gc.collect()
    left = supervisor()
    assert left is not None
    assert left.is_running
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    left.stop()


def test_second_supervisor_is_refused(folder: Path) -> None:
    second = EmbeddedPostgres(folder)
    with (
        EmbeddedPostgres(folder),
        pytest.raises(ConfigurationError, match=rf"in use by process {os.getpid()}"),
    ):
        second.start()


def test_server_without_supervisor_is_stopped_first(folder: Path) -> None:
    orphan = EmbeddedPostgres(folder)
    orphan.start()
    assert orphan._lock is not None
    orphan._lock.close()  # as if its supervisor had died and the server had not heard
    orphan._stopping.set()
    assert orphan._watcher is not None
    orphan._watcher.join()
    pid = _server_pid(folder)
    with EmbeddedPostgres(folder) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert _server_pid(folder) != pid
    orphan.stop()


def test_a_server_that_dies_by_itself_is_started_again(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        os.kill(_server_pid(folder), signal.SIGKILL)
        deadline = time.monotonic() + 180
        found = None
        while found is None and time.monotonic() < deadline:
            try:
                with psycopg.connect(url) as connection:
                    found = connection.execute("SELECT n FROM kept").fetchone()
            except psycopg.Error:
                time.sleep(0.1)
        assert found == (7,)
    assert not (folder / "cluster" / "postmaster.pid").exists()


def test_pid_file_that_names_another_program_is_dropped(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        left = (folder / "cluster" / "postmaster.pid").read_text().splitlines(keepends=True)
    pid_file = folder / "cluster" / "postmaster.pid"
    pid_file.write_text("".join([f"{os.getpid()}\n", *left[1:]]))
    with EmbeddedPostgres(folder) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_torn_first_start_is_repeated(folder: Path) -> None:
    torn = folder / "initdb-torn"
    torn.mkdir()
    (torn / "PG_VERSION").write_text("18")
    with EmbeddedPostgres(folder) as url:
        assert url
    assert not torn.exists()


def test_long_paths_get_a_short_socket(folder: Path) -> None:
    deep = folder / ("d" * 90)
    with EmbeddedPostgres(deep) as url, psycopg.connect(url) as connection:
        socket_dir = Path(connection.info.host)
    assert socket_dir.parent == Path("/tmp")
    assert (deep / "cluster").is_dir()
    shutil.rmtree(socket_dir)


def test_log_of_a_server_that_does_not_start_is_quoted(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        pass
    (folder / "cluster" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(ConfigurationError, match="no_such_setting"):
        EmbeddedPostgres(folder).start()


def test_data_of_an_unknown_version_are_refused(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        pass
    (folder / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match="version 9"):
        EmbeddedPostgres(folder).start()


def test_path_under_a_file_is_refused(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be made"):
        EmbeddedPostgres(folder / "file" / "data").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a user to drop to")
def test_root_keeps_data_elsewhere_when_the_folder_is_shut(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut, open_to_all = folder / "shut", folder / "system"
    shut.mkdir(mode=0o700)
    monkeypatch.setattr(cluster, "SYSTEM_DIR", open_to_all)
    with EmbeddedPostgres(shut / "data") as url:
        assert str(open_to_all.name) in url
    assert (open_to_all / binaries.short_hash(shut / "data") / "cluster").is_dir()
    assert not (shut / "data").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a user to drop to")
def test_root_copies_programs_that_its_user_cannot_reach(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut, system = folder / "shut", folder / "system"
    installation = shut / "pginstall"
    (installation / "bin").mkdir(parents=True)
    (installation / "share").mkdir()
    for name in ("postgres", "initdb"):
        program = installation / "bin" / name
        program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.6'\n")
        program.chmod(0o700)
    shut.chmod(0o700)
    monkeypatch.setattr(binaries, "SYSTEM_DIR", system)
    monkeypatch.setattr(binaries, "_candidates", lambda: iter([installation / "bin"]))
    user = pick_server_user()
    assert user is not None
    found = find_binaries(user, "18")
    assert found.parent.parent == system
    assert user.may_enter(found)
    assert (found / "initdb").stat().st_mode & 0o555 == 0o555
    assert find_binaries(user, "18") == found


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_candidates", lambda: iter([]))
    with pytest.raises(ConfigurationError, match=r"any version.*PALS_GRID_DATABASE_URL"):
        find_binaries(None, None)


def test_traversal_looks_at_owner_group_and_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o710)
    found = tmp_path.stat()
    owner = ServerUser("owner", found.st_uid, found.st_gid)
    in_group = ServerUser("group", found.st_uid + 1, found.st_gid)
    other = ServerUser("other", found.st_uid + 1, found.st_gid + 1)
    may = [binaries._allows(found, user, 0o100) for user in (owner, in_group, other)]
    assert may == [True, True, False]


def _server_pid(folder: Path) -> int:
    return int((folder / "cluster" / "postmaster.pid").read_text().splitlines()[0])


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:  # it ended while its file was open
        return False
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        os.kill(pid, 0)
        return True
    return state != "Z"


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 180 s"
        time.sleep(0.01)
