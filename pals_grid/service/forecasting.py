"""The job's side of forecasts: learn, forecast on, compare with what came, use or withdraw.

LightGBM and numpy are imported inside, by the job alone: the service's requests go without.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError, InvalidValue
from pals_grid.core.intervals import Interval, floor_to
from pals_grid.core.series import Observation, ValueKind
from pals_grid.forecast.issued import History
from pals_grid.service.announcing import find_announced, load_announced
from pals_grid.service.plans import replan
from pals_grid.service.verdicts import load_verdict
from pals_grid.store.engine import notify
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.forecasts import Forecaster, ForecastRepository
from pals_grid.store.observations import ObservationRepository
from pals_grid.store.sites import SiteRepository
from pals_grid.store.telemetry import TelemetryRepository

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from pals_grid.core.feed import Feed
    from pals_grid.core.site import Site
    from pals_grid.forecast.issued import Announced, ForecastValue, Learned
    from pals_grid.forecast.scoring import Verdict
    from pals_grid.service.context import Context

AHEAD = timedelta(hours=48)
RETRAIN_AFTER = timedelta(days=7)
RETRY_AFTER = timedelta(days=1)
KEPT = timedelta(days=35)
FEED_HISTORY = timedelta(days=1461)
TELLER_HISTORY = timedelta(days=70)
LOAD_HISTORY = timedelta(days=180)
LOAD_STEP_S = 1800.0
LOAD_UNIT = "tokens/s"
TRAININGS_A_RUN = 4
NO_PACKAGE = "not available: this service runs without LightGBM (install pals-grid[train])"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is forecast: a feed's values, or, without a feed, the site's load."""

    site: Site
    feed: Feed | None

    @property
    def feed_id(self) -> int | None:
        """None for the load."""
        return None if self.feed is None else self.feed.id

    @property
    def name(self) -> str:
        """For logs and triggers."""
        return f"load of {self.site.policy.slug}" if self.feed is None else self.feed.name


def is_available() -> bool:
    """Whether this process could train and forecast."""
    return find_spec("lightgbm") is not None and find_spec("numpy") is not None


def forecast_site(context: Context, site_id: int) -> int:
    """Bring a site's forecasters up to date; at most 4 are trained. Returns how many said.

    One that fails leaves the others alone: the error is logged and kept as its state.
    """
    if not is_available():
        _log.warning("forecasts: %s", NO_PACKAGE)
        return 0
    trained = issued = 0
    for subject in _subjects(context, site_id):
        try:
            trained += refresh(context, subject, may_train=trained < TRAININGS_A_RUN)
            issued += issue(context, subject)
        except ConfigurationError as error:
            _log.warning("forecasts: %s", error)
            return issued
        except Exception:  # noqa: BLE001 - one that fails leaves the others alone
            _log.exception("forecast of %s failed", subject.name)
    return issued


def forget_forecasts(context: Context) -> None:
    """Drop what was said, and judged, too long ago."""
    with context.database.begin() as connection:
        ForecastRepository(connection).forget(context.clock.now() - KEPT)


def refresh(context: Context, subject: Subject, *, may_train: bool = True) -> bool:
    """Train anew when the last training was 7 days ago (1 day, where it failed).

    Returns whether it trained. With too little history the state says so, and there is no model.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
    """
    from pals_grid.forecast.learned.live import learn  # noqa: PLC0415
    from pals_grid.forecast.learned.mixing import LOAD_RIVALS, RIVALS  # noqa: PLC0415

    now = context.clock.now()
    with context.database.read() as connection:
        held = ForecastRepository(connection).load(subject.site.id, subject.feed_id)
        if not may_train or (held is not None and not _is_due(held, now)):
            return False
        history, unit = _load_history(connection, subject, now)
        announced: Mapping[str, Announced] = {}
        if subject.feed is not None:
            announced = find_announced(connection, subject.site, subject.feed, FEED_HISTORY, now)
    delay_s = max(0.0, now.timestamp() - max(history.ends_s, default=now.timestamp()))
    started_s = time.process_time()
    rivals = LOAD_RIVALS if subject.feed is None else RIVALS
    learned: Learned | None = None
    try:
        learned = learn(
            history,
            zone=subject.site.policy.timezone,
            delay_s=delay_s,
            rivals=rivals,
            announced=announced,
        )
        state = ""
    except InvalidValue as error:
        state = f"no model yet: {error}"
    made = Forecaster(
        id=0,
        site_id=subject.site.id,
        feed_id=subject.feed_id,
        trained_at=now,
        unit=unit,
        learned=learned,
        delay_s=delay_s,
        train_s=time.process_time() - started_s,
        is_used=held is not None and held.is_used,
        state=state,
    )
    with context.database.begin() as connection:
        repository = ForecastRepository(connection)
        stored = repository.store(made)
        _apply_verdict(connection, subject, stored, now)
    return True


def issue(context: Context, subject: Subject) -> bool:
    """Forecast 48 h on, put what came beside what was said, use it where it beats the rival.

    Returns whether there was a model to ask. The values are those of a feed's own kind
    ``modelled``, only where its provider has none: the model's in the ranges of leads in which it
    is better, the rival's in the others, and none at all where it is better in no range.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
    """
    from pals_grid.forecast.learned.live import forecast, step_means  # noqa: PLC0415

    now = context.clock.now()
    with context.database.read() as connection:
        held = ForecastRepository(connection).load(subject.site.id, subject.feed_id)
        if held is None or held.learned is None:
            return False
        history, _ = _load_history(connection, subject, now)
        announced = _load_teller(connection, subject, held.learned.told_by, now)
    if not history.values:
        return False
    step_s = held.learned.step_s
    origin = floor_to(now, timedelta(seconds=step_s))
    found = forecast(
        held.learned,
        history,
        zone=subject.site.policy.timezone,
        origin_s=origin.timestamp(),
        ahead_s=AHEAD.total_seconds(),
        announced=announced,
    )
    since_s = (now - KEPT).timestamp()
    came = [pair for pair in step_means(history, step_s) if pair[0] >= since_s]
    with context.database.begin() as connection:
        SiteRepository(connection).lock(subject.site.id)
        repository = ForecastRepository(connection)
        repository.fill(held.id, came)
        verdict = _apply_verdict(connection, subject, held, now)
        repository.add_values(held.id, origin, found)
        stored = 0
        if subject.feed is not None and verdict.is_used:
            stored = _store_modelled(connection, subject.feed, held.unit, found, verdict, now)
            notify(connection, "feed", subject.feed.id)
    if stored:
        trigger = f"forecast of {subject.name}: {stored} modelled values"
        replan(context, subject.site.id, trigger, only_if_changed=True)
    return True


def _subjects(context: Context, site_id: int) -> list[Subject]:
    """A site's feeds in use and its load, those first that wait longest for training."""
    with context.database.read() as connection:
        site = SiteRepository(connection).load_by_id(site_id)
        feeds = FeedRepository(connection).list_all(site_id)
        found = [Subject(site, feed) for feed in (*feeds, None)]
        repository = ForecastRepository(connection)
        held = [repository.load(one.site.id, one.feed_id) for one in found]
    never = datetime.min.replace(tzinfo=UTC)
    waiting = [never if one is None else one.trained_at for one in held]
    return [one for _, one in sorted(zip(waiting, found, strict=True), key=lambda pair: pair[0])]


def _is_due(held: Forecaster, now: datetime) -> bool:
    after = RETRAIN_AFTER if held.learned is not None else RETRY_AFTER
    return now - held.trained_at >= after


def _load_history(connection: Connection, subject: Subject, now: datetime) -> tuple[History, str]:
    """Final values, as recorded up to now, and their unit."""
    if subject.feed is None:
        past = Interval(floor_to(now - LOAD_HISTORY, timedelta(days=1)), now)
        load = TelemetryRepository(connection)
        points = load.load_demand_history(subject.site.id, past, LOAD_STEP_S)
        whole = [p for p in points if p[0].timestamp() + LOAD_STEP_S <= now.timestamp()]
        starts = [at.timestamp() for at, _ in whole]
        ends = [start_s + LOAD_STEP_S for start_s in starts]
        return History(starts, ends, [rate for _, rate in whole]), LOAD_UNIT
    span = Interval(now - FEED_HISTORY, now + AHEAD)
    found = ObservationRepository(connection).load_measured(subject.feed.id, span, now)
    return History(found.starts_s, found.ends_s, found.values), found.unit


def _load_teller(
    connection: Connection, subject: Subject, name: str, now: datetime
) -> Announced | None:
    """What the feed announces that the model was told at its training; None where it is gone."""
    feeds = FeedRepository(connection).list_all(subject.site.id) if name else []
    teller = next((feed for feed in feeds if feed.name == name), None)
    if teller is None:
        return None
    return load_announced(connection, subject.site, teller, TELLER_HISTORY, now)


def _apply_verdict(
    connection: Connection, subject: Subject, held: Forecaster, now: datetime
) -> Verdict:
    repository = ForecastRepository(connection)
    verdict = load_verdict(connection, held, now)
    if held.is_used and not verdict.is_used and subject.feed is not None:
        repository.withdraw(subject.feed.id, now)
        # The days kept may rest on what is withdrawn.
        ObservationRepository(connection).forget_days(
            subject.feed.id, Interval(now - FEED_HISTORY, now + KEPT)
        )
    repository.set_state(held.id, is_used=verdict.is_used, state=verdict.reason)
    return verdict


def _store_modelled(
    connection: Connection,
    feed: Feed,
    unit: str,
    found: Sequence[ForecastValue],
    verdict: Verdict,
    now: datetime,
) -> int:
    """Store what stands for the steps that the provider has no value of its own for."""
    if not found:
        return 0
    values = ObservationRepository(connection)
    span = Interval(_instant(found[0].start_s), _instant(found[-1].end_s))
    known = values.load_known([feed.id], span, now)[feed.id]
    own = [item.interval for item in known if item.kind is not ValueKind.MODELLED]
    modelled = []
    for value in found:
        step = Interval(_instant(value.start_s), _instant(value.end_s))
        taken = value.taken(verdict, found[0].start_s)
        if taken is not None and not any(step.overlap_s(one) >= step.duration_s for one in own):
            modelled.append(
                Observation(step.start_at, step.end_at, taken, unit, ValueKind.MODELLED, now)
            )
    return values.add(feed.id, modelled, now)


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
