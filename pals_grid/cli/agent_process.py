"""The demo's node agent as a process of its own: started, watched, started again, stopped.

It dies with its parent, even by kill -9, because it watches a pipe whose other end only the
parent holds (``cli.agent``).
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
SOUND_AFTER_S = 60.0
_log = logging.getLogger(__name__)


class AgentProcess:
    """Runs ``command``; the descriptor of the pipe is added as ``--parent-fd``."""

    def __init__(self, command: Sequence[str], *, first_retry_s: float = FIRST_RETRY_S) -> None:
        self._command = list(command)
        self._first_retry_s = first_retry_s
        self._pipe = ExitStack()
        self._read_fd, write_fd = os.pipe()
        self._pipe.callback(os.close, self._read_fd)
        self._pipe.callback(os.close, write_fd)
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name="agent-watch", daemon=True)

    def start(self) -> None:
        """Start the agent and keep it running."""
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id of the agent that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def stop(self, timeout_s: float) -> None:
        """Send SIGTERM, wait until limits are restored and rows delivered; kill what is late."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        process = self._process
        if process is not None and process.poll() is None:
            _log.error("agent %d did not stop in %.1f s and is killed", process.pid, timeout_s)
            process.kill()
            process.wait()
        self._pipe.close()

    def _watch(self) -> None:
        retry_s = self._first_retry_s
        while not self._stopping.is_set():
            began_s = time.monotonic()
            status = self._run()
            if self._stopping.is_set():
                return
            if time.monotonic() - began_s >= SOUND_AFTER_S:
                retry_s = self._first_retry_s
            _log.error("agent ended with status %d; started again in %.0f s", status, retry_s)
            self._stopping.wait(retry_s)
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    def _run(self) -> int:
        command = [*self._command, "--parent-fd", str(self._read_fd)]
        # A session of its own: Ctrl-C in the terminal must reach the service alone.
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, pass_fds=(self._read_fd,), stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._process = process
        if self._stopping.is_set():
            process.terminate()
        return process.wait()
