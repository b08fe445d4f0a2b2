"""NESO Carbon Intensity: average carbon intensity of Great Britain, without a key.

Source: https://carbon-intensity.github.io/api-definitions. Half-hour slots; the nation has a
forecast and, after the fact, an actual; the regions have a forecast alone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    load_json,
    raise_for_status,
    read_member,
    read_number,
    read_options,
    refusing,
    require_address,
    require_match,
)
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import floor_to, format_minute, parse_instant, slots
from pals_grid.core.ports import ConnectorOption, Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind, last_of_kind, touching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext, Pace

NAME = "NESO Carbon Intensity"
UNIT = "gCO2eq/kWh"
HALF_HOUR = timedelta(minutes=30)
# The provider takes 14 days; one less leaves room for the slot before.
MAX_WINDOW = timedelta(days=13)
KINDS = {"forecast": ValueKind.FORECAST, "actual": ValueKind.MEASURED}


class Neso:
    """Average carbon intensity of the nation, a region or a postcode, gCO2eq/kWh."""

    summary: ClassVar[str] = "NESO: average carbon intensity in Great Britain, 48 h forecast"
    quantity: ClassVar[Quantity] = Quantity.AVERAGE_INTENSITY
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    rhythm: ClassVar[Rhythm | None] = Rhythm(every_s=1800.0, late_s=1800.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("region", "region number, 1 to 17; empty for the nation", ""),
        ConnectorOption("postcode", "outward postcode instead of a region, such as RG10", ""),
        ConnectorOption("base_url", "address of the API", "https://api.carbonintensity.org.uk"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._region = given["region"]
        self._postcode = require_match(
            "options.postcode",
            given["postcode"].upper(),
            "([A-Z]{1,2}[0-9][A-Z0-9]?)?",
            "must be an outward postcode",
        )
        if self._region and not (self._region.isdecimal() and 1 <= int(self._region) <= 17):
            raise InvalidValue("options.region", self._region, "must be from 1 to 17")
        if self._region and self._postcode:
            raise InvalidValue("options.postcode", self._postcode, "must be empty beside region")
        self._base_url = require_address("options.base_url", given["base_url"])

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch what is past in steps of 13 days and up to 48 h of what is ahead."""
        found: list[Observation] = []
        for path in self._paths(window, context.fetched_at):
            response = context.http.get(self._base_url + path)
            raise_for_status(response)
            found += self.parse(response.body, context.fetched_at)
        # Two answers share the present slot; the later one is the fresher.
        return last_of_kind(touching(found, window))

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one answer, national or of one region.

        Raises:
            FeedRejected: when the payload is the provider's own error.
            FeedDataInvalid: when it holds no intensities.
        """
        with refusing(NAME):
            document = load_json(payload)
            if isinstance(document, dict) and isinstance(document.get("error"), dict):
                error = document["error"]
                raise FeedRejected(f"{NAME} says: {error.get('code')}, {error.get('message')}")
            found = [item for slot in self._slots(document) for item in _read_slot(slot, known_at)]
        return sorted(found, key=lambda item: (item.start_at, item.kind))

    def _paths(self, window: Interval, now: datetime) -> Iterator[str]:
        start_at = floor_to(window.start_at, HALF_HOUR)
        present_at = floor_to(now, HALF_HOUR)
        # The present slot has no actual yet: it is asked for with what is ahead.
        past_end_at = min(window.end_at, present_at)
        for part in slots(start_at, past_end_at, MAX_WINDOW):
            yield self._path(format_minute(part.start_at), format_minute(part.end_at))
        if window.end_at > present_at:
            yield self._path(format_minute(max(start_at, present_at)), "fw48h")

    def _path(self, start: str, end: str) -> str:
        if self._region:
            return f"/regional/intensity/{start}/{end}/regionid/{self._region}"
        if self._postcode:
            return f"/regional/intensity/{start}/{end}/postcode/{self._postcode}"
        return f"/intensity/{start}/{end}"

    def _slots(self, document: object) -> list[object]:
        """Take the slots out of any of the three envelopes."""
        data = document.get("data") if isinstance(document, dict) else None
        if isinstance(data, list) and len(data) == 1 and _is_region(data[0]):
            data = data[0]
        if isinstance(data, list) and not any(_is_region(entry) for entry in data):
            if self._region or self._postcode:
                raise InvalidValue("data", "national values", "must be those of the region")
            return data
        if not _is_region(data):
            raise InvalidValue("data", type(data).__name__, "must be slots, or those of one region")
        self._check_place(data)
        return read_member(data, "data", list)

    def _check_place(self, region: object) -> None:
        if self._region and read_number("regionid", _get(region, "regionid")) != int(self._region):
            raise InvalidValue("regionid", str(_get(region, "regionid")), f"must be {self._region}")
        if self._postcode and _get(region, "postcode") != self._postcode:
            shown = str(_get(region, "postcode"))
            raise InvalidValue("postcode", shown, f"must be {self._postcode}")


def _is_region(entry: object) -> bool:
    return isinstance(entry, dict) and "regionid" in entry and "data" in entry


def _get(record: object, name: str) -> object:
    return record.get(name) if isinstance(record, dict) else None


def _read_slot(slot: object, known_at: datetime) -> Iterator[Observation]:
    start_at = parse_instant("from", read_member(slot, "from", str))
    end_at = parse_instant("to", read_member(slot, "to", str))
    intensity = read_member(slot, "intensity", dict)
    if "forecast" not in intensity:
        raise InvalidValue("intensity.forecast", None, "must be there")
    for name, kind in KINDS.items():
        if intensity.get(name) is not None:
            value = float(read_number(f"intensity.{name}", intensity[name]))
            yield Observation(start_at, end_at, value, UNIT, kind, known_at)
