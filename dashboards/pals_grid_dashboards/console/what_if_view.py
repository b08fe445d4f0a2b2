"""A what-if in words and rows, and its chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pals_grid.core.units import W_PER_KW
from pals_grid.counterfactual import names
from pals_grid.service.what_if import AS_IT_STANDS, FORESIGHT, WITH_CHANGES
from pals_grid_dashboards.console import chart_data, formats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pals_grid.core.events import DemandResponseEvent, EventRequest
    from pals_grid.core.intervals import Interval
    from pals_grid.counterfactual.course import Course, Outcome
    from pals_grid.service.what_if import Alternative, WhatIf
    from pals_grid_dashboards.console.local_time import LocalTime

TITLES = {
    AS_IT_STANDS: ("As it stands", "the plan by the site's policy, tariff and events"),
    WITH_CHANGES: ("With your changes", "the plan by what is filled in above"),
    names.NO_CONTROL: ("No control", "highest power limit, largest batch, all at once"),
    names.STATIC: ("Static limit", "the lowest GPU limit that serves the highest slot"),
    names.AS_IT_COMES: ("As it comes", "PALS Grid's operating points, nothing is moved"),
    names.PRICE_THRESHOLD: ("Price threshold", "what may wait is served below a price"),
    names.CARBON_THRESHOLD: ("Carbon threshold", "what may wait is served below an intensity"),
    FORESIGHT: ("Perfect foresight", ""),
}
QUANTITIES = {"price": "Price", "average_intensity": "Carbon", "demand": "Demand"}
_KEYS = {
    AS_IT_STANDS: "held",
    WITH_CHANGES: "changed",
    names.NO_CONTROL: "free",
    names.STATIC: "static",
    names.AS_IT_COMES: "comes",
    names.PRICE_THRESHOLD: "threshold",
    names.CARBON_THRESHOLD: "cleaner",
}
_SHOWN_AT_FIRST = frozenset({AS_IT_STANDS, WITH_CHANGES, names.NO_CONTROL})
NOTABLE_RATIO = 0.005
"""Shares of the tokens below this are not worth a word."""


@dataclass(frozen=True, slots=True)
class Row:
    """One alternative, with its differences from the plan as it stands as text; "" is none."""

    item: Alternative
    title: str
    hint: str
    is_held: bool
    cost_change: str
    carbon_change: str
    energy_change: str
    whole_change: str
    carried: str
    missed_ratio: float | None
    cost_range: str


def rows_of(found: WhatIf) -> tuple[Row, ...]:
    """Every alternative in the answer's order."""
    held = found.alternatives[0]
    return tuple(_row(item, held, found.currency) for item in found.alternatives)


def _row(item: Alternative, held: Alternative, currency: str) -> Row:
    title, hint = TITLES[item.name]
    sums, base = item.outcome, held.outcome
    is_held = item is held
    missed = sums.tokens_late + sums.tokens_lost
    return Row(
        item=item,
        title=title,
        hint=f"{hint} ({item.course.settings})" if item.course.settings else hint,
        is_held=is_held,
        cost_change="" if is_held else _change(sums.cost, base.cost),
        carbon_change="" if is_held else _change(sums.carbon_kg, base.carbon_kg),
        energy_change="" if is_held else _change(sums.energy_kwh, base.energy_kwh),
        whole_change="" if is_held else _change(item.whole.cost, held.whole.cost),
        carried=_carried(sums),
        missed_ratio=missed / sums.tokens_arrived if sums.tokens_arrived > 0 else None,
        cost_range=_range(item, currency),
    )


def _change(value: float | None, base: float | None) -> str:
    """``+12.4 %``; words where a percentage would mean nothing."""
    if value is None or base is None:
        return ""
    if abs(value - base) <= 5e-4 * abs(base):
        return "the same"
    if abs(base) < 1e-9:
        return "none before"
    ratio = (value - base) / abs(base)
    sign = "+" if ratio > 0 else formats.MINUS
    return f"{sign}{formats.with_unit(formats.number(abs(100 * ratio), 1), '%')}"


def _carried(sums: Outcome) -> str:
    """What the stretch leaves to the time after it, or has served from the time before."""
    if abs(sums.tokens_carried) <= NOTABLE_RATIO * sums.tokens_arrived:
        return ""
    amount = formats.tokens(abs(sums.tokens_carried))
    return f"{amount} left for later" if sums.tokens_carried > 0 else f"{amount} from before"


def _range(item: Alternative, currency: str) -> str:
    low, high = item.low, item.high
    if low is None or high is None or low.cost is None or high.cost is None:
        return ""
    return f"{formats.number(low.cost, 2)} to {formats.money(high.cost, currency)}"


def what_if_chart(
    found: WhatIf,
    local: LocalTime,
    events: Sequence[DemandResponseEvent],
    tried: EventRequest | None,
) -> dict[str, Any]:
    """Power of every alternative and limits of the plans; price; carbon."""
    during = found.interval
    seen = found.alternatives[1] if found.changed_budget else found.alternatives[0]
    budget = found.changed_budget or found.budget
    bands = chart_data.event_bands(events, during)
    if tried is not None:
        start_at, end_at = tried.start_at, tried.end_at
        band = {"from": chart_data.epoch_s(start_at), "to": chart_data.epoch_s(end_at)}
        bands.append({**band, "label": tried.name})
    inside = [i for i in budget.intervals if during.overlap_s(i.interval) > 0]
    return chart_data.chart(
        during,
        local,
        [
            [series for item in found.alternatives for series in _power(item, during)],
            _signal(seen.course, during, "price", f"{found.currency}/MWh"),
            _signal(seen.course, during, "carbon", "gCO₂/kWh"),
        ],
        bands=bands,
        reasons=chart_data.reason_spans(inside, local),
        choose=True,
    )


def _power(item: Alternative, during: Interval) -> Iterable[chart_data.Series]:
    course, key = item.course, _KEYS[item.name]
    title = TITLES[item.name][0]
    hidden = item.name not in _SHOWN_AT_FIRST
    if course.limit_w is not None:
        limits = (limit_w / W_PER_KW for limit_w in course.limit_w)
        points = _stepped(course, limits, during)
        yield chart_data.series(
            key, f"{title}: limit", points, unit="kW", decimals=2, dash="dotted", hidden=hidden
        )
    powers = (float(power_w) / W_PER_KW for power_w in course.power_w)
    points = _stepped(course, powers, during)
    label = f"{title}: power"
    yield chart_data.series(key, label, points, unit="kW", decimals=2, hidden=hidden)


def _signal(course: Course, during: Interval, key: str, unit: str) -> list[chart_data.Series]:
    is_price = key == "price"
    values = [s.price_per_mwh if is_price else s.carbon_g_per_kwh for s in course.slots]
    if all(value is None for value in values):
        return []
    label = "Price paid" if is_price else "Average carbon"
    points = _stepped(course, values, during)
    decimals = 2 if is_price else 0
    return [chart_data.series(key, label, points, unit=unit, decimals=decimals, scale=key)]


def _stepped(
    course: Course, values: Iterable[float | None], during: Interval
) -> tuple[list[float], list[float | None]]:
    return chart_data.stepped(
        (slot.interval, value)
        for slot, value in zip(course.slots, values, strict=True)
        if slot.interval.overlap_s(during) > 0
    )
