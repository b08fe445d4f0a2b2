"""Average carbon intensity of a generation mix.

The intensity of an interval is the mean of the emission factors of its fuels, weighted by their
net generation: ``sum(MWh * factor) / sum(MWh)``, in gCO2eq/kWh.

It is a calculation upon measured generation, and it is production-based: electricity that a zone
imports is not in it, and neither are losses of the grid. The factors are those of a typical plant
of the kind, not of the plants that ran.

=============  =========  ======  ===============================================================
fuel           lifecycle  direct  source
=============  =========  ======  ===============================================================
coal                 820     760  [1] pulverised coal
lignite             1054     870  [3]; direct [4], 101.0 kg/GJ at an efficiency of 41.8 %
gas                  490     370  [1] combined cycle
oil                  840     630  [2]; direct [4], 77.4 kg/GJ at an efficiency of 44.2 %
nuclear               12       0  [1]
hydro                 24       0  [1]
wind_onshore          11       0  [1]
wind_offshore         12       0  [1]
solar                 48       0  [1] photovoltaic, utility scale
biomass              230       0  [1] dedicated; its own carbon counts as taken up before [4]
geothermal            38       0  [1]
marine                17       0  [1] ocean
waste                700     575  [5]; no source of its own: taken as ``other``
other                700     575  [5] unknown fuel, taken to be thermal
=============  =========  ======  ===============================================================

[1] Schloemer et al., IPCC AR5 WG3 (2014), Annex III, table A.III.2, medians: life cycle with
    albedo effect, and direct emissions.
[2] Moomaw et al., IPCC SRREN (2011), Annex II, table A.II.4, 50th percentile;
    doi:10.1017/CBO9781139151153.
[3] World Nuclear Association, Comparison of Lifecycle Greenhouse Gas Emissions of Various
    Electricity Generation Sources (2011), mean; [1] does not tell lignite from coal.
[4] IPCC Guidelines for National Greenhouse Gas Inventories (2006), volume 2, table 2.2, default
    CO2 factors, over the reference efficiencies of Regulation (EU) 2015/2402. The same way gives
    770 for coal and 381 for gas, near the medians of [1].
[5] Electricity Maps, default emission factors for an unknown fuel.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import EPOCH, Interval
from pals_grid.core.units import S_PER_H

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class Fuel(StrEnum):
    """What electricity is made of; ``STORAGE`` makes none."""

    COAL = "coal"
    LIGNITE = "lignite"
    GAS = "gas"
    OIL = "oil"
    NUCLEAR = "nuclear"
    HYDRO = "hydro"
    WIND_ONSHORE = "wind_onshore"
    WIND_OFFSHORE = "wind_offshore"
    SOLAR = "solar"
    BIOMASS = "biomass"
    GEOTHERMAL = "geothermal"
    MARINE = "marine"
    WASTE = "waste"
    OTHER = "other"
    STORAGE = "storage"


LIFECYCLE_G_PER_KWH: Mapping[Fuel, float] = {
    Fuel.COAL: 820.0,
    Fuel.LIGNITE: 1054.0,
    Fuel.GAS: 490.0,
    Fuel.OIL: 840.0,
    Fuel.NUCLEAR: 12.0,
    Fuel.HYDRO: 24.0,
    Fuel.WIND_ONSHORE: 11.0,
    Fuel.WIND_OFFSHORE: 12.0,
    Fuel.SOLAR: 48.0,
    Fuel.BIOMASS: 230.0,
    Fuel.GEOTHERMAL: 38.0,
    Fuel.MARINE: 17.0,
    Fuel.WASTE: 700.0,
    Fuel.OTHER: 700.0,
}
DIRECT_G_PER_KWH: Mapping[Fuel, float] = dict.fromkeys(LIFECYCLE_G_PER_KWH, 0.0) | {
    Fuel.COAL: 760.0,
    Fuel.LIGNITE: 870.0,
    Fuel.GAS: 370.0,
    Fuel.OIL: 630.0,
    Fuel.WASTE: 575.0,
    Fuel.OTHER: 575.0,
}


@dataclass(frozen=True, slots=True)
class Generation:
    """Mean power of one of a provider's series over ``interval``.

    ``series`` is the provider's own name for it: several may be of one fuel. ``power_mw`` is None
    where the provider gives the interval and no value. With ``is_consumption`` it is what the
    plants of the series took from the grid. A negative power is the same, told by its sign.
    """

    series: str
    fuel: Fuel
    interval: Interval
    power_mw: float | None
    is_consumption: bool = False

    def __post_init__(self) -> None:
        if self.power_mw is not None and not math.isfinite(self.power_mw):
            raise InvalidValue(f"{self.series} power_mw", self.power_mw, "must be finite")

    @property
    def net_mwh(self) -> float:
        """Energy given to the grid over the interval; a missing value has none."""
        energy_mwh = (self.power_mw or 0.0) * self.interval.duration_s / S_PER_H
        return -energy_mwh if self.is_consumption else energy_mwh


def fuel_of(field: str, code: str, known: Mapping[str, Fuel]) -> Fuel:
    """Return the fuel of a provider's ``code``.

    Raises:
        InvalidValue: for a code that is not ``known``: without its factor there is no mean.
    """
    if code not in known:
        raise InvalidValue(field, code, f"must be one of {', '.join(known)}")
    return known[code]


def average_intensities(
    generation: Iterable[Generation], g_per_kwh: Mapping[Fuel, float] = LIFECYCLE_G_PER_KWH
) -> list[tuple[Interval, float]]:
    """Carbon intensity in gCO2eq/kWh of each interval whose mix is whole, in order.

    ``g_per_kwh`` has the emission factor in gCO2eq/kWh of every fuel but storage.

    The intervals are the finest that all series share: where one comes in quarters of an hour
    and another in hours, the mean of the hour.

    - Storage is left out, both ways: what it gives back was generated and counted before.
    - Consumption is subtracted within its series. A series that takes more than it gives, such as
      a solar park at night, generates nothing then; it never lowers the emissions of others.
    - An interval is a gap where a series that occurs in ``generation`` has no value. A series
      that does not occur at all is not in the mix.
    - An interval without any generation is a gap.

    Raises:
        InvalidValue: when a series has two values for one time.
    """
    counted = [item for item in set(generation) if item.fuel is not Fuel.STORAGE]
    counted.sort(key=lambda item: (item.interval, item.series, item.is_consumption))
    _require_once(counted)
    every_series = {item.series for item in counted}
    found = []
    for cell in _cells(counted):
        value = _intensity(cell, every_series, g_per_kwh)
        if value is not None:
            found.append((_span(cell), value))
    return found


def _require_once(ordered: Sequence[Generation]) -> None:
    by_series: dict[tuple[str, bool], list[Generation]] = defaultdict(list)
    for item in ordered:
        by_series[item.series, item.is_consumption].append(item)
    for (series, _), items in by_series.items():
        for earlier, later in pairwise(items):
            if later.interval.start_at < earlier.interval.end_at:
                at = later.interval.start_at.isoformat()
                values = f"{earlier.power_mw} and {later.power_mw} MW"
                raise InvalidValue(f"{series} at {at}", values, "must have one value")


def _cells(ordered: Iterable[Generation]) -> Iterator[list[Generation]]:
    """Part the values wherever all series have an edge."""
    cell: list[Generation] = []
    end_at = EPOCH
    for item in ordered:
        if cell and item.interval.start_at >= end_at:
            yield cell
            cell = []
        end_at = max(end_at, item.interval.end_at) if cell else item.interval.end_at
        cell.append(item)
    if cell:
        yield cell


def _span(cell: Sequence[Generation]) -> Interval:
    return Interval(
        min(item.interval.start_at for item in cell), max(item.interval.end_at for item in cell)
    )


def _intensity(
    cell: Sequence[Generation], every_series: set[str], g_per_kwh: Mapping[Fuel, float]
) -> float | None:
    parts: dict[str, list[Generation]] = defaultdict(list)
    for item in cell:
        parts[item.series].append(item)
    span = _span(cell)
    if parts.keys() != every_series or not all(_covers(part, span) for part in parts.values()):
        return None
    net = [
        (max(0.0, sum(item.net_mwh for item in part)), g_per_kwh[part[0].fuel])
        for part in parts.values()
    ]
    total_mwh = sum(energy_mwh for energy_mwh, _ in net)
    if total_mwh <= 0.0:
        return None
    return sum(energy_mwh * factor for energy_mwh, factor in net) / total_mwh


def _covers(part: Iterable[Generation], span: Interval) -> bool:
    """Whether values of a series, given in order, leave nothing of ``span`` without one."""
    reached_at = span.start_at
    for item in part:
        if item.power_mw is None or item.interval.start_at > reached_at:
            return False
        reached_at = max(reached_at, item.interval.end_at)
    return reached_at >= span.end_at
