"""A made-up day, labelled so: for a demonstration without a network, never for a decision."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import read_number, read_options, require_choice, require_match
from pals_grid.core.errors import FeedDataInvalid, InvalidValue
from pals_grid.core.intervals import floor_to, slots
from pals_grid.core.ports import ConnectorOption
from pals_grid.core.series import Observation, Quantity, ValueKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext, Pace, Rhythm

STEP = timedelta(minutes=30)
CARBON_UNIT = "gCO2eq/kWh"
DEFAULT_MEANS = {Quantity.PRICE: "90", Quantity.AVERAGE_INTENSITY: "200"}
EVENING_PEAK_H = 19.0
DAILY_SWING_RATIO = 0.25
HALF_DAILY_SWING_RATIO = 0.20


class Synthetic:
    """The same smooth day for ever, with a peak in the evening and a smaller one at breakfast."""

    summary: ClassVar[str] = "Synthetic: a made-up day of prices or carbon intensity, labelled so"
    needs_secret: ClassVar[bool] = False
    pace: ClassVar[Pace | None] = None
    rhythm: ClassVar[Rhythm | None] = None  # it is made when it is asked for
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("quantity", "price or average_intensity", "price"),
        ConnectorOption("currency", "ISO 4217 code, for a price", "EUR"),
        ConnectorOption("mean", "mean of the day, per MWh or in gCO2eq/kWh; empty: 90 or 200", ""),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        known = {str(quantity): quantity for quantity in DEFAULT_MEANS}
        self._quantity = known[require_choice("options.quantity", given["quantity"], known)]
        require_match("options.currency", given["currency"], "[A-Z]{3}", "must be an ISO 4217 code")
        is_price = self._quantity is Quantity.PRICE
        self._unit = f"{given['currency']}/MWh" if is_price else CARBON_UNIT
        mean = read_number("options.mean", given["mean"] or DEFAULT_MEANS[self._quantity])
        if not 0 < mean <= 2_000:
            raise InvalidValue("options.mean", str(mean), "must be above 0 and at most 2000")
        self._mean = float(mean)

    @property
    def quantity(self) -> Quantity:
        """As the option says."""
        return self._quantity

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Make values for every half hour that touches ``window``."""
        start_at = floor_to(window.start_at, STEP)
        last_at = floor_to(window.end_at - timedelta(microseconds=1), STEP)
        return [
            Observation(
                slot.start_at,
                slot.end_at,
                self._value(slot.start_at + STEP / 2),
                self._unit,
                ValueKind.SYNTHETIC,
                context.fetched_at,
            )
            for slot in slots(start_at, last_at + STEP, STEP)
        ]

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Refuse: what is made up has no payload.

        Raises:
            FeedDataInvalid: always.
        """
        raise FeedDataInvalid(
            f"Synthetic reads no payload (got {len(payload)} bytes known at {known_at.isoformat()})"
        )

    def _value(self, instant: datetime) -> float:
        """Mean times a day of two waves, of 24 and 12 hours, both at their crest in the evening."""
        hours = instant.hour + instant.minute / 60 - EVENING_PEAK_H
        daily = DAILY_SWING_RATIO * math.cos(2 * math.pi * hours / 24)
        half_daily = HALF_DAILY_SWING_RATIO * math.cos(2 * math.pi * hours / 12)
        return round(self._mean * (1 + daily + half_daily), 2)
