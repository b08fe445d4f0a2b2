"""What the connectors that read a generation mix share: the factors' options, and the values."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.connecting import read_number
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.mix import (
    DIRECT_G_PER_KWH,
    LIFECYCLE_G_PER_KWH,
    Fuel,
    average_intensities,
)
from pals_grid.core.ports import ConnectorOption
from pals_grid.core.series import Observation, ValueKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from pals_grid.core.mix import Generation

# A series that is late is known to be missing by the day before.
LOOK_BACK = timedelta(days=1)
UNIT = "gCO2eq/kWh"
MAX_G_PER_KWH = 5000
FACTORS = {"lifecycle": LIFECYCLE_G_PER_KWH, "direct": DIRECT_G_PER_KWH}
FACTOR_OPTIONS = (
    ConnectorOption(
        "factors", "emission factors of the mix: lifecycle, or direct (at the plant)", "lifecycle"
    ),
    ConnectorOption("other_g_per_kwh", "factor of what the provider calls other; empty: 700", ""),
)


def read_factors(given: Mapping[str, str]) -> Mapping[Fuel, float]:
    """Read gCO2eq/kWh of each fuel out of a connector's options.

    Raises:
        InvalidValue: for a set that is not known, or a factor out of bounds.
    """
    chosen = FACTORS.get(given["factors"])
    if chosen is None:
        raise InvalidValue("options.factors", given["factors"], "must be lifecycle or direct")
    if not given["other_g_per_kwh"]:
        return chosen
    other = read_number("options.other_g_per_kwh", given["other_g_per_kwh"])
    if not 0 <= other <= MAX_G_PER_KWH:
        raise InvalidValue(
            "options.other_g_per_kwh", str(other), f"must be from 0 to {MAX_G_PER_KWH}"
        )
    return {**chosen, Fuel.OTHER: float(other)}


def past_of(window: Interval, now: datetime) -> Interval | None:
    """Return what to ask for: what is past of ``window``, with a day before it; None for nothing.

    The day before tells which series there are, so that one which is late makes a gap and not a
    mix without it.
    """
    end_at = min(window.end_at, now)
    return None if end_at <= window.start_at else Interval(window.start_at - LOOK_BACK, end_at)


def observe_mix(
    generation: Iterable[Generation], g_per_kwh: Mapping[Fuel, float], known_at: datetime
) -> list[Observation]:
    """Intensities of a mix, in order; they are calculated upon what was measured."""
    return [
        Observation(interval.start_at, interval.end_at, value, UNIT, ValueKind.MEASURED, known_at)
        for interval, value in average_intensities(generation, g_per_kwh)
    ]
