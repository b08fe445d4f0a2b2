from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pals_grid.core.errors import NotFound
from pals_grid.counterfactual.policies import Rule
from pals_grid.evaluate.backtest import names, policies
from pals_grid.evaluate.backtest.month import (
    UNTUNED,
    run_month,
    simulate,
    threshold,
    tuned_rule,
)
from pals_grid.evaluate.backtest.policies import Rolling
from pals_grid.planner.linear import plan_power_budget
from tests.unit.evaluate.backtest.small import START, price_at, site_dict, small_world, write_prices

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.core.budget import PlanRequest, PowerBudget
    from pals_grid.evaluate.backtest.result import MonthRun
    from pals_grid.evaluate.backtest.world import World

SHOWN = tuple(name for name in names.ALL if name != names.CARBON_THRESHOLD)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MonthRun]:
    world = small_world(tmp_path_factory.mktemp("site"))
    return {name: run_month(world, name) for name in SHOWN}


def test_every_policy_serves_the_same_tokens_in_time(runs: dict[str, MonthRun]) -> None:
    assert len({round(run.tokens) for run in runs.values()}) == 1
    assert all(run.unserved_tokens < 1 for run in runs.values())
    assert all(run.late_ratio < 1e-9 for run in runs.values())


def test_costs_stand_in_the_order_of_what_is_known(runs: dict[str, MonthRun]) -> None:
    order = [
        names.FORESIGHT,
        names.KNOWN_LOAD,
        names.PLANNER,
        names.PRICE_THRESHOLD,
        names.AS_IT_COMES,
    ]
    costs = [runs[name].worth for name in order]
    assert costs == sorted(costs)
    assert runs[names.AS_IT_COMES].worth < runs[names.STATIC].worth < runs[names.NO_CONTROL].worth


def test_sums_are_those_of_the_slots(tmp_path: Path) -> None:
    world = small_world(tmp_path, days=1)
    run = run_month(world, names.AS_IT_COMES)
    prices = world.true_price[world.first : world.stop]
    assert run.energy_kwh == pytest.approx(run.power_w.sum() / 1000)
    assert run.cost == pytest.approx((run.power_w / 1000 * prices).sum() / 1000)
    assert run.carbon_kg is None
    assert run.peak_w == run.power_w.max()
    assert len(run.power_w) == 24 + 12  # the settling time is the longest deferral


def served(
    folder: Path, change: dict[int, float] | None
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    write_prices(folder / "prices.csv", change=change)
    world = small_world(folder, days=2)
    trace = simulate(world, Rolling(world), world.first, world.end, world.stop)
    return trace.tokens


def test_the_planner_sees_no_price_before_it_is_published(tmp_path: Path) -> None:
    """The second day's prices are out at 13:00 of the first: nothing differs before."""
    turned = {hour: 300 - price_at(40 * 24 + hour) for hour in range(24, 72)}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    as_known, otherwise = served(tmp_path / "a", None), served(tmp_path / "b", turned)
    np.testing.assert_array_equal(as_known[:13], otherwise[:13])
    assert not np.allclose(as_known[13:24], otherwise[13:24])


def test_real_time_prices_are_used_after_their_hour_alone(tmp_path: Path) -> None:
    spiked = {10: 900.0}
    price = {"known": {"rule": "after"}}
    found = []
    for name, change in (("a", None), ("b", spiked)):
        folder = tmp_path / name
        folder.mkdir()
        write_prices(folder / "prices.csv", change=change)
        site = small_world(folder, days=1).site
        base = {"path": "prices.csv", "mapping": site.price.mapping if site.price else None}
        world = small_world(folder, days=1, price=base | price)
        found.append(simulate(world, Rolling(world), world.first, world.end, world.stop).tokens)
    np.testing.assert_array_equal(found[0][:11], found[1][:11])
    assert not np.allclose(found[0][11:], found[1][11:])


def test_a_threshold_is_tuned_on_the_weeks_before(tmp_path: Path) -> None:
    world = small_world(tmp_path, days=1)
    rule = tuned_rule(world, world.price)
    past = slice(world.first - 20 * world.grid.per_day, world.first)

    def cost(candidate: Rule) -> float:
        policy = threshold(world, world.price, candidate)
        trace = simulate(world, policy, past.start, past.stop - 12, past.stop)
        power_w = policy.draw_w(trace.tokens / world.grid.slot_s)
        return float((power_w * world.worth_per_kwh[past]).sum())

    assert cost(rule) < cost(Rule(0.9, 0.25))
    write_prices(tmp_path / "prices.csv", days=60)
    text = (tmp_path / "prices.csv").read_text().splitlines()
    late = [text[0], *text[1 + 38 * 24 :]]  # two days before the start
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "prices.csv").write_text("\n".join(late) + "\n")
    young = small_world(tmp_path / "young", days=1)
    assert tuned_rule(young, young.price) == UNTUNED


def test_carbon_alone_is_saved_at_a_constant_price(tmp_path: Path) -> None:
    rows = [
        f"{(START + timedelta(hours=hour)).isoformat()},{price_at(hour) * 3:.1f}"
        for hour in range(-40 * 24, 8 * 24)
    ]
    (tmp_path / "carbon.csv").write_text("\n".join(["time,g", *rows]) + "\n")
    mapping = {
        "unit": "gCO2eq/kWh",
        "start_column": "time",
        "value_column": "g",
        "interval_s": "3600",
    }
    policy = {
        "slug": "carbon",
        "name": "Carbon",
        "grid_connection_w": 5000,
        "slot_s": 3600,
        "carbon_price_per_tonne": 100,
        "deferrable_ratio": 0.4,
    }
    world = small_world(
        tmp_path,
        policy=policy,
        price=None,
        constant_price_per_mwh=0.0,
        carbon={
            "path": "carbon.csv",
            "mapping": mapping,
            "known": {"rule": "after", "lag_s": 3600},
        },
    )
    found = {
        name: run_month(world, name)
        for name in (names.AS_IT_COMES, names.CARBON_THRESHOLD, names.PLANNER, names.FORESIGHT)
    }
    kg = [run.carbon_kg or 0.0 for run in found.values()]
    assert kg == sorted(kg, reverse=True)
    assert found[names.PLANNER].worth == pytest.approx(kg[2] * 0.1)


def test_a_policy_without_its_signal_is_not_found(tmp_path: Path) -> None:
    world = small_world(tmp_path, days=1)
    for name in (names.CARBON_THRESHOLD, "surprise"):
        with pytest.raises(NotFound):
            run_month(world, name)


CARBON = {
    "path": "carbon.csv",
    "mapping": {
        "unit": "gCO2eq/kWh",
        "start_column": "time",
        "value_column": "price",
        "interval_s": "3600",
    },
}


def asked_and_run(
    monkeypatch: pytest.MonkeyPatch, world: World, name: str
) -> tuple[list[PlanRequest], MonthRun]:
    asked: list[PlanRequest] = []

    def listen(request: PlanRequest, *, time_limit_s: float) -> PowerBudget:
        asked.append(request)
        return plan_power_budget(request, time_limit_s=time_limit_s)

    monkeypatch.setattr(policies, "plan_power_budget", listen)
    return asked, run_month(world, name)


@pytest.mark.parametrize("name", [names.PLANNER, names.FORESIGHT])
def test_planner_hears_what_the_day_has_had_and_what_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_prices(tmp_path / "carbon.csv")
    policy = site_dict()["policy"] | {
        "carbon_cap_kg_per_day": 1000,
        "ramp_w_per_min": 1000,
        "timezone": "Europe/Oslo",
    }
    world = small_world(tmp_path, days=3, policy=policy, carbon=CARBON, foresight_days=3)
    asked, run = asked_and_run(monkeypatch, world, name)
    assert world.true_carbon is not None
    emitted_kg = run.power_w / 1000 * world.true_carbon[world.first : world.stop] / 1000
    assert asked[0].power_before_w is None
    assert asked[0].carbon_spent_kg == 0
    for request in asked[1:]:
        at = world.grid.at(request.planned_at) - world.first
        assert request.power_before_w == pytest.approx(run.power_w[at - 1])
        hour = (request.planned_at + timedelta(hours=2)).hour  # summer time
        assert request.carbon_spent_kg == pytest.approx(emitted_kg[max(0, at - hour) : at].sum())


def test_without_a_cap_or_a_ramp_nothing_of_the_past_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, _ = asked_and_run(monkeypatch, small_world(tmp_path, days=1), names.PLANNER)
    assert {(one.carbon_spent_kg, one.power_before_w) for one in asked} == {(0.0, None)}
