"""Runs a server as its child and stops it when the pipe on standard input closes.

For systems without a parent-death signal: the pipe closes when its holder dies, however it
dies. A program of its own (``python watchdog.py UID GID COMMAND...``; -1 keeps the user), of the
standard library alone, so that it starts at once.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

POLL_S = 0.2
STOP_TIMEOUT_S = 20.0


def main(arguments: list[str]) -> int:
    """Run the command until it ends or standard input does; its exit status."""
    uid, gid = int(arguments[0]), int(arguments[1])
    server = subprocess.Popen(  # noqa: S603  # the supervisor's own command
        arguments[2:],
        stdin=subprocess.DEVNULL,
        user=None if uid < 0 else uid,
        group=None if uid < 0 else gid,
        extra_groups=None if uid < 0 else [],
    )
    # Only now: what is ignored before would stay ignored in the server.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while server.poll() is None:
        ready, _, _ = select.select([sys.stdin], [], [], POLL_S)
        if ready and not os.read(sys.stdin.fileno(), 1):
            return stop_server(server, STOP_TIMEOUT_S)
    return server.returncode


def stop_server(server: subprocess.Popen[bytes], timeout_s: float) -> int:
    """Fast shutdown (SIGINT), then immediate (SIGQUIT), then SIGKILL; the exit status."""
    for ask in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        server.send_signal(ask)
        try:
            return server.wait(timeout_s)
        except subprocess.TimeoutExpired:
            continue
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
