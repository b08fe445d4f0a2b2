"""Turn planned tokens into limits, each with the reason that an energy manager reads."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pals_grid.core.budget import BudgetInterval, Constraint, Reason
from pals_grid.core.substitution import source_words
from pals_grid.core.units import J_PER_KWH
from pals_grid.planner.costs import priced_carbon_g_per_kwh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.budget import PlanRequest, PlanSlot
    from pals_grid.core.fallback import SlotSource
    from pals_grid.planner.caps import Cap
    from pals_grid.planner.outcome import Outcome
    from pals_grid.planner.problem import Problem

NOTABLE_RATIO = 0.001
"""Shares of the demand below this are rounding, not decisions."""

_CAP_REASONS = {
    Constraint.EVENT: Reason.EVENT,
    Constraint.MAXIMUM: Reason.MAXIMUM,
    Constraint.GRID_CONNECTION: Reason.GRID_CONNECTION,
}


@dataclass(frozen=True, slots=True)
class _Case:
    """One interval's figures, for its reason and its sentence.

    ``ramped_w`` is the most that ramps from and to its neighbours leave.
    """

    request: PlanRequest
    slot: PlanSlot
    cap: Cap
    known: bool
    planned_tokens_per_s: float
    queued_tokens_per_s: float | None
    shortfall_tokens_per_s: float
    shed_tokens_per_s: float
    extra_tokens_per_s: float
    wanted_w: float
    expected_w: float
    floor_w: float
    fleet_tokens_per_s: float
    ramp: bool
    peak: str
    carbon_cap: bool
    shadow_per_kwh: float
    fallback: str
    wait_s: float
    ramped_w: float = float("inf")

    @property
    def limit_w(self) -> float:
        wanted_w = max(self.wanted_w, self.request.policy.minimum_w)
        return min(wanted_w, self.cap.limit_w, max(self.ramped_w, self.expected_w))

    @property
    def waiting_tokens_per_s(self) -> float:
        """Work that leaves the slot for a later one (negative: comes in from earlier ones)."""
        demand = self.slot.demand_tokens_per_s
        return demand - self.planned_tokens_per_s - self.shortfall_tokens_per_s

    @property
    def notable(self) -> float:
        return NOTABLE_RATIO * max(
            self.slot.demand_tokens_per_s, NOTABLE_RATIO * self.fleet_tokens_per_s
        )


def intervals_of(problem: Problem, outcome: Outcome) -> tuple[BudgetInterval, ...]:
    """Budget of each slot: the power of the planned tokens and the reserve, inside the bounds."""
    cases = [_case(problem, outcome, t) for t in range(len(problem.slots))]
    return tuple(_interval(case) for case in _ramped(problem, cases))


def _case(problem: Problem, outcome: Outcome, t: int) -> _Case:
    slot, cap, supply = problem.slots[t], problem.caps[t], problem.supplies[t]
    policy = problem.request.policy
    planned = float(outcome.planned[t])
    extra = float(problem.extra[t])
    lost = float(outcome.lost[t].sum())
    reserved_w = slot.reserved_w
    expected_w = reserved_w + supply.curve.power_w_at(planned)
    wanted_w = reserved_w + supply.curve.power_w_at((planned + extra) * (1 + policy.reserve_ratio))
    shed = lost > NOTABLE_RATIO * slot.demand_tokens_per_s and planned < 0.999 * problem.room[t]
    peaks = [
        peak.charge.name
        for peak in problem.peaks
        if outcome.at_peak[t] and any(t in window.slots for window in peak.windows)
    ]
    return _Case(
        request=problem.request,
        slot=slot,
        cap=cap,
        known=bool(problem.known[t]),
        planned_tokens_per_s=planned,
        queued_tokens_per_s=_queued(problem, outcome, t),
        shortfall_tokens_per_s=lost + float(outcome.late[t].sum()),
        shed_tokens_per_s=lost if shed else 0.0,
        extra_tokens_per_s=extra,
        # What is not to be served must not be let in by the reserve.
        wanted_w=expected_w if shed else wanted_w,
        expected_w=min(expected_w, cap.limit_w),
        floor_w=reserved_w + supply.curve.floor_w,
        fleet_tokens_per_s=supply.curve.max_tokens_per_s,
        ramp=bool(outcome.at_ramp[t]),
        peak=" and ".join(peaks),
        carbon_cap=bool(outcome.at_carbon_cap[t]),
        shadow_per_kwh=float(outcome.shadow_per_j[t]) * J_PER_KWH,
        fallback=outcome.fallback,
        wait_s=max((queue.wait_s for queue in problem.work.queues), default=0.0),
    )


def _ramped(problem: Problem, cases: list[_Case]) -> list[_Case]:
    """Lower limits so that none is further above its neighbour than the ramp allows."""
    ramp_w_per_min = problem.request.policy.ramp_w_per_min
    if ramp_w_per_min is None:
        return cases
    minutes = problem.duration_s / 60
    steps_w = [ramp_w_per_min * float(a + b) / 2 for a, b in itertools.pairwise(minutes)]
    limits_w = [case.limit_w for case in cases]
    before_w = problem.request.power_before_w
    if before_w is not None:
        limits_w[0] = min(limits_w[0], before_w + ramp_w_per_min * float(minutes[0]) / 2)
    _clamp(limits_w, steps_w)
    limits_w.reverse()
    _clamp(limits_w, steps_w[::-1])
    limits_w.reverse()
    return [replace(case, ramped_w=limit_w) for case, limit_w in zip(cases, limits_w, strict=True)]


def _clamp(limits_w: list[float], steps_w: Sequence[float]) -> None:
    for i, step_w in enumerate(steps_w):
        limits_w[i + 1] = min(limits_w[i + 1], limits_w[i] + step_w)


def _queued(problem: Problem, outcome: Outcome, t: int) -> float | None:
    """Throughput of work that may wait; None where the site has none such."""
    return float(outcome.waiting_served[t].sum()) if problem.work.queues else None


def _interval(case: _Case) -> BudgetInterval:
    reason = _reason(case)
    return BudgetInterval(
        interval=case.slot.interval,
        limit_w=case.limit_w,
        reason=reason,
        explanation=_explain(case, reason),
        price_per_mwh=case.slot.price_per_mwh,
        carbon_g_per_kwh=case.slot.carbon_g_per_kwh,
        demand_tokens_per_s=case.slot.demand_tokens_per_s,
        planned_tokens_per_s=case.planned_tokens_per_s,
        expected_power_w=case.expected_w,
        shortfall_tokens_per_s=case.shortfall_tokens_per_s,
        event_id=case.cap.event.id if case.cap.event else None,
        shadow_price_per_kw_h=case.shadow_per_kwh,
        peak_risk_per_mwh=case.slot.peak_risk_per_mwh,
        price_source=case.slot.price_source,
        carbon_source=case.slot.carbon_source,
        waiting_tokens_per_s=case.queued_tokens_per_s,
    )


def _reason(case: _Case) -> Reason:
    """Return the first that applies; an event that does not bind leaves the reason alone."""
    if case.wanted_w >= case.cap.limit_w or case.request.policy.minimum_w > case.cap.limit_w:
        return _CAP_REASONS[case.cap.constraint]
    if case.ramped_w < case.wanted_w - 1 or (case.ramp and case.shed_tokens_per_s > case.notable):
        return Reason.RAMP
    if not case.known:
        return Reason.NO_SIGNAL
    if case.fallback:
        return Reason.FALLBACK
    return _chosen(case)


def _chosen(case: _Case) -> Reason:
    """Why the programme planned as it did where nothing else set the limit."""
    if case.waiting_tokens_per_s + case.shed_tokens_per_s > case.notable:
        if case.peak:
            return Reason.PEAK
        if case.carbon_cap:
            return Reason.CARBON_CAP
        return Reason.SHED if case.shed_tokens_per_s > case.notable else Reason.SHIFTED_OUT
    if case.waiting_tokens_per_s < -case.notable:
        return Reason.SHIFTED_IN
    return Reason.MINIMUM if case.request.policy.minimum_w > case.wanted_w else Reason.DEMAND


def _explain(case: _Case, reason: Reason) -> str:
    parts = [_because(case, reason), _event_note(case, reason), _reserved_note(case)]
    parts += [_shift_note(case), _shortfall_note(case), _worth_note(case)]
    return " ".join(part for part in parts if part)


def _because(case: _Case, reason: Reason) -> str:
    policy = case.request.policy
    demand = f"{case.slot.demand_tokens_per_s:.0f} tokens/s"
    cap = f"{case.cap.words} limits the site to {_kw(case.cap.limit_w)}."
    minimum = f"the site's minimum of {_kw(policy.minimum_w)}"
    sentences = {
        Reason.EVENT: cap,
        Reason.GRID_CONNECTION: cap,
        Reason.MAXIMUM: cap,
        Reason.RAMP: f"The ramp of {_kw(policy.ramp_w_per_min or 0)} a minute"
        f" limits the site to {_kw(case.limit_w)}.",
        Reason.NO_SIGNAL: f"{_unknown(case)} not known: {demand} are planned as they come.",
        Reason.FALLBACK: f"No optimum ({case.fallback}): {demand} are planned as they come.",
        Reason.PEAK: f"Held at {_kw(case.expected_w)} for the charge on the peak '{case.peak}'.",
        Reason.CARBON_CAP: f"Held at {_kw(case.expected_w)} by the day's carbon cap.",
        Reason.SHED: f"At {_signals(case)} a token costs more than it is worth.",
        Reason.SHIFTED_OUT: f"Dear at {_signals(case)}.",
        Reason.SHIFTED_IN: f"Cheap at {_signals(case)}.",
        Reason.MINIMUM: f"The expected {demand} need less than {minimum}.",
        Reason.DEMAND: f"The expected {demand} and {_reserve(case)}, at {_signals(case)}.",
    }
    return sentences[reason]


def _reserve(case: _Case) -> str:
    reserve = f"a reserve of {100 * case.request.policy.reserve_ratio:.0f} %"
    if case.extra_tokens_per_s <= case.notable:
        return reserve
    return f"{reserve} above {case.extra_tokens_per_s:.0f} tokens/s more (upper forecast)"


def _event_note(case: _Case, reason: Reason) -> str:
    if case.cap.event is None or reason is Reason.EVENT:
        return ""
    return f"{case.cap.words} ({_kw(case.cap.limit_w)}) is met without a cut."


def _reserved_note(case: _Case) -> str:
    if case.slot.reserved_w <= 0:
        return ""
    return f"{_kw(case.slot.reserved_w)} are kept for nodes that cannot be reached."


def _shift_note(case: _Case) -> str:
    waiting = case.waiting_tokens_per_s
    if abs(waiting) <= case.notable:
        return ""
    if waiting > 0:
        share = _share(waiting, case.slot.demand_tokens_per_s)
        return f"{share} of the demand waits, at most {case.wait_s / 3600:.3g} h."
    return f"{-waiting:.0f} tokens/s that waited are served here."


def _shortfall_note(case: _Case) -> str:
    shortfall = case.shortfall_tokens_per_s
    demand = case.slot.demand_tokens_per_s
    if shortfall <= case.notable:
        return ""
    share = f" ({_share(shortfall, demand)} of the demand)" if demand > 0 else ""
    if case.shed_tokens_per_s > case.notable:
        return f"{shortfall:.0f} tokens/s{share} are not served."
    note = f"{shortfall:.0f} tokens/s{share} cannot be served"
    if case.cap.limit_w < case.floor_w:
        return f"{note}: the fleet cannot serve below {_kw(case.floor_w)}."
    if case.fleet_tokens_per_s < demand:
        return f"{note}: the fleet's most is {case.fleet_tokens_per_s:.0f} tokens/s."
    return f"{note}."


def _worth_note(case: _Case) -> str:
    if case.shadow_per_kwh <= 0:
        return ""
    currency = case.request.policy.currency
    return f"One more kW would be worth {case.shadow_per_kwh:.3g} {currency} an hour."


def _signals(case: _Case) -> str:
    parts = []
    policy = case.request.policy
    if case.slot.price_per_mwh is not None:
        price = f"{case.slot.price_per_mwh:.2f} {policy.currency}/MWh"
        parts.append(price + _source_note(case.slot.price_source))
    if case.slot.peak_risk_per_mwh > 0:
        risk = f"{case.slot.peak_risk_per_mwh:.2f} {policy.currency}/MWh"
        parts.append(f"{risk} for the risk of the grid's peak")
    if policy.marginal_carbon_ratio > 0:
        carbon = priced_carbon_g_per_kwh(policy, case.slot)
    else:
        carbon = case.slot.carbon_g_per_kwh
    if carbon is not None:
        parts.append(f"{carbon:.0f} gCO2eq/kWh" + _source_note(case.slot.carbon_source))
    return " and ".join(parts)


def _source_note(source: SlotSource | None) -> str:
    """Name a substitute where it matters: beside the figure that it gave."""
    if source is None or not source.is_substitute:
        return ""
    return f" ({source_words(source)})"


def _unknown(case: _Case) -> str:
    missing = []
    policy = case.request.policy
    if case.slot.price_per_mwh is None:
        missing.append("price")
    carbon = priced_carbon_g_per_kwh(policy, case.slot)
    if carbon is None and policy.carbon_price_per_tonne > 0:
        missing.append("carbon intensity")
    names = " and ".join(missing)
    return f"{names.capitalize()} {'are' if len(missing) > 1 else 'is'}"


def _kw(power_w: float) -> str:
    return f"{power_w / 1000:.2f} kW"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole > 0 else "all"
