"""Turn planned tokens into a limit, with the reason that an energy manager reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.budget import BudgetInterval, Reason

if TYPE_CHECKING:
    from pals_grid.core.budget import PlanRequest, PlanSlot
    from pals_grid.core.site import SitePolicy
    from pals_grid.planner.caps import Cap

_NOTABLE_RATIO = 0.001
"""Shares of the demand below this are rounding, not decisions."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One interval's figures, for its reason and its sentence."""

    policy: SitePolicy
    slot: PlanSlot
    cap: Cap
    known: bool
    planned_tokens_per_s: float
    shortfall_tokens_per_s: float
    wanted_w: float
    floor_w: float
    fleet_tokens_per_s: float

    @property
    def limit_w(self) -> float:
        return min(max(self.wanted_w, self.policy.minimum_w), self.cap.limit_w)

    @property
    def waiting_tokens_per_s(self) -> float:
        """Work that leaves the slot for a later one (negative: comes in from earlier ones)."""
        demand = self.slot.demand_tokens_per_s
        return demand - self.planned_tokens_per_s - self.shortfall_tokens_per_s


def budget_interval(
    request: PlanRequest,
    slot: PlanSlot,
    cap: Cap,
    *,
    known: bool,
    planned_tokens_per_s: float,
    shortfall_tokens_per_s: float,
) -> BudgetInterval:
    """Budget of one slot: the power of the planned tokens and the reserve, inside the bounds."""
    reserve = 1 + request.policy.reserve_ratio
    wanted_w = request.curve.power_w_at(planned_tokens_per_s * reserve)
    case = _Case(
        policy=request.policy,
        slot=slot,
        cap=cap,
        known=known,
        planned_tokens_per_s=planned_tokens_per_s,
        shortfall_tokens_per_s=shortfall_tokens_per_s,
        wanted_w=wanted_w,
        floor_w=request.curve.floor_w,
        fleet_tokens_per_s=request.curve.max_tokens_per_s,
    )
    reason = _reason(case)
    return BudgetInterval(
        interval=slot.interval,
        limit_w=case.limit_w,
        reason=reason,
        explanation=_explain(case, reason),
        price_per_mwh=slot.price_per_mwh,
        carbon_g_per_kwh=slot.carbon_g_per_kwh,
        demand_tokens_per_s=slot.demand_tokens_per_s,
        planned_tokens_per_s=planned_tokens_per_s,
        expected_power_w=min(request.curve.power_w_at(planned_tokens_per_s), cap.limit_w),
        shortfall_tokens_per_s=shortfall_tokens_per_s,
        event_id=cap.event.id if cap.event else None,
    )


def _reason(case: _Case) -> Reason:
    """Return the first that applies; an event that does not bind leaves the reason alone."""
    notable = _NOTABLE_RATIO * case.slot.demand_tokens_per_s
    if case.wanted_w >= case.cap.limit_w or case.policy.minimum_w > case.cap.limit_w:
        return Reason.EVENT if case.cap.event else Reason.GRID_CONNECTION
    if not case.known:
        return Reason.NO_SIGNAL
    if case.waiting_tokens_per_s > notable:
        return Reason.SHIFTED_OUT
    if case.waiting_tokens_per_s < -notable:
        return Reason.SHIFTED_IN
    if case.policy.minimum_w > case.wanted_w:
        return Reason.MINIMUM
    return Reason.DEMAND


def _explain(case: _Case, reason: Reason) -> str:
    parts = [_because(case, reason), _event_note(case, reason), _shift_note(case)]
    parts.append(_shortfall_note(case))
    return " ".join(part for part in parts if part)


def _because(case: _Case, reason: Reason) -> str:
    demand = f"{case.slot.demand_tokens_per_s:.0f} tokens/s"
    event = case.cap.event.order.name if case.cap.event else ""
    reserve = f"a reserve of {100 * case.policy.reserve_ratio:.0f} %"
    minimum = f"the site's minimum of {_kw(case.policy.minimum_w)}"
    sentences = {
        Reason.EVENT: f"Event '{event}' limits the site to {_kw(case.cap.limit_w)}.",
        Reason.GRID_CONNECTION: f"The grid connection limits the site to {_kw(case.cap.limit_w)}.",
        Reason.NO_SIGNAL: f"{_unknown(case)} not known: {demand} are planned as they come.",
        Reason.SHIFTED_OUT: f"Dear at {_signals(case)}.",
        Reason.SHIFTED_IN: f"Cheap at {_signals(case)}.",
        Reason.MINIMUM: f"The expected {demand} need less than {minimum}.",
        Reason.DEMAND: f"The expected {demand} and {reserve}, at {_signals(case)}.",
    }
    return sentences[reason]


def _event_note(case: _Case, reason: Reason) -> str:
    if case.cap.event is None or reason is Reason.EVENT:
        return ""
    return f"Event '{case.cap.event.order.name}' ({_kw(case.cap.limit_w)}) is met without a cut."


def _shift_note(case: _Case) -> str:
    waiting = case.waiting_tokens_per_s
    demand = case.slot.demand_tokens_per_s
    if abs(waiting) <= _NOTABLE_RATIO * demand:
        return ""
    if waiting > 0:
        hours = f"{case.policy.deferral_s / 3600:.3g}"
        return f"{_share(waiting, demand)} of the demand waits, at most {hours} h."
    return f"{-waiting:.0f} tokens/s that waited are served here."


def _shortfall_note(case: _Case) -> str:
    shortfall = case.shortfall_tokens_per_s
    demand = case.slot.demand_tokens_per_s
    if shortfall <= _NOTABLE_RATIO * demand:
        return ""
    note = f"{shortfall:.0f} tokens/s ({_share(shortfall, demand)} of the demand) cannot be served"
    if case.cap.limit_w < case.floor_w:
        return f"{note}: the fleet cannot serve below {_kw(case.floor_w)}."
    if case.fleet_tokens_per_s < demand:
        return f"{note}: the fleet's most is {case.fleet_tokens_per_s:.0f} tokens/s."
    return f"{note}."


def _signals(case: _Case) -> str:
    parts = []
    if case.slot.price_per_mwh is not None:
        parts.append(f"{case.slot.price_per_mwh:.2f} {case.policy.currency}/MWh")
    if case.slot.carbon_g_per_kwh is not None:
        parts.append(f"{case.slot.carbon_g_per_kwh:.0f} gCO2eq/kWh")
    return " and ".join(parts)


def _unknown(case: _Case) -> str:
    missing = []
    if case.slot.price_per_mwh is None:
        missing.append("price")
    if case.slot.carbon_g_per_kwh is None and case.policy.carbon_price_per_tonne > 0:
        missing.append("carbon intensity")
    names = " and ".join(missing)
    return f"{names.capitalize()} {'are' if len(missing) > 1 else 'is'}"


def _kw(power_w: float) -> str:
    return f"{power_w / 1000:.2f} kW"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"
