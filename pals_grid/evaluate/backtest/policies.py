"""The planner in a backtest, what it knows, and signals as thresholds watch them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.budget import BatchWork, PlanRequest, PlanSlot
from pals_grid.core.units import J_PER_KWH
from pals_grid.counterfactual.policies import Order, order_within
from pals_grid.forecast.seasonal import HISTORY_DAYS, forecast_demand
from pals_grid.planner.linear import plan_power_budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pals_grid.core.budget import PowerBudget
    from pals_grid.counterfactual.ledger import Ledger
    from pals_grid.counterfactual.policies import Arriving
    from pals_grid.evaluate.backtest.signals import Signal
    from pals_grid.evaluate.backtest.world import World

    Floats = npt.NDArray[np.float64]

LOOK_BACK_DAYS = 28
COMMIT_LESS_DAYS = 2
TIME_LIMIT_S = 30.0


class AsKnown:
    """A signal by what was known of it when each slot began.

    The level is a quantile of the last 28 days as they are known at the beginning of each day. A
    slot whose own value is not known is judged by the last one that is.
    """

    def __init__(self, world: World, signal: Signal) -> None:
        self._world = world
        self._view = signal.view()
        self._level = math.nan
        self._day = -1

    def level(self, slot: int, quantile: float) -> float:
        """As the port says; one quantile throughout."""
        grid = self._world.grid
        self._view.advance(grid.edges[slot])
        if slot // grid.per_day != self._day:
            self._day = slot // grid.per_day
            self._level = self._quantile(slot, quantile)
        return self._level

    def value(self, slot: int) -> float | None:
        """As the port says."""
        self._view.advance(self._world.grid.edges[slot])
        value = float(self._view.values[slot])
        if not math.isnan(value):
            return value
        back = self._view.values[max(0, slot - self._world.grid.per_day) : slot + 1]
        seen = np.flatnonzero(~np.isnan(back))
        return float(back[seen[-1]]) if len(seen) else None

    def _quantile(self, slot: int, quantile: float) -> float:
        per_day = self._world.grid.per_day
        past = self._view.values[max(0, slot - LOOK_BACK_DAYS * per_day) : slot + per_day]
        seen = past[~np.isnan(past)]
        return float(np.quantile(seen, quantile)) if len(seen) else math.inf


class _Planned:
    """Serves as the production planner says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._budget: PowerBudget | None = None
        self._planned_at = 0
        self.plans = 0
        self.findings = 0

    def draw_w(self, tokens_per_s: Floats) -> Floats:
        """The controlled nodes' curve."""
        return self._world.plant.draw_w(tokens_per_s)

    def _plan(
        self, slot: int, slots: Sequence[PlanSlot], ledger: Ledger, carbon: Floats | None
    ) -> None:
        """Plan from ``slot`` on; ``carbon`` is by slot what is known of it, NaN unknown."""
        world = self._world
        edges = world.grid.edges
        waiting = tuple(
            BatchWork("waiting", tokens, edges[last + 1]) for last, tokens in ledger.dues()
        )
        if ledger.late > 0:
            waiting = (BatchWork("waiting", ledger.late, edges[slot + 1]), *waiting)
        request = PlanRequest(
            policy=world.policy,
            fleets=world.plant.fleets,
            slots=tuple(slots),
            events=(),
            planned_at=edges[slot],
            batch_work=waiting,
            carbon_spent_kg=self._spent_kg(slot, ledger, carbon),
            power_before_w=self._power_before_w(slot, ledger),
        )
        self._budget = plan_power_budget(request, time_limit_s=TIME_LIMIT_S)
        self._planned_at = slot
        self.plans += 1
        self.findings += len(self._budget.findings)

    def _power_before_w(self, slot: int, ledger: Ledger) -> float | None:
        """What the site drew in the slot before; None where ramps do not count or none was."""
        if self._world.policy.ramp_w_per_min is None:
            return None
        before_w = float(self._drawn_w(ledger, slot - 1, slot)[0])
        return None if math.isnan(before_w) else before_w

    def _spent_kg(self, slot: int, ledger: Ledger, carbon: Floats | None) -> float:
        """Emissions of the local day before ``slot`` that are known; 0 without a cap."""
        world = self._world
        if world.policy.carbon_cap_kg_per_day is None or carbon is None:
            return 0.0
        first = world.grid.local_midnight(slot, world.policy.timezone)
        grams = self._drawn_w(ledger, first, slot) * carbon[first:slot]
        return float(np.nansum(grams)) * world.grid.slot_s / J_PER_KWH / 1000

    def _drawn_w(self, ledger: Ledger, first: int, stop: int) -> Floats:
        """Draw of slots that were served; NaN of the others."""
        return self.draw_w(np.array(ledger.served[first:stop]) / self._world.grid.slot_s)


class Rolling(_Planned):
    """The planner as in service: asked again every ``replan_s`` with what is known by then.

    Signals that are not known yet are forecast from their past, demand by the service's own
    forecast. The allocator splits the limit of every interval in which that could bind, and what
    its envelopes let through is the room; elsewhere the nodes' joint curve says that there is
    room to spare. ``knows_load`` gives it the load as it will be.
    """

    def __init__(self, world: World, *, knows_load: bool = False) -> None:
        super().__init__(world)
        self._knows_load = knows_load
        self._price = world.price.view()
        self._carbon = None if world.carbon is None else world.carbon.view()
        self._every = round(world.site.replan_s / world.grid.slot_s)
        self._history = list(
            zip(world.grid.edges[:-1], (float(rate) for rate in world.demand), strict=True)
        )

    def order(self, slot: int, arriving: Arriving, ledger: Ledger) -> Order:
        """The plan's tokens, inside what the allocator grants."""
        if self._budget is None or slot - self._planned_at >= self._every:
            slots = self._expect(slot)
            carbon = None if self._carbon is None else self._carbon.values
            self._plan(slot, slots, ledger, carbon)
        assert self._budget is not None
        item = self._budget.intervals[slot - self._planned_at]
        need = arriving.at_once + ledger.must(slot)
        return order_within(self._world.plant, item, self._world.grid.slot_s, need)

    def _expect(self, slot: int) -> list[PlanSlot]:
        world, grid = self._world, self._world.grid
        end = min(grid.count, slot + round(world.policy.horizon_s / grid.slot_s))
        now = grid.edges[slot]
        self._price.advance(now)
        price = world.forecast.fill(self._price.values, slot, end)
        carbon = np.full(end - slot, np.nan)
        if self._carbon is not None:
            self._carbon.advance(now)
            carbon = world.forecast.fill(self._carbon.values, slot, end)
        return _slots(world, slot, price, carbon, self._demand(slot, end))

    def _demand(self, slot: int, end: int) -> Floats:
        """What the service expects to be asked for."""
        grid, demand = self._world.grid, self._world.demand
        if self._knows_load:
            return demand[slot:end]
        past = self._history[max(0, slot - HISTORY_DAYS * grid.per_day) : slot]
        return np.array(forecast_demand(past, grid.intervals[slot:end], float(demand[slot - 1])))


class Foresight(_Planned):
    """The same planner that knows price, carbon and load of the days ahead as they will be.

    Windows overlap by two days, so that what lies behind the end of one changes nothing.
    """

    def order(self, slot: int, arriving: Arriving, ledger: Ledger) -> Order:  # noqa: ARG002
        """The plan's tokens."""
        world, grid = self._world, self._world.grid
        days = world.site.foresight_days
        commit = (days - COMMIT_LESS_DAYS) * grid.per_day
        if self._budget is None or slot - self._planned_at >= commit:
            end = min(grid.count, slot + days * grid.per_day)
            carbon = world.true_carbon
            self._plan(
                slot,
                _slots(
                    world,
                    slot,
                    world.true_price[slot:end],
                    np.full(end - slot, np.nan) if carbon is None else carbon[slot:end],
                    world.demand[slot:end],
                ),
                ledger,
                carbon,
            )
        assert self._budget is not None
        item = self._budget.intervals[slot - self._planned_at]
        room = world.plant.curve.max_tokens_per_s
        return Order(item.granted_tokens_per_s * grid.slot_s, room * grid.slot_s)


def _slots(
    world: World, slot: int, price: Floats, carbon: Floats, demand: Floats
) -> list[PlanSlot]:
    intervals = world.grid.intervals[slot : slot + len(price)]
    return [
        PlanSlot(interval, _known(cost), _known(grams), rate)
        for interval, cost, grams, rate in zip(
            intervals, price.tolist(), carbon.tolist(), demand.tolist(), strict=True
        )
    ]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
