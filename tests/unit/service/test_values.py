from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import Conflict, InvalidValue, NotFound
from pals_grid.core.intervals import Interval
from pals_grid.core.series import Observation, ValueKind
from pals_grid.service.values import load_values, record_observations
from pals_grid.store.observation_days import ObservationDayRepository
from pals_grid.store.observations import ObservationRepository
from tests.unit.service.world import T0, half_hours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.unit.service.world import World

NIGHT = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def record(world: World, feed_id: int, found: Sequence[Observation]) -> None:
    with world.database.begin() as connection:
        record_observations(connection, feed_id, found, world.clock.now())


def test_a_grid_of_half_hours_with_its_gaps(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    record(world, feed.id, half_hours((50.0, 81.2)))
    found = load_values(world.context, feed.id, Interval(T0, T0 + timedelta(minutes=80)))
    assert found.values == [50.0, 50.0, 81.2, 81.2, None, None]
    assert (found.unit, found.step_s, found.feed) == ("EUR/MWh", 900, feed)
    assert found.interval == Interval(T0, T0 + timedelta(minutes=90))
    hourly = load_values(world.context, feed.id, Interval(T0, T0 + timedelta(hours=2)), 3600)
    assert hourly.values == [pytest.approx(65.6), None]
    finer = load_values(world.context, feed.id, Interval(T0, T0 + timedelta(hours=1)), 600)
    assert finer.values == [50.0] * 3 + [81.2] * 3


def test_nothing_at_all_has_no_unit(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    found = load_values(world.context, feed.id, Interval(NIGHT, NIGHT + DAY))
    assert (found.unit, found.values) == (None, [None] * 96)


def some_values(random: Random) -> list[Observation]:
    """Values of one kind and length apart from each other, somewhere in three days."""
    minutes = random.choice([5, 15, 25, 60, 360])
    kind = random.choice(list(ValueKind))
    start_at = NIGHT + timedelta(minutes=random.randrange(0, 3 * 1440, 5))
    return [
        Observation(
            start_at + timedelta(minutes=minutes * i),
            start_at + timedelta(minutes=minutes * (i + 1)),
            random.uniform(-100, 400),
            "EUR/MWh",
            kind,
            T0 + timedelta(seconds=random.randrange(1000)),
        )
        for i in random.sample(range(60), 40)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_days_kept_say_what_the_observations_say(world: World, seed: int) -> None:
    random = Random(seed)
    world.make_site()
    feed = world.make_feed()
    for _ in range(4):
        world.clock.advance(60)
        record(world, feed.id, some_values(random))
        start_at = NIGHT + timedelta(minutes=random.randrange(0, 5000, 7))
        for step_s in (900, 2700, 3600, 86_400):
            interval = Interval(start_at, start_at + timedelta(hours=random.randrange(1, 90)))
            kept = load_values(world.context, feed.id, interval, step_s)
            made = load_values(world.context, feed.id, interval, step_s, world.clock.now())
            assert kept.interval == made.interval
            assert kept.values == pytest.approx(made.values, nan_ok=False)


def test_days_are_kept_when_values_come_and_forgotten_when_others_do(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    record(world, feed.id, half_hours((50.0,), NIGHT))
    record(world, feed.id, half_hours((60.0,), NIGHT + DAY))
    with world.database.begin() as connection:
        days = ObservationDayRepository(connection)
        held = days.load(feed.id, NIGHT.date(), (NIGHT + 2 * DAY).date())
        assert [day.means[:3] for day in held] == [[50.0, 50.0, None], [60.0, 60.0, None]]
        assert [day.covered_s for day in held] == [None, None]
    with world.database.begin() as connection:
        # Whoever adds without making the days leaves none that is wrong.
        later = half_hours((55.0,), NIGHT, known_at=T0 + timedelta(seconds=1))
        ObservationRepository(connection).add(feed.id, later, T0 + timedelta(seconds=1))
        held = ObservationDayRepository(connection).load(
            feed.id, NIGHT.date(), (NIGHT + DAY).date()
        )
        assert [day.day for day in held] == [(NIGHT + DAY).date()]
    world.clock.advance(60)
    whole = Interval(NIGHT, NIGHT + timedelta(minutes=15))
    assert load_values(world.context, feed.id, whole).values == [55.0]
    assert load_values(world.context, feed.id, whole, as_of=T0).values == [50.0]


def test_two_units_are_never_in_one_answer(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    record(world, feed.id, half_hours((50.0,), NIGHT))
    record(world, feed.id, half_hours((60.0,), NIGHT + DAY / 2, unit="GBP/MWh"))
    record(world, feed.id, half_hours((60.0,), NIGHT + DAY, unit="GBP/MWh"))
    for as_of in (None, T0):
        with pytest.raises(Conflict, match="values are in EUR/MWh and GBP/MWh"):
            load_values(world.context, feed.id, Interval(NIGHT, NIGHT + 2 * DAY), as_of=as_of)
    found = load_values(world.context, feed.id, Interval(NIGHT + DAY, NIGHT + 2 * DAY))
    assert (found.unit, found.values[:2]) == ("GBP/MWh", [60.0, 60.0])


def test_bounds(world: World) -> None:
    world.make_site()
    feed = world.make_feed()
    year = Interval(NIGHT, NIGHT + timedelta(days=366))
    assert len(load_values(world.context, feed.id, year).values) == 35_136
    for step_s, bound in ((300, "must be at least 791"), (59, "from 60"), (86_401, "to 86400")):
        with pytest.raises(InvalidValue, match=f"step_s: .*{bound}"):
            load_values(world.context, feed.id, year, step_s)
    with pytest.raises(NotFound, match="feed"):
        load_values(world.context, feed.id + 1, year)
