"""/healthz: the process answers. /readyz: and so does its database, at the right schema."""

import logging
from typing import Literal

from fastapi import APIRouter, HTTPException

from pals_grid import __version__
from pals_grid.api.base import Model
from pals_grid.api.deps import ContextDep
from pals_grid.store import migrate

router = APIRouter(tags=["health"])
_log = logging.getLogger(__name__)


class Health(Model):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Readiness(Model):
    """The database answers and is at ``revision``."""

    status: Literal["ready"]
    revision: str


@router.get("/healthz")
def healthz() -> Health:
    """Whether the process answers."""
    return Health(status="ok", version=__version__)


@router.get("/readyz")
def readyz(context: ContextDep) -> Readiness:
    """Whether the service can work."""
    try:
        context.database.ping()
        current = migrate.current_revision(context.database.url)
    except Exception as error:
        _log.warning("not ready: %s", error)
        raise HTTPException(503, "database: must answer; the service's log says more") from error
    head = migrate.head_revision()
    if current is None or current < head:
        detail = (
            f"database revision: must be at least {head}, got {current}; run pals-grid db upgrade"
        )
        raise HTTPException(503, detail)
    return Readiness(status="ready", revision=current)
