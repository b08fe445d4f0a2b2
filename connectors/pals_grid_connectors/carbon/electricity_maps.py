"""Electricity Maps v3: average carbon intensity of a zone, measured, estimated and forecast.

Source: https://portal.electricitymaps.com/docs/api. Times are interval starts. A value that the
provider estimated (``isEstimated``) is a FORECAST here, though its hour is past: it is replaced by
a measured one within hours. A free key reads one zone's last 24 h and no forecast.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    load_json,
    raise_for_status,
    read_member,
    read_nullable,
    read_options,
    refuse_error,
    refusing,
    require_address,
    require_choice,
    require_match,
    require_option,
    require_secret,
    words_of,
)
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import floor_to, format_minute, parse_instant, slots
from pals_grid.core.ports import ConnectorOption, Pace, Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind, last_of_kind, touching

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext

NAME = "Electricity Maps"
UNIT = "gCO2eq/kWh"
# Step and the longest past that one call gives.
GRANULARITIES = {
    "5_minutes": (timedelta(minutes=5), timedelta(days=1)),
    "15_minutes": (timedelta(minutes=15), timedelta(days=1)),
    "hourly": (timedelta(hours=1), timedelta(days=10)),
}
HISTORY = timedelta(hours=24)
HORIZONS_H = ("6", "24", "48", "72")
CHOICES = {
    "emission_factor_type": ("lifecycle", "direct"),
    "disable_estimations": ("false", "true"),
    "granularity": tuple(GRANULARITIES),
    "horizon_h": HORIZONS_H,
    "forecast": ("auto", "yes", "no"),
}

_log = logging.getLogger(__name__)


class ElectricityMaps:
    """Average carbon intensity of one zone, gCO2eq/kWh."""

    summary: ClassVar[str] = "Electricity Maps: average carbon intensity worldwide, with a key"
    quantity: ClassVar[Quantity] = Quantity.AVERAGE_INTENSITY
    needs_secret: ClassVar[bool] = True
    # What a free key may ask; a paid one may ask more, and needs no more.
    pace: ClassVar[Pace | None] = Pace(requests=50, per_s=3600.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("zone", "zone key such as DE, FR or US-CAL-CISO; needed to fetch", ""),
        ConnectorOption("emission_factor_type", "lifecycle or direct", "lifecycle"),
        ConnectorOption("disable_estimations", "true leaves estimated values out", "false"),
        ConnectorOption("granularity", "hourly, 15_minutes or 5_minutes", "hourly"),
        ConnectorOption("horizon_h", f"hours of forecast: {', '.join(HORIZONS_H)}", "48"),
        ConnectorOption("forecast", "yes, no, or auto: where the key's plan has it", "auto"),
        ConnectorOption("base_url", "address of the API", "https://api.electricitymaps.com/v3"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        for name, allowed in CHOICES.items():
            require_choice(f"options.{name}", given[name], allowed)
        self._zone = require_match(
            "options.zone",
            given["zone"],
            "([A-Z]{2}[A-Za-z0-9-]*)?",
            "must be a zone key such as DE",
        )
        self._base_url = require_address("options.base_url", given["base_url"])
        self._options = given
        self._step, self._longest = GRANULARITIES[given["granularity"]]

    @property
    def rhythm(self) -> Rhythm:
        """Each step; 95 of 100 values are there within three hours."""
        return Rhythm(every_s=self._step.total_seconds(), late_s=3 * 3600.0)

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the last 24 h and the present, what lies before them, and the forecast.

        What a free key may not ask is left out where the rest of the window is there.
        """
        require_secret(NAME, "a key", context)
        require_option(NAME, "zone", self._zone)
        found = touching(self._fetch_parts(window, context), window)
        return last_of_kind(sorted(found, key=lambda item: item.known_at))

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one answer: latest, history or range of the past, forecast.

        Raises:
            FeedRejected: when the payload is the provider's own error.
            FeedDataInvalid: when it holds no carbon intensities.
        """
        with refusing(NAME):
            document = load_json(payload)
            if not isinstance(document, dict):
                raise InvalidValue("payload", type(document).__name__, "must be an object")
            if "countryCode" in document and "status" in document:
                return _read_old_answer(document)
            if "zone" not in document:
                refuse_error(NAME, document)
                raise InvalidValue("zone", None, "must be there")
            self._check_frame(document)
            found = list(self._read(document, known_at))
        return sorted(found, key=lambda item: item.start_at)

    def _fetch_parts(self, window: Interval, context: FetchContext) -> Iterator[Observation]:
        now = context.fetched_at
        recent = window.end_at > now - HISTORY
        if recent and window.start_at < now:
            # First what every key may ask: a refusal here is about the key or the zone.
            for path in ("history", "latest"):
                yield from self._ask(path, {}, context)
        oldest_at = floor_to(window.start_at, self._step)
        before_at = floor_to(now, self._step) - HISTORY + self._step
        for part in slots(oldest_at, min(window.end_at, before_at), self._longest):
            asked = {"start": format_minute(part.start_at), "end": format_minute(part.end_at)}
            yield from self._ask("past-range", asked, context, may_be_refused=recent)
        if window.end_at > now and self._options["forecast"] != "no":
            asked = {"horizonHours": self._options["horizon_h"]}
            auto = self._options["forecast"] == "auto"
            yield from self._ask("forecast", asked, context, may_be_refused=auto)

    def _ask(
        self,
        path: str,
        asked: Mapping[str, str],
        context: FetchContext,
        *,
        may_be_refused: bool = False,
    ) -> list[Observation]:
        params = {
            "zone": self._zone,
            "emissionFactorType": self._options["emission_factor_type"],
            "disableEstimations": self._options["disable_estimations"],
            "temporalGranularity": self._options["granularity"],
            **asked,
        }
        url = f"{self._base_url}/carbon-intensity/{path}"
        response = context.http.get(url, params, {"auth-token": context.secret or ""})
        # The provider answers 401, not 403, to a good key that asks beyond its plan.
        if may_be_refused and response.status in {401, 403}:
            _log.info("%s leaves out %s: %s", NAME, path, words_of(response)[:300])
            return []
        raise_for_status(response, words_of(response))
        return self.parse(response.body, context.fetched_at)

    def _check_frame(self, document: dict[str, object]) -> None:
        """Refuse another zone's answer, another step's, and a breakdown of power."""
        if "powerConsumptionBreakdown" in document:
            raise InvalidValue("payload", "a power breakdown", "must be carbon intensities")
        if self._zone and document["zone"] != self._zone:
            raise InvalidValue("zone", str(document["zone"]), f"must be {self._zone}")
        step = document.get("temporalGranularity")
        if step is not None and step != self._options["granularity"]:
            bound = f"must be {self._options['granularity']}"
            raise InvalidValue("temporalGranularity", str(step), bound)

    def _read(self, document: dict[str, object], known_at: datetime) -> Iterator[Observation]:
        if "forecast" in document:
            known_at = _known_at(document, known_at)
            for record in read_member(document, "forecast", list):
                yield from self._read_value(record, known_at, ValueKind.FORECAST)
            return
        records: Iterable[object] = [document]
        for name in ("history", "data"):
            if name in document:
                records = read_member(document, name, list)
        for record in records:
            estimated = read_member(record, "isEstimated", bool)
            kind = ValueKind.FORECAST if estimated else ValueKind.MEASURED
            if not (estimated and self._options["disable_estimations"] == "true"):
                yield from self._read_value(record, _known_at(record, known_at), kind)

    def _read_value(
        self, record: object, known_at: datetime, kind: ValueKind
    ) -> Iterator[Observation]:
        start_at = parse_instant("datetime", read_member(record, "datetime", str))
        value = read_nullable(record, "carbonIntensity")
        if value is not None:  # null: the provider has none for this step
            yield Observation(start_at, start_at + self._step, value, UNIT, kind, known_at)


def _known_at(record: object, otherwise: datetime) -> datetime:
    """When the provider last wrote the value, where it says so."""
    for name in ("updatedAt", "createdAt"):
        text = record.get(name) if isinstance(record, dict) else None
        if isinstance(text, str):
            return parse_instant(name, text)
    return otherwise


def _read_old_answer(document: dict[str, object]) -> list[Observation]:
    """CO2 Signal, the service before v3: it says "no-data", or gives what v3 gives better."""
    status = document["status"]
    if status == "no-data":
        return []
    shown = f"status {status!r} for {document['countryCode']}"
    raise FeedRejected(f"{NAME} says: {shown}, in the form of CO2 Signal; base_url must be of v3")
