from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pals_grid.forecast.learned.live import forecast, learn
from pals_grid.forecast.learned.mixing import Shares, fit_shares
from pals_grid.forecast.learned.model import Quantiles, bucket_of
from pals_grid.forecast.learned.rolling import roll
from tests.unit.forecast.learned.made_up import HOUR_S, made_up
from tests.unit.forecast.learned.test_learned import history_of

if TYPE_CHECKING:
    from pals_grid.forecast.learned.grid import Floats

COUNT = 400


def shares_at(found: Shares, *hours: float) -> list[float]:
    return [found.by_bucket[int(bucket)] for bucket in bucket_of(np.array(hours))]


def noisy(seed: int, spread: float) -> Floats:
    return np.random.default_rng(seed).normal(100, spread, COUNT)


def test_each_range_gets_the_share_with_the_least_error() -> None:
    values = np.full(2 * COUNT, 100.0)
    lead_h = np.repeat([6.0, 24.0], COUNT)
    good, bad = noisy(1, 1.0), noisy(2, 20.0)
    found = fit_shares(np.r_[good, bad], values, np.r_[bad, good], lead_h)
    assert shares_at(found, 6, 24) == [1.0, 0.0]
    assert shares_at(found, 5, 8, 20) == [1.0, 1.0, 0.0]  # 8 h lies in a range without values


def test_errors_that_have_nothing_to_do_with_each_other_make_less_together() -> None:
    values, lead_h = np.full(COUNT, 100.0), np.full(COUNT, 24.0)
    mine, rival = noisy(1, 5.0), noisy(2, 5.0)
    found = fit_shares(mine, values, rival, lead_h)
    assert shares_at(found, 24) == [0.75]  # half of the way to 0.5
    mixed = found.apply(Quantiles(mine - 1, mine, mine + 2), rival, lead_h)
    assert np.abs(mixed.p50 - values).mean() < 0.85 * np.abs(mine - values).mean()
    np.testing.assert_allclose(mixed.p90 - mixed.p10, 3.0)


def test_few_values_or_no_rival_leave_the_model_alone() -> None:
    few = np.full(99, 24.0)
    found = fit_shares(few + 9, few, few, few)
    assert set(found.by_bucket.values()) == {1.0}
    rival_alone = Shares(dict.fromkeys(found.by_bucket, 0.0))
    quantiles = Quantiles(np.array([1.0, 1.0]), np.array([2.0, 2.0]), np.array([3.0, 3.0]))
    mixed = rival_alone.apply(quantiles, np.array([np.nan, 5.0]), np.array([24.0, 24.0]))
    assert mixed.p50.tolist() == [2, 5]


def test_a_forecaster_keeps_its_shares_and_an_older_one_has_none() -> None:
    history = history_of(made_up(70))
    learned = learn(history, zone="UTC", delay_s=0)
    assert all(len(numbers) == 3 and 0 <= numbers[2] <= 1 for numbers in learned.widths.values())

    def medians(share: float | None) -> Floats:
        end = [] if share is None else [share]
        widths = {bucket: [*pair[:2], *end] for bucket, pair in learned.widths.items()}
        found = forecast(
            replace(learned, widths=widths),
            history,
            zone="UTC",
            origin_s=history.ends_s[-1],
            ahead_s=48 * HOUR_S,
        )
        rivals.append([one.rival for one in found])
        return np.array([one.p50 for one in found])

    rivals: list[list[float | None]] = []
    alone = medians(None)
    np.testing.assert_array_equal(alone, medians(1.0))
    assert medians(0.0).tolist() == pytest.approx(rivals[0])
    np.testing.assert_allclose(medians(0.5), (alone + medians(0.0)) / 2)


def test_shares_follow_from_what_had_come_when_the_model_was_fitted() -> None:
    """Other values after the second fit change nothing that was said before it."""
    grid, first, again = made_up(200), 100 * 24, 130 * 24
    other = replace(grid, values=np.r_[grid.values[:again], 2 * grid.values[again:][::-1]])
    runs = [
        roll(one, zone="UTC", first=first, leads=[1, 24], stride=5, retrain_days=30)
        for one in (grid, other)
    ]
    early = runs[0].origin < again
    for name in ("p10", "p50", "p90"):
        np.testing.assert_array_equal(
            *(getattr(run.found, name)[early & (run.origin < again)] for run in runs)
        )
    assert (runs[0].found.p50 != runs[0].alone).any()
