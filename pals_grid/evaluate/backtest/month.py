"""A month under one policy: served slot by slot, then counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.errors import NotFound
from pals_grid.counterfactual.ledger import Ledger
from pals_grid.counterfactual.policies import (
    AsItComes,
    FixedLimit,
    Rule,
    Threshold,
    best_rule,
    lowest_line,
)
from pals_grid.counterfactual.serving import Amount, energy_kwh, serve_slots
from pals_grid.evaluate.backtest import names
from pals_grid.evaluate.backtest.policies import AsKnown, Foresight, Rolling
from pals_grid.evaluate.backtest.result import MonthRun

if TYPE_CHECKING:
    from pals_grid.counterfactual.policies import Policy
    from pals_grid.counterfactual.serving import Floats, Trace
    from pals_grid.evaluate.backtest.signals import Signal
    from pals_grid.evaluate.backtest.world import World

TUNING_DAYS = 28
LEAST_TUNING_DAYS = 7
UNTUNED = Rule(0.5, 3.0)


def simulate(world: World, policy: Policy, first: int, end: int, stop: int) -> Trace:
    """Serve slots ``first`` to before ``stop``; what can wait arrives up to before ``end``."""
    ledger = Ledger(world.grid.count)
    return serve_slots(policy, lambda slot: world.arrivals(slot, end), ledger, first, stop)


def run_month(world: World, name: str) -> MonthRun:
    """Run a policy over the month and count energy, money, carbon, tokens and lateness.

    Raises:
        NotFound: for a policy that is none.
    """
    began_s = time.process_time()
    policy, settings = _policy(world, name)
    trace = simulate(world, policy, world.first, world.end, world.stop)
    part = slice(world.first, world.stop)
    tokens_per_s = trace.tokens / world.grid.slot_s
    power_w = policy.draw_w(tokens_per_s)
    energy = energy_kwh(power_w, world.grid.slot_s)
    carbon = world.true_carbon
    return MonthRun(
        policy=name,
        settings=settings,
        energy_kwh=float(energy.sum()),
        cost=_known(energy, world.true_price[part]) / 1000,
        carbon_kg=None if carbon is None else _known(energy, carbon[part]) / 1000,
        worth=_known(energy, world.worth_per_kwh[part]),
        tokens=float(trace.tokens.sum()),
        late_at_once_tokens=trace.late_at_once_tokens,
        late_waiting_tokens=trace.late_waiting_tokens,
        unserved_tokens=trace.unserved_tokens,
        peak_w=float(power_w.max()),
        plans=getattr(policy, "plans", 0),
        findings=getattr(policy, "findings", 0),
        cpu_s=time.process_time() - began_s,
        power_w=power_w,
        tokens_per_s=tokens_per_s,
    )


def _known(energy: Floats, rate_per_kwh: Floats) -> float:
    """A sum over slots; a month has every value (``require_covered``)."""
    value = Amount.of(energy, rate_per_kwh).value
    assert value is not None
    return value


def _policy(world: World, name: str) -> tuple[Policy, str]:
    plant, duration_s = world.plant, world.duration_s
    if name == names.AS_IT_COMES:
        return AsItComes(plant, duration_s), ""
    if name == names.NO_CONTROL:
        fixed = FixedLimit(plant.static_lines[-1], duration_s)
        return fixed, fixed.words
    if name == names.STATIC:
        peak = float(world.demand[world.first : world.stop].max())
        fixed = FixedLimit(lowest_line(plant, peak), duration_s)
        return fixed, fixed.words
    if name in {names.PLANNER, names.KNOWN_LOAD}:
        return Rolling(world, knows_load=name == names.KNOWN_LOAD), ""
    if name == names.FORESIGHT:
        return Foresight(world), ""
    signal = {names.PRICE_THRESHOLD: world.price, names.CARBON_THRESHOLD: world.carbon}.get(name)
    if signal is None:
        raise NotFound("policy or its signal", name)
    rule = tuned_rule(world, signal)
    return threshold(world, signal, rule), rule.words


def threshold(world: World, signal: Signal, rule: Rule) -> Threshold:
    """Return a rule of what is known of a signal."""
    return Threshold(world.plant, world.duration_s, AsKnown(world, signal), rule)


def tuned_rule(world: World, signal: Signal) -> Rule:
    """The rule that would have cost least over the four weeks before the month.

    Where fewer than a week of them is on record, the median at a pace of three hours.
    """
    worth = world.worth_per_kwh[: world.first]
    seen = np.flatnonzero(~np.isnan(worth))
    per_day = world.grid.per_day
    first = max(world.first - TUNING_DAYS * per_day, int(seen[0]) if len(seen) else world.first)
    stop = world.first
    end = stop - (max((window for _, window in world.windows), default=0) + 1)
    if end - first < LEAST_TUNING_DAYS * per_day or np.isnan(worth[first:]).all():
        return UNTUNED

    def cost(rule: Rule) -> tuple[float]:
        policy = threshold(world, signal, rule)
        trace = simulate(world, policy, first, end, stop)
        power_w = policy.draw_w(trace.tokens / world.grid.slot_s)
        return (float(np.nansum(power_w * worth[first:stop])),)

    return best_rule(cost)
