"""The form that orders an event: what was typed, what is wrong with it, the order itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from pals_grid.core.errors import InvalidValue
from pals_grid.core.events import EventRequest
from pals_grid.core.units import W_PER_KW
from pals_grid_dashboards.console.typed_number import read_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pals_grid_dashboards.console.local_time import LocalTime

T = TypeVar("T")

FIELDS = ("name", "start", "end", "order", "limit_kw", "reduction_pct", "notice", "ramp_min")
_FIELD_OF = {
    "start_at": "start",
    "end_at": "end",
    "limit_w": "limit_kw",
    "reduction_ratio": "reduction_pct",
    "notice_at": "notice",
    "ramp_s": "ramp_min",
}


@dataclass(slots=True)
class EventForm:
    """``typed`` goes back into the fields as it came; ``errors`` stand beside them."""

    typed: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    request: EventRequest | None = None

    def refuse(self, error: InvalidValue) -> None:
        """Put an error that came later beside its field, or above the form."""
        known = _FIELD_OF.get(error.field, error.field)
        place = known if known in FIELDS else "form"
        self.errors[place] = f"{error.bound[:1].upper()}{error.bound[1:]}."


def blank_form(local: LocalTime) -> EventForm:
    """An hour long, from the second full hour from now."""
    start = local.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)
    return EventForm(
        {
            **dict.fromkeys(FIELDS, ""),
            "start": local.form_value(start),
            "end": local.form_value(start + timedelta(hours=1)),
            "order": "limit",
            "ramp_min": "5",
        }
    )


def read_form(given: Mapping[str, str], local: LocalTime) -> EventForm:
    """Read every field, so that all that is wrong is said at once."""
    form = EventForm({name: given.get(name, "").strip() for name in FIELDS})
    start = _read(form, "start", lambda text: local.instant("start", text))
    end = _read(form, "end", lambda text: local.instant("end", text))
    ramp_min = _read(form, "ramp_min", lambda text: read_number("ramp_min", text), empty=0.0)
    notice = (
        _read(form, "notice", lambda text: local.instant("notice", text))
        if form.typed["notice"]
        else None
    )
    limit, reduction = _read_order(form)
    if not form.typed["name"]:
        form.errors["name"] = "Give it a name."
    if form.errors or start is None or end is None or ramp_min is None:
        return form
    try:
        form.request = EventRequest(
            name=form.typed["name"],
            start_at=start,
            end_at=end,
            limit_w=limit,
            reduction_ratio=reduction,
            notice_at=notice,
            ramp_s=ramp_min * 60,
        )
    except InvalidValue as error:
        form.refuse(in_form_words(error))
    return form


def _read_order(form: EventForm) -> tuple[float | None, float | None]:
    """Return the limit in W and the reduction as a ratio; one of them is None."""
    if form.typed["order"] == "reduction":
        percent = _read(form, "reduction_pct", lambda text: read_number("reduction_pct", text))
        return None, None if percent is None else percent / 100
    kilowatts = _read(form, "limit_kw", lambda text: read_number("limit_kw", text))
    return None if kilowatts is None else kilowatts * W_PER_KW, None


def _read(form: EventForm, name: str, read: Callable[[str], T], empty: T | None = None) -> T | None:
    text = form.typed[name]
    if not text:
        if empty is None:
            form.errors[name] = "Must be filled in."
        return empty
    try:
        return read(text)
    except InvalidValue as error:
        form.refuse(error)
        return None


def in_form_words(error: InvalidValue) -> InvalidValue:
    """Say a bound in the unit and words of the form."""
    words = {
        "end_at": "must be after the start",
        "limit_w": "must be from 0 to 10 000 000 kW",
        "reduction_ratio": "must be above 0 and at most 100 %",
        "notice_at": "must not be after the start",
        "ramp_s": "must be from 0 to 1440 minutes",
    }
    return InvalidValue(error.field, error.value, words.get(error.field, error.bound))
