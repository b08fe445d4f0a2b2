from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from pals_grid.core.budget import BudgetInterval, Reason
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.site import Slo
from pals_grid.counterfactual.plant import Nodes, Plant, node_kind
from pals_grid.evaluate.backtest.config import Load, load_site
from pals_grid.evaluate.backtest.grid import grid_of
from pals_grid.evaluate.backtest.load import load_by_slot
from tests.unit.evaluate.backtest.small import NODE, START, site_dict

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def plant() -> Plant:
    other = NODE | {"model": "Qwen/Qwen1.5-MoE-A2.7B", "count": 3}
    return Plant(tuple(node_kind(msgspec.convert(item, Nodes), Slo()) for item in (NODE, other)))


def test_the_allocator_s_envelopes_let_through_what_the_joint_curve_says(plant: Plant) -> None:
    for ratio in (0.5, 0.7, 0.85, 1.0):
        limit_w = ratio * plant.most_w
        item = BudgetInterval(
            Interval(START, START + timedelta(hours=1)),
            limit_w,
            Reason.DEMAND,
            "",
            None,
            None,
            0.0,
            0.0,
            limit_w,
        )
        joint = plant.curve.tokens_per_s_at(limit_w)
        assert plant.allocated_tokens_per_s(item) == pytest.approx(joint, rel=2e-3)


def test_controlled_nodes_draw_less_than_those_under_a_fixed_limit(plant: Plant) -> None:
    natural = plant.static_lines[-1]
    rates = np.linspace(0.1, 1.0, 10) * min(natural.max_tokens_per_s, plant.curve.max_tokens_per_s)
    assert natural.limits_w == (400.0,)
    assert (plant.draw_w(rates) <= natural.draw_w(rates) + 1e-6).all()
    most = [line.max_tokens_per_s for line in plant.static_lines]
    assert most == sorted(most)


def test_the_slot_model_is_near_the_replayed_day(plant: Plant) -> None:
    # docs/replay.md: 1167 tokens/s on one node; 997 W with control, 1437 W without (simulated).
    assert plant.kinds[0].curve.power_w_at(1167) == pytest.approx(997, rel=0.04)
    line = plant.kinds[0].lines[-1]
    assert float(line.draw_w(np.array([1167.0]))[0]) == pytest.approx(1437, rel=0.01)


def test_the_same_slot_has_the_same_load_in_whatever_month(tmp_path: Path) -> None:
    load = Load(mean_tokens_per_s=1000)
    long = grid_of(START, START + timedelta(days=40), 900)
    part = grid_of(START + timedelta(days=17), START + timedelta(days=19), 900)
    whole = load_by_slot(load, long, "Europe/Amsterdam", tmp_path)
    cut = load_by_slot(load, part, "Europe/Amsterdam", tmp_path)
    first = long.at(part.start_at)
    np.testing.assert_array_equal(cut, whole[first : first + part.count])
    other = load_by_slot(Load(mean_tokens_per_s=1000, seed=2), long, "UTC", tmp_path)
    assert not np.allclose(other, whole)
    assert whole.mean() == pytest.approx(1000, rel=0.05)


def test_a_load_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_text("start_at,tokens_per_s\n2022-06-01T00:00:00Z,10\n2022-06-01T01:00:00Z,20\n")
    grid = grid_of(START, START + timedelta(hours=2), 1800)
    load = Load(shape="csv", path="load.csv")
    assert load_by_slot(load, grid, "UTC", tmp_path).tolist() == [10, 10, 20, 20]
    longer = grid_of(START, START + timedelta(hours=3), 1800)
    with pytest.raises(InvalidValue, match=r"load.path.*must cover"):
        load_by_slot(load, longer, "UTC", tmp_path)
    path.write_text("start_at,tokens_per_s\n2022-06-01T00:00:00Z,x\n")
    with pytest.raises(InvalidValue, match="line 2, tokens_per_s"):
        load_by_slot(load, grid, "UTC", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"price": None}, "price"),
        ({"constant_price_per_mwh": 50.0}, "price"),
        ({"replan_s": 5400}, "replan_s.*multiple"),
        ({"load": {}}, "mean_tokens_per_s"),
        ({"nodes": []}, "must be a site file"),
        ({"surprise": 1}, "surprise"),
        (
            {
                "policy": site_dict()["policy"]
                | {
                    "tiers": [
                        {"name": "a", "demand_ratio": 1, "loss_ratio": 0.1, "value_per_mtoken": 1}
                    ]
                }
            },
            "loss_ratio.*equal tokens",
        ),
    ],
)
def test_a_site_file_says_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site_dict(**changes)))
    with pytest.raises(InvalidValue, match=message):
        load_site(path)


def test_a_grid_knows_its_slots() -> None:
    grid = grid_of(datetime(2022, 6, 3, 23, tzinfo=UTC), datetime(2022, 6, 4, 1, tzinfo=UTC), 1800)
    assert grid.count == 4
    assert grid.at(datetime(2022, 6, 4, tzinfo=UTC)) == 2
    # 2022-06-04 is a Saturday; in Amsterdam it has begun at 22:00 UTC.
    assert grid.weekend("UTC").tolist() == [False, False, True, True]
    assert grid.weekend("Europe/Amsterdam").tolist() == [True] * 4
