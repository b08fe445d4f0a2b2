"""The form of a tariff: what was typed, what is wrong with it, the tariff itself."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pals_grid.core.errors import InvalidValue
from pals_grid.core.tariff_document import read_tariff, write_tariff
from pals_grid_dashboards.console.tariff_words import (
    days_text,
    months_text,
    read_days,
    read_months,
)
from pals_grid_dashboards.console.typed_number import read_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pals_grid.core.tariff import Tariff
    from pals_grid_dashboards.console.local_time import LocalTime

FIELDS = ("name", "valid_from", "factor", "from_currency", "rate", "as_of", "holidays")
ROWS: Mapping[str, tuple[str, ...]] = {
    "adders": ("name", "price", "period"),
    "taxes": ("name", "amount", "of"),
    "periods": ("name", "start", "end", "days", "months", "on_holidays"),
    "demand_charges": ("name", "price", "window", "period", "ratchet", "ratchet_months"),
    "coincident_peaks": ("name", "price", "start", "end", "probability"),
}
"""The lists of a tariff, each with the fields of one row."""
CHOICES = {"of", "on_holidays", "window"}
"""Fields that always have a value: a row with nothing else is blank."""
_ROW = re.compile(r"(\w+)-(\d{1,4})-(\w+)")
_PLACES = {
    "valid_from_at": "valid_from",
    "conversion.from_currency": "from_currency",
    "conversion.rate": "rate",
    "conversion.as_of": "as_of",
    "price_per_mwh": "price",
    "price_per_kw": "price",
    "in_period": "period",
    "window_s": "window",
    "ratchet_ratio": "ratchet",
    "probability_ratio": "probability",
    "start_at": "start",
    "end_at": "end",
    "ratio": "amount",
    "holidays": "holidays",
}
_HOUR = re.compile(r"hours\[(\d+)\]\.")
_SPAN = re.compile(r"must be from (\S+) to (\S+)")
_PATH = re.compile(r"(\w+)\[(\d+)\](?:\.(.+))?")


@dataclass(slots=True)
class TariffForm:
    """``typed`` goes back into the fields as it came; ``errors`` stand beside them."""

    typed: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    tariff: Tariff | None = None

    def rows(self, section: str) -> list[int]:
        """Rows to show: those that were typed, and a blank one to add another."""
        held = self.typed_rows(section)
        return [*held, next(i for i in range(len(held) + 1) if i not in held)]

    def typed_rows(self, section: str) -> list[int]:
        """Rows with anything in them, however many there are: none is lost."""
        names = set(ROWS[section]) - CHOICES
        found = (_ROW.fullmatch(name) for name, text in self.typed.items() if text)
        return sorted({int(at[2]) for at in found if at and at[1] == section and at[3] in names})

    def refuse(self, place: str, bound: str) -> None:
        """Put an error beside its field; the first one said stays."""
        self.errors.setdefault(place, f"{bound[:1].upper()}{bound[1:]}.")


def digest(tariff: Tariff) -> str:
    """What a preview was of, so that nothing else is saved."""
    text = json.dumps(write_tariff(tariff), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def blank_form(tariff: Tariff | None, local: LocalTime) -> TariffForm:
    """Fill the form with the tariff in force, from the next midnight; else with a plain one."""
    today = local.days(local.today, local.today)
    if tariff is None:
        start = {"name": "Tariff", "valid_from": local.form_value(today.start_at), "factor": "1"}
        return TariffForm(start)
    typed = {
        "name": tariff.name,
        "valid_from": local.form_value(today.end_at),
        "factor": f"{tariff.factor:.12g}",
        "holidays": ", ".join(day.isoformat() for day in tariff.holidays),
    }
    if tariff.conversion is not None:
        held = tariff.conversion
        typed |= {"from_currency": held.from_currency, "rate": f"{held.rate:.12g}"}
        typed["as_of"] = held.as_of.isoformat()
    for section, rows in _written(tariff, local).items():
        for i, row in enumerate(rows):
            typed |= {f"{section}-{i}-{name}": text for name, text in row.items()}
    return TariffForm(typed)


def read_form(given: Mapping[str, str], local: LocalTime) -> TariffForm:
    """Read every field, so that what is no number or time is said at once."""
    form = TariffForm({name: text.strip() for name, text in given.items()})
    reader = _Reader(form, local)
    document = reader.document()
    if form.errors:
        return form
    try:
        form.tariff = read_tariff(document)
    except InvalidValue as error:
        form.refuse(reader.place(error.field), in_form_words(error))
    return form


def in_form_words(error: InvalidValue) -> str:
    """Say a bound and the value in the form's unit: ratios are typed as per cent."""
    span = _SPAN.fullmatch(error.bound)
    if span is None or not error.field.endswith("ratio") or not isinstance(error.value, float):
        return f"{error.bound}, got {error.value}"
    low, high, value = (100 * float(text) for text in (*span.groups(), error.value))
    return f"must be from {low:g} % to {high:g} %, got {value:g} %"


def _written(tariff: Tariff, local: LocalTime) -> dict[str, list[dict[str, str]]]:
    return {
        "adders": [
            {"name": a.name, "price": f"{a.price_per_mwh:.12g}", "period": a.in_period or ""}
            for a in tariff.adders
        ],
        "taxes": [
            {"name": t.name, "amount": f"{100 * t.ratio:.12g}", "of": "percent"}
            if t.ratio is not None
            else {"name": t.name, "amount": f"{t.price_per_mwh:.12g}", "of": "per_mwh"}
            for t in tariff.taxes
        ],
        "periods": [
            {
                "name": p.name,
                "start": p.start,
                "end": p.end,
                "days": days_text(p.days),
                "months": months_text(p.months),
                "on_holidays": p.holidays.value,
            }
            for p in tariff.periods
        ],
        "demand_charges": [
            {
                "name": d.name,
                "price": f"{d.price_per_kw:.12g}",
                "window": str(d.window_s),
                "period": d.in_period or "",
                "ratchet": f"{100 * d.ratchet_ratio:.12g}" if d.ratchet_ratio else "",
                "ratchet_months": str(d.ratchet_months) if d.ratchet_months else "",
            }
            for d in tariff.demand_charges
        ],
        "coincident_peaks": [
            {
                "name": peak.name,
                "price": f"{peak.price_per_kw:.12g}",
                "start": local.form_value(hour.start_at),
                "end": local.form_value(hour.end_at),
                "probability": f"{100 * hour.probability_ratio:.12g}",
            }
            for peak in tariff.coincident_peaks
            for hour in peak.hours
        ],
    }


class _Reader:
    """Turns what was typed into a tariff's document, and errors' paths back into fields."""

    def __init__(self, form: TariffForm, local: LocalTime) -> None:
        self._form = form
        self._local = local
        self._rows: dict[str, list[int]] = {}
        self._hours: list[list[int]] = []

    def document(self) -> dict[str, Any]:
        """The tariff as JSON."""
        found: dict[str, Any] = {
            "name": self._text("name"),
            "valid_from_at": self._instant("valid_from"),
            "factor": self._number("factor"),
            "holidays": re.findall(r"[^\s,;]+", self._text("holidays")),
            "conversion": self._conversion(),
            "adders": self._section("adders", self._adder),
            "taxes": self._section("taxes", self._tax),
            "periods": self._section("periods", self._period),
            "demand_charges": self._section("demand_charges", self._demand_charge),
        }
        found["coincident_peaks"] = self._coincident_peaks()
        return found

    def place(self, path: str) -> str:
        """Field of the form that an error's path means; ``form`` where it means none."""
        match = _PATH.fullmatch(path)
        if match is None:
            place = _PLACES.get(path, path)
            return place if place in FIELDS else "form"
        section, index, name = match.groups()
        if section not in ROWS:
            return _PLACES.get(section, "form")
        rows = self._rows.get(section, [])
        row = rows[int(index)] if int(index) < len(rows) else 0
        last = (name or "name").rpartition(".")[2].partition("[")[0]
        hour = _HOUR.match(name or "")
        if section == "coincident_peaks" and hour is not None:
            row = self._hours[int(index)][int(hour[1])]
        known = {"holidays": "on_holidays"} if section == "periods" else _PLACES
        place = known.get(last, last)
        if section == "taxes" and place == "price":
            place = "amount"
        return f"{section}-{row}-{place}" if place in ROWS[section] else f"{section}-{row}-name"

    def _section(self, section: str, read: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
        rows = self._form.typed_rows(section)
        self._rows[section] = rows
        return [read(f"{section}-{i}") for i in rows]

    def _adder(self, at: str) -> dict[str, Any]:
        price = self._number(f"{at}-price")
        return {"name": self._text(f"{at}-name"), "price_per_mwh": price, **self._in(at)}

    def _tax(self, at: str) -> dict[str, Any]:
        amount = self._number(f"{at}-amount")
        name = self._text(f"{at}-name")
        if self._text(f"{at}-of") == "per_mwh":
            return {"name": name, "price_per_mwh": amount}
        return {"name": name, "ratio": amount / 100}

    def _period(self, at: str) -> dict[str, Any]:
        return {
            "name": self._text(f"{at}-name"),
            "start": self._text(f"{at}-start") or "00:00",
            "end": self._text(f"{at}-end") or "24:00",
            "days": self._read(f"{at}-days", read_days),
            "months": self._read(f"{at}-months", read_months),
            "holidays": self._text(f"{at}-on_holidays") or "as_usual",
        }

    def _demand_charge(self, at: str) -> dict[str, Any]:
        ratchet = self._number(f"{at}-ratchet", empty=0.0)
        return {
            "name": self._text(f"{at}-name"),
            "price_per_kw": self._number(f"{at}-price"),
            "window_s": self._number(f"{at}-window", empty=900.0),
            "ratchet_ratio": ratchet / 100,
            "ratchet_months": self._number(f"{at}-ratchet_months", empty=0.0),
            **self._in(at),
        }

    def _coincident_peaks(self) -> list[dict[str, Any]]:
        """Join hours of the same name and price: one charge, several hours at risk."""
        found: dict[tuple[str, float], dict[str, Any]] = {}
        rows: dict[tuple[str, float], list[int]] = {}
        hours = self._section("coincident_peaks", self._risk_hour)
        for row, hour in zip(self._rows["coincident_peaks"], hours, strict=True):
            key = hour.pop("name"), hour.pop("price_per_kw")
            held = found.setdefault(key, {"name": key[0], "price_per_kw": key[1], "hours": []})
            held["hours"].append(hour)
            rows.setdefault(key, []).append(row)
        self._hours = list(rows.values())
        self._rows["coincident_peaks"] = [held[0] for held in self._hours]
        return list(found.values())

    def _risk_hour(self, at: str) -> dict[str, Any]:
        return {
            "name": self._text(f"{at}-name"),
            "price_per_kw": self._number(f"{at}-price"),
            "start_at": self._instant(f"{at}-start"),
            "end_at": self._instant(f"{at}-end"),
            "probability_ratio": self._number(f"{at}-probability", empty=100.0) / 100,
        }

    def _conversion(self) -> dict[str, Any] | None:
        if not any(self._text(name) for name in ("from_currency", "rate", "as_of")):
            return None
        return {
            "from_currency": self._text("from_currency").upper(),
            "rate": self._number("rate"),
            "as_of": self._text("as_of"),
        }

    def _in(self, at: str) -> dict[str, str | None]:
        return {"in_period": self._text(f"{at}-period") or None}

    def _text(self, name: str) -> str:
        return self._form.typed.get(name, "")

    def _number(self, name: str, empty: float | None = None) -> float:
        text = self._text(name)
        if not text and empty is not None:
            return empty
        try:
            return read_number(name, text)
        except InvalidValue as error:
            self._form.refuse(name, error.bound if text else "must be filled in")
            return 0.0

    def _instant(self, name: str) -> str:
        try:
            return self._local.instant(name, self._text(name)).isoformat()
        except InvalidValue as error:
            self._form.refuse(name, error.bound)
            return self._local.now.isoformat()

    def _read(self, name: str, read: Callable[[str], list[Any]]) -> list[Any]:
        try:
            return read(self._text(name))
        except InvalidValue as error:
            self._form.refuse(name, f"{error.bound}, got {error.value}")
            return []
