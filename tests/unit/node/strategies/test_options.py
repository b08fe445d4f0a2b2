from __future__ import annotations

import dataclasses
import math

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.site import Slo
from pals_grid.node.strategies.grid import GridStrategy
from pals_grid.node.strategies.options import ControlOptions, Target, make_options, parse_options
from pals_grid.node.strategies.registry import DEFAULT_STRATEGY, STRATEGIES, make_strategy
from pals_grid.powermodel.overhead import NodeOverhead

OVERHEAD = NodeOverhead(0.0, 0.0)


def test_pairs_are_read_with_hyphens_switches_and_numbers() -> None:
    options = parse_options(
        ["forecast=off", "clock-lock=False", "margin-ratio=0.5", "target=envelope", "itl_tail=on"]
    )
    assert options == ControlOptions(
        forecast=False,
        clock_lock=False,
        margin_ratio=0.5,
        target=Target.ENVELOPE,
        itl_tail=True,
    )
    assert parse_options([]) == ControlOptions()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("forecast", "must be NAME=VALUE"),
        ("forcast=off", "must be one of target, feed_forward"),
        ("forecast=maybe", "forecast: must be on or off"),
        ("target=all", "target: must be one of demand, both, envelope"),
        ("max_slowdown_ratio=-0.05", r"max_slowdown_ratio: must be 0 or more, got -0\.05"),
        ("max_slowdown_ratio=nan", "max_slowdown_ratio: must be 0 or more, got nan"),
        ("max_slowdown_ratio=some", "max_slowdown_ratio: must be a number, got 'some'"),
        ("margin_ratio=wide", "margin_ratio: must be a number"),
        ("margin_ratio=-1", "margin_ratio: must be from 0 to 5"),
        ("budget_margin_ratio=nan", "budget_margin_ratio: must be from 0 to 0.2"),
    ],
)
def test_what_is_wrong_is_named(pair: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        parse_options([pair])


def test_the_slowdown_is_unbounded_unless_a_bound_is_given() -> None:
    assert ControlOptions().max_slowdown_ratio == math.inf
    for text, value in (("inf", math.inf), ("0", 0.0), ("0.05", 0.05)):
        assert parse_options([f"max-slowdown-ratio={text}"]).max_slowdown_ratio == value


def test_values_may_come_typed() -> None:
    assert make_options({"forecast": False, "target": Target.BOTH, "margin_ratio": 1}) == (
        ControlOptions(forecast=False, target=Target.BOTH, margin_ratio=1.0)
    )


def test_strategies_are_made_by_name() -> None:
    assert set(STRATEGIES) == {"pals", "pals-grid"}
    assert all(kind.summary for kind in STRATEGIES.values())
    made = make_strategy(DEFAULT_STRATEGY, [], OVERHEAD, Slo(), forecast="off")
    assert isinstance(made, GridStrategy)
    with pytest.raises(InvalidValue, match="strategy: must be one of pals, pals-grid, got 'best'"):
        make_strategy("best", [], OVERHEAD, Slo())


def test_every_switch_is_a_field_that_can_be_turned() -> None:
    for item in dataclasses.fields(ControlOptions):
        if isinstance(item.default, bool):
            turned = parse_options([f"{item.name}={'off' if item.default else 'on'}"])
            assert getattr(turned, item.name) is not item.default
