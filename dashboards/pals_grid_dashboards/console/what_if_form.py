"""The form of a what-if: what was typed, what is wrong with it, the changes themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pals_grid.core.errors import InvalidValue
from pals_grid.core.events import EventRequest
from pals_grid.core.units import W_PER_KW
from pals_grid.service.what_if_changes import Changes
from pals_grid_dashboards.console import formats
from pals_grid_dashboards.console.event_form import in_form_words
from pals_grid_dashboards.console.typed_number import read_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.site import SitePolicy
    from pals_grid.service.tariffs import StoredTariff
    from pals_grid_dashboards.console.local_time import LocalTime

T = TypeVar("T")

EVENT_NAME = "What if"
_PERCENT = 0.01


@dataclass(frozen=True, slots=True)
class PolicyField:
    """A number of the policy as the form has it: ``factor`` makes the policy's value of it."""

    name: str
    of: str
    label: str
    unit: str
    factor: float = 1.0

    def held(self, policy: SitePolicy) -> str:
        """What holds now, for the hint under the field."""
        value = getattr(policy, self.of)
        return "now none" if value is None else f"now {self.shown(value)}"

    def shown(self, value: float) -> str:
        """A value of the policy as the form has it."""
        text = f"{value / self.factor:,.6g}".replace(",", formats.THIN)
        return formats.with_unit(text, self.unit)


def policy_fields(policy: SitePolicy) -> tuple[PolicyField, ...]:
    """The numbers that may be changed; a site with tiers has its own shares that may wait."""
    found = (
        PolicyField(
            "carbon_price", "carbon_price_per_tonne", "Carbon price", f"{policy.currency}/t"
        ),
        PolicyField("carbon_cap", "carbon_cap_kg_per_day", "Carbon cap a day", "kg"),
        PolicyField("maximum", "maximum_w", "Never above", "kW", W_PER_KW),
        PolicyField("minimum", "minimum_w", "Never below", "kW", W_PER_KW),
        PolicyField("reserve", "reserve_ratio", "Reserve above demand", "%", _PERCENT),
    )
    if policy.tiers:
        return found
    return (*found, PolicyField("deferrable", "deferrable_ratio", "May wait", "%", _PERCENT))


_DEMAND = PolicyField("demand", "demand_ratio", "Demand", "%", _PERCENT)
_TIER = re.compile(r"tiers\[(\d+)\]\.(\w+)")
_TIER_PARTS = {"value_per_mtoken": "The value of the tier's tokens"}
_SPAN = re.compile(r"must be from (\S+) to (\S+)")
OTHERS = (
    "from",
    "to",
    "demand",
    "event_start",
    "event_end",
    "event_limit",
    "event_cut",
    "tariff",
)
_PLACES = {
    "start_at": "from",
    "end_at": "to",
    "demand_ratio": "demand",
    "event.start_at": "event_start",
    "event.end_at": "event_end",
    "limit_w": "event_limit",
    "reduction_ratio": "event_cut",
    "limit_w, reduction_ratio": "event_limit",
}


@dataclass(slots=True)
class WhatIfForm:
    """``typed`` goes back into the fields as it came; ``errors`` stand beside them.

    ``start_at`` and ``end_at`` are None where the next day is meant.
    """

    typed: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    start_at: datetime | None = None
    end_at: datetime | None = None

    def refuse(self, error: InvalidValue, policy: SitePolicy) -> None:
        """Put an error beside its field, or above the form."""
        tier = _TIER.fullmatch(error.field)
        if tier is not None:
            self.errors.setdefault(f"tier-{tier[1]}", _tier_words(tier[2], error.bound))
            return
        of_policy = {item.of: item for item in policy_fields(policy)}
        held = _DEMAND if error.field == _DEMAND.of else of_policy.get(error.field)
        known = (*(item.name for item in of_policy.values()), *OTHERS)
        place = held.name if held is not None else _PLACES.get(error.field, error.field)
        bound = error.bound
        span = _SPAN.fullmatch(bound)
        if held is not None and span is not None:
            low, high = (held.shown(float(text)) for text in span.groups())
            bound = f"must be from {low} to {high}"
        bound = f"{bound[:1].upper()}{bound[1:]}"
        is_field = place in known or place.startswith("tier-")
        self.errors.setdefault(place if is_field else "form", f"{bound}.")


def _tier_words(of: str, bound: str) -> str:
    """Say a tier's bound in the form's words: its loss is in per cent, its value is not there."""
    if of == "loss_ratio":
        return "Must be from 0 % to 100 %."
    return f"{_TIER_PARTS.get(of, of)} {bound}."


def read_form(
    given: Mapping[str, str],
    policy: SitePolicy,
    tariffs: Sequence[StoredTariff],
    local: LocalTime,
) -> WhatIfForm:
    """Read every field, so that all that is wrong is said at once; an empty one changes nothing."""
    names = (*(item.name for item in policy_fields(policy)), *OTHERS, *tier_names(policy))
    form = WhatIfForm({name: given.get(name, "").strip() for name in names})
    reader = _Reader(form, policy, local)
    form.start_at, form.end_at = reader.instant("from"), reader.instant("to")
    demand = reader.number("demand")
    try:
        changes = Changes(
            policy=reader.policy(),
            event=reader.event(),
            demand_ratio=1.0 if demand is None else demand * _PERCENT,
        )
        tariff = reader.tariff(tariffs)
        form.changes = replace(changes, tariff=None if tariff is None else tariff.tariff)
    except InvalidValue as error:
        form.refuse(error, policy)
    return form


def tier_names(policy: SitePolicy) -> list[str]:
    """A field for each stated tier: what it may lose."""
    return [f"tier-{i}" for i in range(len(policy.tiers))]


class _Reader:
    def __init__(self, form: WhatIfForm, policy: SitePolicy, local: LocalTime) -> None:
        self._form = form
        self._policy = policy
        self._local = local

    def policy(self) -> dict[str, Any]:
        """What of the policy was typed."""
        found: dict[str, Any] = {}
        for item in policy_fields(self._policy):
            value = self.number(item.name)
            if value is not None:
                found[item.of] = value * item.factor
        losses = [self.number(name) for name in tier_names(self._policy)]
        if any(loss is not None for loss in losses):
            found["tiers"] = tuple(
                tier if loss is None else replace(tier, loss_ratio=loss * _PERCENT)
                for tier, loss in zip(self._policy.tiers, losses, strict=True)
            )
        return found

    def event(self) -> EventRequest | None:
        """The event, if anything of it was typed."""
        names = ("event_start", "event_end", "event_limit", "event_cut")
        if not any(self._form.typed[name] for name in names):
            return None
        for name in names[:2]:
            if not self._form.typed[name]:
                self._form.errors[name] = "Must be filled in for an event."
        start, end = self.instant("event_start"), self.instant("event_end")
        limit, cut = self.number("event_limit"), self.number("event_cut")
        if limit is None and cut is None and not self._form.errors:
            self._form.errors["event_limit"] = "Give a limit, or a reduction."
        elif limit is not None and cut is not None:
            self._form.errors["event_cut"] = "Give a limit or a reduction, not both."
        if self._form.errors or start is None or end is None:
            return None
        if end <= start:
            self._form.errors["event_end"] = "Must be after the start."
            return None
        try:
            return EventRequest(
                EVENT_NAME,
                start,
                end,
                limit_w=None if limit is None else limit * W_PER_KW,
                reduction_ratio=None if cut is None else cut * _PERCENT,
            )
        except InvalidValue as error:
            self._form.refuse(in_form_words(error), self._policy)
            return None

    def tariff(self, tariffs: Sequence[StoredTariff]) -> StoredTariff | None:
        """One of those stored."""
        text = self._form.typed["tariff"]
        if not text:
            return None
        found = next((item for item in tariffs if str(item.id) == text), None)
        if found is None:
            raise InvalidValue("tariff", text, "must be one of the site's tariffs")
        return found

    def number(self, name: str) -> float | None:
        """Read a number; None where the field is empty or no number."""
        return self._read(name, lambda text: read_number(name, text))

    def instant(self, name: str) -> datetime | None:
        """Read a local time; None where the field is empty or no time."""
        return self._read(name, lambda text: self._local.instant(name, text))

    def _read(self, name: str, read: Callable[[str], T]) -> T | None:
        text = self._form.typed[name]
        if not text:
            return None
        try:
            return read(text)
        except InvalidValue as error:
            self._form.refuse(error, self._policy)
            return None
