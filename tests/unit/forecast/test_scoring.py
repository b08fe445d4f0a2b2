from __future__ import annotations

from itertools import pairwise

import pytest

from pals_grid.forecast.issued import ForecastValue
from pals_grid.forecast.scoring import LEAD_EDGES_H, Score, Verdict, judge, pooled


def score(mae: float, rival_mae: float, count: int = 200, up_to_h: float = 24) -> Score:
    return Score(0, up_to_h, count, mae, rival_mae, 0.8)


def test_pooled_weighs_by_values() -> None:
    found = pooled([score(1, 2, 300, 6), score(5, 10, 100)])
    assert found is not None
    assert (found.mae, found.rival_mae, found.count, found.up_to_h) == (2, 4, 400, 24)
    assert found.gain_ratio == pytest.approx(0.5)
    assert pooled([]) is None


def test_live_record_goes_before_the_hold_out() -> None:
    live, proof = [score(11, 15)], [score(20, 15)]
    verdict = judge(live, proof, rival="day", unit="EUR/MWh")
    assert verdict.is_used
    assert verdict.reason == (
        "used: off by 11 EUR/MWh on average, the naive rival (day) by 15, on its record"
    )


def test_young_record_leaves_it_to_the_hold_out() -> None:
    verdict = judge([score(1, 2, 99)], [score(20, 15)], rival="week", unit="EUR/MWh")
    assert not verdict.is_used
    assert "not used, worse than the naive rival: off by 20" in verdict.reason
    assert "28 days kept back" in verdict.reason


def test_equal_is_not_better() -> None:
    assert not judge([score(15, 15)], [], rival="day", unit="g").is_used


def test_nothing_to_judge_by_is_not_used() -> None:
    verdict = judge([], [score(1, 2, 10)], rival="day", unit="g")
    assert (verdict.is_used, verdict.reason) == (False, "not used: too few values to judge it by")


def test_rival_without_error_gives_no_gain() -> None:
    assert score(0, 0).gain_ratio == 0


def by_lead(*errors: float, rival_mae: float = 10.0, count: int = 200) -> list[Score]:
    edges = zip(pairwise(LEAD_EDGES_H), errors, strict=True)
    return [Score(a, b, count, mae, rival_mae, 0.8) for (a, b), mae in edges]


def test_each_range_of_leads_is_judged_by_itself() -> None:
    verdict = judge(by_lead(1, 2, 4, 8, 9, 12, 11), [], rival="day", unit="g/kWh")
    assert verdict.is_used
    assert [band.is_used for band in verdict.bands] == [True] * 5 + [False] * 2
    assert verdict.reason == (
        "used up to 18 h ahead: off by 4.8 g/kWh on average, the naive rival (day) by 10, on its"
        " record; 18 to 48 h ahead the naive rival (day), which is better there"
    )
    assert [verdict.uses(lead_h) for lead_h in (0.5, 18, 18.5, 24, 24.5, 60)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_ranges_need_not_meet() -> None:
    verdict = judge(by_lead(11, 2, 11, 8, 9, 12, 9), [], rival="week", unit="g")
    assert verdict.reason.startswith("used 1 to 3 h and 6 to 18 h and 24 to 48 h ahead: ")
    assert "; up to 1 h and 3 to 6 h and 18 to 24 h ahead the naive rival" in verdict.reason


def test_better_on_average_is_not_enough_for_a_range() -> None:
    """The mean over all leads is far better; 24 h ahead the naive day is."""
    verdict = judge([], by_lead(1, 1, 1, 1, 1, 10.5, 1), rival="day", unit="g")
    assert verdict.is_used
    assert not verdict.uses(24)


def test_a_range_with_a_young_record_is_left_to_the_hold_out() -> None:
    live = [Score(0, 1, 200, 5, 10, 0.8), Score(18, 24, 99, 20, 10, 0.8)]
    verdict = judge(live, by_lead(20, 5, 5, 5, 5, 5, 20), rival="day", unit="g")
    assert [band.is_used for band in verdict.bands] == [True] * 6 + [False]
    assert "on its record and the 28 days kept back" in verdict.reason


def test_of_an_older_hold_out_a_wider_range_counts() -> None:
    older = [Score(0, 12, 200, 5, 10, 0.8), Score(12, 24, 200, 11, 10, 0.8)]
    verdict = judge([], older, rival="day", unit="g")
    assert [band.is_used for band in verdict.bands] == [True] * 4 + [False] * 2 + [True]


def test_what_is_taken_of_a_step() -> None:
    verdict = judge(by_lead(1, 1, 1, 1, 1, 11, 11), [], rival="day", unit="g")
    near, far = (ForecastValue(h * 3600, (h + 1) * 3600, 1.0, 2.0, 3.0, 4.0) for h in (117, 118))
    assert (near.taken(verdict, 100 * 3600), far.taken(verdict, 100 * 3600)) == (2.0, 4.0)
    assert near.taken(Verdict(is_used=False, reason=""), 100 * 3600) is None


def test_a_young_record_that_is_worse_stops_every_range_that_it_does_not_prove() -> None:
    live = [Score(0, 1, 100, 5, 10, 0.8), Score(1, 3, 90, 40, 10, 0.8)]
    verdict = judge(live, by_lead(5, 5, 5, 5, 5, 5, 5), rival="day", unit="g")
    assert [band.is_used for band in verdict.bands] == [True] + [False] * 6
