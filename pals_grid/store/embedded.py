"""An embedded PostgreSQL: a supervised child that dies with its parent and loses nothing.

Fast shutdown (SIGINT) is asked for by the kernel the moment the parent dies (Linux), or by a
watchdog that sees its pipe close. Write-ahead log and fsync stay on: a committed row survives
a kill -9 of everything.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import psycopg

from pals_grid.core.errors import ConfigurationError
from pals_grid.store import watchdog
from pals_grid.store.binaries import find_binaries, pick_server_user
from pals_grid.store.cluster import (
    SUPERUSER,
    create_cluster,
    lock_cluster,
    place_cluster,
    settle_previous_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from pals_grid.store.cluster import ClusterDirs

_log = logging.getLogger(__name__)

DATABASE_NAME = "pals_grid"
PORT = 5432  # names the socket's file only: nothing listens on the network
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
WATCH_S = 0.5
_PR_SET_PDEATHSIG = 1
# Held until stopped: collecting one as garbage would close its pipe and its lock.
_started: set[EmbeddedPostgres] = set()


class EmbeddedPostgres:
    """``with EmbeddedPostgres(folder) as url:``; one at a time on one folder.

    ``use_watchdog`` forces the pipe where the kernel's signal would do.
    """

    def __init__(self, data_dir: Path, *, use_watchdog: bool = False) -> None:
        self._data_dir = data_dir
        self._use_watchdog = use_watchdog or sys.platform != "linux"
        self._server: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> str:
        """Make the database if need be, start the server, return its URL.

        Raises:
            ConfigurationError: the folder is in use or unusable, or no server could be started;
                the message quotes the server's log.
        """
        self._stopping.clear()
        user = pick_server_user()
        dirs = place_cluster(self._data_dir, user)
        self._lock = lock_cluster(dirs)
        _started.add(self)
        try:
            bin_dir = find_binaries(user, dirs.version)
            settle_previous_server(dirs)
            if dirs.version is None:
                create_cluster(dirs, bin_dir, _environment())
            self._server = self._spawn(dirs, bin_dir)
            self._await_server(dirs)
            _ensure_database(dirs)
        except BaseException:
            self.stop()
            raise
        self._watcher = threading.Thread(
            target=self._keep_running, args=(dirs, bin_dir), name="postgres", daemon=True
        )
        self._watcher.start()
        return _url(dirs, DATABASE_NAME)

    def stop(self) -> None:
        """Fast shutdown; bounded, safe to call twice."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        server, self._server = self._server, None
        if server is not None and server.poll() is None:
            if server.stdin is not None:
                server.stdin.close()
                server.wait(watchdog.STOP_TIMEOUT_S * 3 + 1)
            else:
                watchdog.stop_server(server, STOP_TIMEOUT_S)
        _started.discard(self)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    @property
    def is_running(self) -> bool:
        """Whether the server process lives."""
        return self._server is not None and self._server.poll() is None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _keep_running(self, dirs: ClusterDirs, bin_dir: Path) -> None:
        """Start the server again when it died by itself: killed, or out of memory."""
        while not self._stopping.wait(WATCH_S):
            if self.is_running:
                continue
            _log.error("embedded Postgres in %s died; starting it again", dirs.root)
            try:
                settle_previous_server(dirs)
                self._server = self._spawn(dirs, bin_dir)
                self._await_server(dirs)
            except (ConfigurationError, OSError) as error:
                _log.error("embedded Postgres does not start: %s", error)

    def _spawn(self, dirs: ClusterDirs, bin_dir: Path) -> subprocess.Popen[bytes]:
        command = _server_command(dirs, bin_dir)
        user = dirs.user
        if dirs.log.exists():
            dirs.log.replace(dirs.log.with_suffix(".log.1"))
        with dirs.log.open("ab") as log:
            # The kernel's signal would come when the *thread* that starts the child ends.
            in_main = threading.current_thread() is threading.main_thread()
            if self._use_watchdog or not in_main:
                ids = (user.uid, user.gid) if user else (-1, -1)
                return subprocess.Popen(  # noqa: S603  # our own commands
                    [sys.executable, "-I", watchdog.__file__, *map(str, ids), *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=_environment(),
                    start_new_session=True,
                )
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,  # Ctrl-C at the terminal is the parent's business
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  # one system call, no locks taken
            )

    def _await_server(self, dirs: ClusterDirs) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._stopping.is_set():
            try:
                psycopg.connect(_url(dirs, "postgres"), connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if not self.is_running or time.monotonic() > deadline:
                    words = dirs.log.read_text(errors="replace").strip()[-800:]
                    raise ConfigurationError(
                        f"embedded Postgres in {dirs.root} did not start: {words or error}"
                    ) from error
                time.sleep(0.01)
            else:
                return


def _server_command(dirs: ClusterDirs, bin_dir: Path) -> list[str]:
    settings = {
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "jit": "off",  # compiling costs more than our short queries gain
    }
    command = [
        *(str(bin_dir / "postgres"), "-D", str(dirs.data), "-k", str(dirs.socket)),
        *("-h", "", "-p", str(PORT)),
    ]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return command


def _ensure_database(dirs: ClusterDirs) -> None:
    with psycopg.connect(_url(dirs, "postgres"), autocommit=True) as connection:
        known = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE_NAME,)
        ).fetchone()
        if known is None:
            connection.execute(f"CREATE DATABASE {DATABASE_NAME}")
            _log.info("made database %s in %s", DATABASE_NAME, dirs.root)


def _url(dirs: ClusterDirs, database: str) -> str:
    host = quote(str(dirs.socket), safe="")
    return f"postgresql://{SUPERUSER}@/{database}?host={host}&port={PORT}"


def _environment() -> dict[str, str]:
    """Ours without PG* variables, which would redirect the server, and with English messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def _die_with_parent() -> Callable[[], None]:
    """Make what runs in the child before exec, after its privileges are dropped."""
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def ask_for_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_for_signal
