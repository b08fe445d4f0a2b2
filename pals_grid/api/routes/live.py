"""/sites/{slug}/grants and /sites/{slug}/meter: live grants, and what the site's own meter says."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from pals_grid.api.base import Instant, Model
from pals_grid.api.deps import ContextDep
from pals_grid.core.fleet import Origin
from pals_grid.core.live import SiteReading
from pals_grid.core.site import LiveGrants
from pals_grid.service import site_meter
from pals_grid.service.live.views import LiveView, load_live

router = APIRouter(prefix="/sites", tags=["live grants"])


class OtherLoadOut(Model):
    """What is kept free for what the site draws beside its nodes, and how it is known."""

    power_w: float
    origin: Origin
    source: str
    meter_age_s: float | None


class RoundRecordOut(Model):
    """One round; power at node boundary, but ``budget_w`` and ``other_load`` at the site's."""

    mode: LiveGrants
    budget_w: float
    other_load: OtherLoadOut
    allowed_w: float
    draw_w: float
    lent_w: float
    excess_w: float
    excess_for_s: float | None
    nodes: int
    heard: int
    reached: int
    cuts: int
    raises: int
    liars: tuple[int, ...]
    quiet_for_s: float
    plan_version: int
    behind: int
    draw_origins: tuple[Origin, ...]


class StoredRoundOut(Model):
    """The last round of a site, and how many there were since its first."""

    at: Instant
    age_s: float
    epoch: int
    holder: str
    record: RoundRecordOut
    rounds: int
    cuts: int
    raises: int


class LiveOut(Model):
    """How a site's live grants do."""

    mode: LiveGrants
    running: bool
    last: StoredRoundOut | None


class ReadingIn(Model):
    """Power at the site's grid connection at an instant."""

    at: Instant
    power_w: float
    source: Annotated[str, Field(min_length=1, max_length=200)]


class ReadingsIn(Model):
    """Readings in any order; one of an instant that is known already changes nothing."""

    readings: Annotated[list[ReadingIn], Field(min_length=1, max_length=1000)]


class ReadingsTaken(Model):
    """How many were new."""

    inserted: int


class LatestReading(Model):
    """The newest reading; null where no meter ever said anything."""

    latest: ReadingIn | None


@router.get("/{slug}/grants", response_model=LiveOut)
def load_grants(context: ContextDep, slug: str) -> LiveView:
    """A site's live grants: whether they are on, and the last round."""
    return load_live(context, slug)


@router.post("/{slug}/meter")
def record_readings(context: ContextDep, slug: str, body: ReadingsIn) -> ReadingsTaken:
    """Take what the site's own meter says; nothing is stored where one reading is refused."""
    readings = [SiteReading(one.at, one.power_w, one.source) for one in body.readings]
    return ReadingsTaken(inserted=site_meter.record_readings(context, slug, readings))


@router.get("/{slug}/meter")
def load_reading(context: ContextDep, slug: str) -> LatestReading:
    """The newest reading of the site's own meter."""
    latest = site_meter.load_latest_reading(context, slug)
    return LatestReading(latest=None if latest is None else ReadingIn.model_validate(latest))
