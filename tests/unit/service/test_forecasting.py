from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import text

from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, ValueKind
from pals_grid.forecast.issued import ForecastValue, Learned
from pals_grid.forecast.scoring import Score
from pals_grid.service import forecasting
from pals_grid.service.announcing import find_announced
from pals_grid.service.expected_demand import load_expected_demand
from pals_grid.service.feeds import load_feed, load_series
from pals_grid.service.forecasting import NO_PACKAGE, Subject, forecast_site, issue, refresh
from pals_grid.service.forecasts import (
    WAITING,
    list_states,
    load_feed_forecast,
    load_load_forecast,
)
from pals_grid.service.paging import Page
from pals_grid.service.plans import load_plan
from pals_grid.service.sites import load_site
from pals_grid.store.feeds import FeedRepository
from pals_grid.store.forecasts import Forecaster, ForecastRepository
from pals_grid.store.observations import ObservationRepository
from tests.unit.forecast.learned.made_up import made_up
from tests.unit.service.world import T0, World

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.feed import Feed
    from pals_grid.store.engine import Database

HOUR = timedelta(hours=1)
DAYS = 70
START = T0 - timedelta(days=DAYS)
SHAPE = made_up(DAYS + 10).values


@pytest.fixture
def world(database: Database) -> World:
    made = World(database)
    made.make_site()
    return made


def observed(hour: int, value: float, kind: ValueKind = ValueKind.MEASURED) -> Observation:
    start_at = START + hour * HOUR
    return Observation(start_at, start_at + HOUR, value, "EUR/MWh", kind, T0)


def remember(world: World, feed: Feed, first: int, last: int) -> None:
    found = [observed(hour, float(SHAPE[hour])) for hour in range(first, last)]
    with world.database.begin() as connection:
        ObservationRepository(connection).add(feed.id, found, world.clock.now())


def load_forecaster(site_id: int) -> Forecaster:
    return Forecaster(
        id=0,
        site_id=site_id,
        feed_id=None,
        trained_at=T0,
        unit="tokens/s",
        learned=Learned(
            model=b"",
            widths={},
            rival="day",
            hold_out=[Score(0, 1, 200, 1, 2, 0.8), Score(1, 48, 200, 3, 2, 0.8)],
            step_s=3600,
            history_start_s=0,
        ),
        delay_s=0.0,
        train_s=0.0,
        is_used=True,
        state="used",
    )


def subject(world: World, feed: Feed | None) -> Subject:
    return Subject(load_site(world.context, "oslo"), feed)


def modelled(world: World, feed: Feed) -> list[Observation]:
    window = Interval(world.clock.now(), world.clock.now() + timedelta(hours=60))
    found = load_series(world.context, feed.id, window, None, Page(limit=500)).items
    return [item for item in found if item.kind is ValueKind.MODELLED]


def test_a_model_fills_what_the_provider_leaves_open_and_says_so(world: World) -> None:
    feed = world.make_feed()
    # The provider knows six hours ahead, and has a forecast of its own for the seventh.
    remember(world, feed, 0, DAYS * 24 + 6)
    with world.database.begin() as connection:
        own = observed(DAYS * 24 + 6, 55.0, ValueKind.FORECAST)
        ObservationRepository(connection).add(feed.id, [own], T0)
    assert load_feed_forecast(world.context, feed.id).state == WAITING
    assert refresh(world.context, subject(world, feed))
    assert not refresh(world.context, subject(world, feed))
    assert issue(world.context, subject(world, feed))

    shown = load_feed_forecast(world.context, feed.id)
    assert shown.is_used
    assert shown.state.startswith("used: off by ")
    assert shown.state.endswith("on the 28 days kept back")
    assert (shown.unit, shown.step_s, shown.history_start_at) == ("EUR/MWh", 3600, START)
    assert len(shown.hold_out) == 7
    assert len(shown.values) == 42
    assert all(value.p10 < value.p50 < value.p90 for value in shown.values)
    assert list_states(world.context, "oslo") == {feed.id: shown.state}

    made = modelled(world, feed)
    assert [item.start_at for item in made] == [T0 + (7 + i) * HOUR for i in range(41)]
    assert made[0].value == shown.values[1].p50
    view = load_feed(world.context, feed.id)
    assert view.coverage_24h_ratio == pytest.approx(7 / 24)
    inputs = {item.feed: item.kinds for item in load_plan(world.context, "oslo").inputs}
    assert inputs == {"p": (ValueKind.FORECAST, ValueKind.MEASURED, ValueKind.MODELLED)}


def test_a_model_is_told_what_another_feed_announces_and_says_so(world: World) -> None:
    feed, teller = world.make_feed(), world.make_feed(name="auction")
    days = np.repeat(np.random.default_rng(3).normal(0, 40, DAYS + 2), 24)
    own = [observed(hour, float(SHAPE[hour] + days[hour])) for hour in range(DAYS * 24)]
    with world.database.begin() as connection:
        values = ObservationRepository(connection)
        values.add(feed.id, own, T0)
        for hour, level in enumerate(days):
            start_at = START + hour * HOUR
            known_at = start_at - 24 * HOUR
            price = Observation(
                start_at, start_at + HOUR, float(level), "EUR/MWh", ValueKind.MEASURED, known_at
            )
            values.add(teller.id, [price], T0)
    assert refresh(world.context, subject(world, feed))
    assert issue(world.context, subject(world, feed))
    shown = load_feed_forecast(world.context, feed.id)
    assert shown.state.startswith("used: off by ")
    assert shown.state.endswith("; told the prices of auction")
    told = [value.p50 for value in shown.values]

    with world.database.begin() as connection:
        FeedRepository(connection).remove(teller.id, T0)
    world.clock.advance(3600)
    remember(world, feed, DAYS * 24, DAYS * 24 + 1)
    assert issue(world.context, subject(world, feed))
    alone = [value.p50 for value in load_feed_forecast(world.context, feed.id).values]
    assert len(told) == len(alone) == 48
    assert told[1:] != alone[:-1]


def test_what_is_itself_known_before_its_time_is_told_nothing(world: World) -> None:
    feeds = [world.make_feed(), world.make_feed(name="auction")]
    late = world.make_feed(name="late")
    with world.database.begin() as connection:
        values = ObservationRepository(connection)
        for hour in range(DAYS * 24):
            start_at = START + hour * HOUR
            end_at, known_at = start_at + HOUR, start_at - 24 * HOUR
            price = Observation(start_at, end_at, 1.0, "EUR/MWh", ValueKind.MEASURED, known_at)
            for feed in feeds:
                values.add(feed.id, [price], T0)
            values.add(late.id, [observed(hour, 2.0)], T0)
    site = load_site(world.context, "oslo")
    with world.database.read() as connection:
        found = {
            feed.name: set(find_announced(connection, site, feed, timedelta(days=90), T0))
            for feed in (*feeds, late)
        }
    assert found == {"p": set(), "auction": set(), "late": {"p", "auction"}}


def test_a_model_that_falls_behind_the_rival_is_withdrawn(world: World) -> None:
    feed = world.make_feed()
    remember(world, feed, 0, DAYS * 24)
    mine = subject(world, feed)
    refresh(world.context, mine)
    issue(world.context, mine)
    before = world.clock.now()
    assert len(modelled(world, feed)) == 48
    # What comes is as last week's, to the point: no model does better than the rival.
    with world.database.begin() as connection:
        connection.execute(text("UPDATE forecast_value SET rival = p50 + 1, value = p50 + 1"))
        connection.execute(
            text(
                "INSERT INTO forecast_value SELECT forecaster_id, start_at, end_at,"
                " issued_at - i * interval '1 hour', p10, p50, p90, rival, value"
                " FROM forecast_value, generate_series(1, 3) AS i"
            )
        )
    world.clock.advance(60)
    issue(world.context, mine)
    shown = load_feed_forecast(world.context, feed.id)
    assert not shown.is_used
    assert shown.state.startswith("not used, worse than the naive rival")
    assert shown.state.endswith("on its record")
    assert modelled(world, feed) == []
    # A plan made before can still be explained.
    window = Interval(T0, T0 + 60 * HOUR)
    then = load_series(world.context, feed.id, window, before, Page(limit=500)).items
    assert len([item for item in then if item.kind is ValueKind.MODELLED]) == 48


def test_record_compares_what_was_said_with_what_came(world: World) -> None:
    feed = world.make_feed()
    remember(world, feed, 0, DAYS * 24)
    mine = subject(world, feed)
    refresh(world.context, mine)
    issue(world.context, mine)
    assert load_feed_forecast(world.context, feed.id).record == []
    said = {value.start_at: value for value in load_feed_forecast(world.context, feed.id).values}
    world.clock.advance(6 * 3600)
    remember(world, feed, DAYS * 24, DAYS * 24 + 6)
    issue(world.context, mine)
    record = load_feed_forecast(world.context, feed.id).record
    # Of the first forecast the leads of 1, 3 and 6 h are kept, and have come.
    assert [(score.up_to_h, score.count) for score in record] == [(1, 1), (3, 1), (6, 1)]
    error = abs(said[T0].p50 - SHAPE[DAYS * 24])
    assert record[0].mae == pytest.approx(error)


def test_too_little_history_is_said(world: World) -> None:
    feed = world.make_feed()
    remember(world, feed, 0, 30 * 24)
    assert forecast_site(world.context, 1) == 0
    state = load_feed_forecast(world.context, feed.id).state
    assert state.startswith("no model yet: history: must be 56 days of final values")
    assert "56 days" in load_load_forecast(world.context, "oslo").state
    assert load_feed_forecast(world.context, feed.id).values == ()


def test_without_lightgbm_it_says_so_and_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "find_spec", lambda _: None)
    feed = world.make_feed()
    assert forecast_site(world.context, 1) == 0
    assert load_feed_forecast(world.context, feed.id).state == NO_PACKAGE


def test_one_that_fails_leaves_the_others_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def failing(_: object, one: Subject, *, may_train: bool) -> bool:
        asked.append(one.name)
        assert may_train
        raise ArithmeticError(one.name)

    monkeypatch.setattr(forecasting, "refresh", failing)
    world.make_feed()
    assert forecast_site(world.context, 1) == 0
    assert sorted(asked) == ["load of oslo", "p"]
    assert "forecast of p failed" in caplog.text


def test_plan_expects_what_the_model_of_the_load_says_while_it_is_used(world: World) -> None:
    site = load_site(world.context, "oslo")
    slots = [Interval(T0 + i * HOUR, T0 + (i + 1) * HOUR) for i in range(3)]
    held = load_forecaster(site.id)
    begin_s = int(T0.timestamp())
    values = [
        ForecastValue(begin_s + 3600 * i, begin_s + 3600 * (i + 1), 1.0, 70.0 - 80 * i, 99.0, None)
        for i in range(2)
    ]
    values[1] = ForecastValue(begin_s + 3600, begin_s + 7200, 20.0, 60.0, 65.0, -10.0)

    def expected(now: datetime) -> list[float]:
        with world.database.read() as connection:
            found = load_expected_demand(connection, site, slots, now, 33.0)
        highs.append(found.high_tokens_per_s)
        return found.tokens_per_s

    highs: list[list[float | None]] = []
    assert expected(T0) == [33, 33, 33]
    with world.database.begin() as connection:
        repository = ForecastRepository(connection)
        made = repository.store(held)
        repository.add_values(made.id, T0, values)
    assert expected(T0) == [70, 0, 33]
    assert highs == [[None] * 3, [99, 65, None]]
    assert expected(T0 + 4 * HOUR) == [33, 33, 33]
    with world.database.begin() as connection:
        ForecastRepository(connection).set_state(made.id, is_used=False, state="not used")
    assert expected(T0) == [33, 33, 33]


def test_old_forecasts_are_forgotten(world: World) -> None:
    site = load_site(world.context, "oslo")
    held = load_forecaster(site.id)
    begin_s = int(T0.timestamp())
    with world.database.begin() as connection:
        repository = ForecastRepository(connection)
        made = repository.store(held)
        value = ForecastValue(begin_s, begin_s + 3600, 1.0, 2.0, 3.0, None)
        repository.add_values(made.id, T0, [value])
        assert repository.forget(T0) == 0
        assert repository.forget(T0 + HOUR) == 1


def test_leads_count_from_a_forecasts_first_step(world: World) -> None:
    """A price is known until six hours on; of its older forecast the first step stays, too."""
    site = load_site(world.context, "oslo")
    begin_s = int((T0 + 6 * HOUR).timestamp())
    values = [
        ForecastValue(begin_s + 1800 * i, begin_s + 1800 * (i + 1), 1.0, 2.0, 3.0, 4.0)
        for i in range(16)
    ]
    with world.database.begin() as connection:
        repository = ForecastRepository(connection)
        made = repository.store(load_forecaster(site.id))
        for hour in range(3):  # thinned twice: the first one's first step stays
            repository.add_values(made.id, T0 + hour * HOUR, values if hour == 0 else [])
        assert repository.fill(made.id, [(value.start_s, 2.5) for value in values]) == 4
        record = repository.load_record(made.id, T0 - HOUR)
        assert [(score.up_to_h, score.count) for score in record] == [(1, 2), (3, 1), (6, 1)]
        assert repository.load_latest(made.id, T0 + 8 * HOUR) == (begin_s, values[5:12:6])
