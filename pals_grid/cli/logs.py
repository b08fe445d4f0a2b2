"""Logs: to stderr, and to a file that is renewed before it grows large."""

from __future__ import annotations

import logging
import sys
import time
from asyncio import CancelledError
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 10 * 1024 * 1024


def _is_no_cancelled_stream(record: logging.LogRecord) -> bool:
    """Leave out the trace of a stream that the stop cut off: nothing went wrong."""
    return record.exc_info is None or not isinstance(record.exc_info[1], CancelledError)


def open_logs(level: str, path: Path | None = None) -> None:
    """Send this process's logs to stderr and, where given, to ``path``."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=3))
    form = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    form.converter = time.gmtime
    for handler in handlers:
        handler.setFormatter(form)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    # That a job is still at work when it would look again is no news.
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancelled_stream)


def open_audit(path: Path | None) -> None:
    """Send the line of each write to a device to stdout and, where given, to ``path``."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=3))
    audit = logging.getLogger("pals_grid.audit")
    audit.setLevel(logging.INFO)
    audit.propagate = False
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
    audit.handlers[:] = handlers
