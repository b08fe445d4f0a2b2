from random import Random

import pytest

from pals_grid.core.errors import FeedDataInvalid, FeedHeldBack, FeedRejected, FeedUnavailable
from pals_grid.feeds.backoff import BackOff

GONE = FeedUnavailable("x")


def waits(failures: int, *, poll_s: float = 86_400.0, error: Exception = GONE) -> list[float]:
    uniform = Random(failures).uniform
    return [BackOff().feed_wait_s(error, failures, poll_s, uniform) for _ in range(200)]


@pytest.mark.parametrize(
    ("failures", "low_s", "high_s"),
    [(1, 30, 60), (2, 60, 120), (3, 120, 240), (7, 1800, 3600), (5000, 1800, 3600)],
)
def test_waits_double_and_are_spread_over_their_upper_half(
    failures: int, low_s: float, high_s: float
) -> None:
    found = waits(failures)
    assert low_s <= min(found) < low_s * 1.1
    assert high_s * 0.95 < max(found) <= high_s


def test_a_feed_that_polls_often_waits_no_longer_than_it_polls() -> None:
    assert max(waits(50, poll_s=600)) <= 600
    assert set(waits(50, poll_s=30)) == {30.0}


def test_the_providers_wish_is_kept_and_bounded() -> None:
    found = waits(1, error=FeedUnavailable("x", 5000.0))
    assert 5000 <= min(found) < max(found) <= 5030
    found = waits(1, error=FeedHeldBack("x", 1e12))
    assert 86_400 <= min(found) < max(found) <= 86_430


@pytest.mark.parametrize("error", [FeedRejected("x"), FeedDataInvalid("x")])
def test_what_time_does_not_mend_is_asked_at_the_usual_pace(error: Exception) -> None:
    assert set(waits(9, error=error, poll_s=600)) == {600.0}


def test_bounds_are_the_operators() -> None:
    bounds = BackOff(min_s=1, max_s=8)
    found = [bounds.feed_wait_s(GONE, n, 600, lambda low, _: low) for n in (1, 2, 3, 4, 5)]
    assert found == [1, 2, 4, 4, 4]
