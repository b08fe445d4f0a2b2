from __future__ import annotations

import pytest

from pals_grid.evaluate.suite.job import Job, Outcome, Table
from pals_grid.evaluate.suite.markdown import missed_line
from pals_grid.evaluate.suite.results import Results, judge, over_cases, worst_of_cases
from pals_grid.evaluate.suite.show import bars_text, markdown_table, text_table


def outcome(case: str, strategy: str, seed: int, value: float | None) -> Outcome:
    return Outcome(Job("s", case, strategy, seed), {"m": value})


def results() -> Results:
    return Results(
        outcome(case, strategy, seed, base * seed)
        for case, extra in (("a", 1.0), ("b", 2.0))
        for strategy, base in (("rival", 10.0), ("ours", 10.0 + extra))
        for seed in (2, 1)
    )


def test_gains_are_against_the_same_seed() -> None:
    found = results()
    found.relative("m", "rival", "gain")
    assert found.values("a", "ours", "gain") == pytest.approx({1: 0.1, 2: 0.1})
    assert over_cases(found, "ours", "gain") == pytest.approx({1: 0.15, 2: 0.15})
    assert worst_of_cases(found, "ours", "gain", ">=") == pytest.approx({1: 0.1, 2: 0.1})
    assert worst_of_cases(found, "ours", "gain", "<=") == pytest.approx({1: 0.2, 2: 0.2})


def test_ratios_leave_out_seeds_without_a_rival_to_divide_by() -> None:
    found = Results(
        outcome("a", strategy, seed, value)
        for strategy, values in (("rival", (4.0, 0.0, None)), ("ours", (6.0, 1.0, 1.0)))
        for seed, value in enumerate(values, start=1)
    )
    found.ratio("m", "rival", "of_rival")
    assert found.values("a", "ours", "of_rival") == {1: 1.5}


def test_a_rival_of_another_case_can_be_named() -> None:
    found = results()
    found.relative("m", "rival", "gain", {"b": "a"})
    assert found.values("b", "ours", "gain") == pytest.approx({1: 0.2, 2: 0.2})


def test_a_bar_is_judged_by_the_mean_or_by_the_worst_seed() -> None:
    values = {1: 0.9, 2: 1.2}
    by_mean = judge("s", "n", ">=", 1.0, values)
    assert (by_mean.met, by_mean.worst_seed) == (True, 1)
    assert by_mean.distance == pytest.approx(0.05)
    by_worst = judge("s", "n", ">=", 1.0, values, every_seed=True)
    assert by_worst.met is False
    assert by_worst.distance == pytest.approx(-0.1)
    assert judge("s", "n", "<=", 1.0, values, every_seed=True).worst_seed == 2
    missing = judge("s", "n", "<=", 1.0, {})
    assert (missing.met, missing.distance) == (None, None)


def test_bars_say_met_or_not() -> None:
    text = bars_text([judge("s", "n", "<=", 0.01, {1: 0.02}), judge("s", "k", ">=", 7.0, {1: 8.0})])
    assert "NOT met  s: n" in text
    assert "met      s: k" in text
    assert "<= 1.0 %: 2.0" in text


def test_tables_fit_a_terminal_by_leaving_intervals_out() -> None:
    head = ("case", *(f"column {i}" for i in range(8)))
    row = ("", *(f"{i}12.3 ±100.4" for i in range(8)))
    lines = text_table(Table("Title", head, (row,))).splitlines()
    assert max(len(line) for line in lines) <= 100
    assert "intervals" in lines[0]
    assert "±" not in lines[-1]
    small = Table("Title", ("case", "x"), (("a", "1.0 ±0.1"),))
    assert "1.0 ±0.1" in text_table(small)
    assert markdown_table(small).splitlines()[-3:] == [
        "| case | x |",
        "| --- | ---: |",
        "| a | 1.0 ±0.1 |",
    ]


@pytest.mark.parametrize(
    ("sense", "value", "limit", "said"),
    [
        (">=", 0.05, 0.09, "the oracle is 29.0 points short too, and 4.0 points ahead of ours"),
        (">=", 0.05, 0.40, ""),
        ("<=", 0.60, 0.50, "the oracle is 12.0 points short too, and 10.0 points ahead of ours"),
        ("<=", 0.60, None, ""),
    ],
)
def test_a_bar_that_the_plant_forbids_is_said(
    sense: str, value: float, limit: float | None, said: str
) -> None:
    bar = judge("s", "bar", sense, 0.38, {1: value}, limit=limit)
    assert said in missed_line(bar)
    assert ("forbids" in missed_line(bar)) == bool(said)
