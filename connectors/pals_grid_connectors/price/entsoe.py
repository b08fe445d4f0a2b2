"""ENTSO-E Transparency Platform: day-ahead prices, and carbon of the generation, by bidding zone.

Source: https://transparencyplatform.zendesk.com, "Web API guide", 12.1.D (document type A44) and
16.1.B&C (A75, process type A16). Traps that are met here. A03 curves leave out a point that
repeats the one before it. Where a zone has several auctions, sequence 1 is the common one (SDAC)
and 2 a local one (EXAA in DE-LU and AT): when 1 is missing there is no data, 2 is never taken in
its place. In A75 a series with ``inBiddingZone`` is generation, one with ``outBiddingZone``
consumption; some platforms give either the one or the other at a time. "No matching data" comes
as an acknowledgement with the same reason code, 999, as a real error. The platform gives no time
of publication: ``createdDateTime`` is the time of the answer.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, ClassVar

from pals_grid.core.connecting import (
    raise_for_status,
    read_options,
    refusing,
    require_match,
    require_option,
    require_secret,
)
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import floor_to, slots
from pals_grid.core.mix import Fuel, Generation, fuel_of
from pals_grid.core.ports import ConnectorOption, Pace, Rhythm
from pals_grid.core.series import Observation, Quantity, ValueKind, touching
from pals_grid_connectors.entsoe_xml import (
    acknowledgement,
    bounded,
    children,
    is_acknowledgement,
    load_xml,
    plain_text,
    read_curve,
    reason_in,
    says_no_data,
    tag_of,
    text_of,
)
from pals_grid_connectors.entsoe_zones import read_zone
from pals_grid_connectors.generation import (
    FACTOR_OPTIONS,
    observe_mix,
    past_of,
    read_factors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from xml.etree.ElementTree import Element

    from pals_grid.core.intervals import Interval
    from pals_grid.core.ports import FetchContext

NAME = "ENTSO-E"
HOUR = timedelta(hours=1)
# A month of quarter hours of some twenty fuels is 6 MB.
MAX_WINDOW = timedelta(days=30)
SEQUENCE = "classificationSequence_AttributeInstanceComponent.position"
PRICES, GENERATION = "A44", "A75"
ROOTS = {PRICES: "Publication_MarketDocument", GENERATION: "GL_MarketDocument"}
FUELS = {
    "B01": Fuel.BIOMASS,
    "B02": Fuel.LIGNITE,
    "B03": Fuel.COAL,  # gas made of coal
    "B04": Fuel.GAS,
    "B05": Fuel.COAL,
    "B06": Fuel.OIL,
    "B07": Fuel.LIGNITE,  # oil shale, whose carbon per energy is near lignite's
    "B08": Fuel.LIGNITE,  # peat, likewise
    "B09": Fuel.GEOTHERMAL,
    "B10": Fuel.STORAGE,  # pumped
    "B11": Fuel.HYDRO,
    "B12": Fuel.HYDRO,
    "B13": Fuel.MARINE,
    "B14": Fuel.NUCLEAR,
    "B15": Fuel.BIOMASS,  # other renewable
    "B16": Fuel.SOLAR,
    "B17": Fuel.WASTE,
    "B18": Fuel.WIND_OFFSHORE,
    "B19": Fuel.WIND_ONSHORE,
    "B20": Fuel.OTHER,
    "B25": Fuel.STORAGE,
}


class Entsoe:
    """Of one bidding zone: prices in its currency per MWh, or average carbon in gCO2eq/kWh."""

    summary: ClassVar[str] = "ENTSO-E: day-ahead prices and generation mix of the European zones"
    needs_secret: ClassVar[bool] = True
    pace: ClassVar[Pace | None] = Pace(400, 60.0)
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("zone", "NL, DE-LU, FR ... or an EIC code; needed to fetch", ""),
        ConnectorOption(
            "document", "A44: prices, as when empty; A75: carbon of the generation mix", ""
        ),
        ConnectorOption("sequence", "which auction, where a zone has several; 1 is SDAC", "1"),
        *FACTOR_OPTIONS,
        ConnectorOption("base_url", "address of the API", "https://web-api.tp.entsoe.eu/api"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._zone = read_zone(given["zone"]) if given["zone"] else None
        self._document = require_match(
            "options.document", given["document"], f"{PRICES}|{GENERATION}|", "must be A44 or A75"
        )
        self._sequence = require_match(
            "options.sequence", given["sequence"], "[1-9]", "must be from 1 to 9"
        )
        self._factors = read_factors(given)
        self._base_url = require_match(
            "options.base_url", given["base_url"], r"https?://\S+", "must be an http(s) address"
        )

    @property
    def rhythm(self) -> Rhythm:
        """Prices at about 13 h Brussels time, decoupled auctions later; generation each hour."""
        if self._document == GENERATION:
            return Rhythm(every_s=3600.0, late_s=2 * 3600.0)
        return Rhythm(every_s=86_400.0, late_s=4 * 3600.0)

    @property
    def quantity(self) -> Quantity:
        """Average carbon intensity for document A75, else a price."""
        return _quantity(self._document)

    def quantity_of(self, payload: bytes) -> Quantity:
        """Tell by the document where no option does."""
        try:
            found = text_of(load_xml(payload), "type")
        except InvalidValue:
            return self.quantity
        return _quantity(self._document or found)

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the values over ``window``; the token is the context's secret."""
        zone = require_option(NAME, "zone", self._zone or "")
        token = require_secret(NAME, "a security token", context)
        document = self._document or PRICES
        span = past_of(window, context.fetched_at) if document == GENERATION else window
        if span is None:
            return []
        found: list[Observation] = []
        first_at, last_at = floor_to(span.start_at, HOUR), floor_to(span.end_at + HOUR, HOUR)
        for part in slots(first_at, last_at, MAX_WINDOW):
            asked = _question(document, zone, part)
            found += self._fetch_part(asked, document, token, context)
        return sorted(touching(found, window), key=lambda item: item.start_at)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one document; "no matching data" gives no values.

        Raises:
            FeedRejected: when the payload is any other acknowledgement.
            FeedDataInvalid: when it is neither kind of document, or not of this zone.
        """
        return self._read(payload, self._document, known_at)

    def _fetch_part(
        self, asked: Mapping[str, str], document: str, token: str, context: FetchContext
    ) -> list[Observation]:
        response = context.http.get(self._base_url, {"securityToken": token, **asked})
        if response.status >= 400:
            said = acknowledgement(response.body)
            if response.status == 400 and said is not None and says_no_data(said):
                return []
            says = plain_text(response.body) if said is None else reason_in(said)
            raise_for_status(response, says)
        return self._read(response.body, document, context.fetched_at)

    def _read(self, payload: bytes, document: str, known_at: datetime) -> list[Observation]:
        """Read a document of that type, or of either where none is named."""
        with refusing(NAME):
            root = load_xml(payload)
            if is_acknowledgement(root):
                if says_no_data(root):
                    return []
                raise FeedRejected(f"{NAME} says: {reason_in(root)}")
            if _require_document(root, document) == GENERATION:
                mix = bounded(read_generation(root, self._zone))
                return observe_mix(mix, self._factors, known_at)
            found = bounded(
                item
                for series in children(root, "TimeSeries")
                if self._is_wanted(series)
                for item in _read_prices(series, known_at)
            )
        return sorted(found, key=lambda item: item.start_at)

    def _is_wanted(self, series: Element) -> bool:
        """Whether it is of this auction; intraday auctions come in the same document type."""
        _require_zone("in_Domain.mRID", text_of(series, "in_Domain.mRID"), self._zone)
        contract = text_of(series, "contract_MarketAgreement.type")
        return contract in {"", "A01"} and text_of(series, SEQUENCE) in {"", self._sequence}


def read_generation(root: Element, zone: str | None) -> Iterator[Generation]:
    """Give every value of an A75 document, in and out of the zone.

    Raises:
        InvalidValue: for a type of plant that is not known, a wrong unit, zone or curve.
    """
    process = text_of(root, "process.processType")
    if process not in {"", "A16"}:
        raise InvalidValue("process.processType", process, "must be A16, realised")
    for series in children(root, "TimeSeries"):
        direction = "in" if text_of(series, "inBiddingZone_Domain.mRID") else "out"
        field = f"{direction}BiddingZone_Domain.mRID"
        domain = text_of(series, field)
        if not domain:
            raise InvalidValue("BiddingZone_Domain.mRID", None, "must be there, in or out")
        _require_zone(field, domain, zone)
        measure = text_of(series, "quantity_Measure_Unit.name")
        if measure != "MAW":
            raise InvalidValue("quantity_Measure_Unit.name", measure, "must be MAW")
        plant = next((text_of(kind, "psrType") for kind in children(series, "MktPSRType")), "")
        fuel = fuel_of("psrType", plant, FUELS)
        for interval, power_mw in read_curve(series, "quantity"):
            yield Generation(plant, fuel, interval, power_mw, direction == "out")


def _quantity(document: str) -> Quantity:
    return Quantity.AVERAGE_INTENSITY if document == GENERATION else Quantity.PRICE


def _question(document: str, zone: str, part: Interval) -> dict[str, str]:
    asked = {"documentType": document, "in_Domain": zone}
    if document == GENERATION:
        asked["processType"] = "A16"
    else:
        asked |= {"out_Domain": zone, "contract_MarketAgreement.type": "A01"}
    return asked | {"periodStart": _stamp(part.start_at), "periodEnd": _stamp(part.end_at)}


def _require_document(root: Element, wanted: str) -> str:
    """Return the type of a document that is of the wanted type, or of either."""
    found = text_of(root, "type")
    allowed = (wanted,) if wanted else (PRICES, GENERATION)
    if found in allowed and tag_of(root) == ROOTS[found]:
        return found
    names = " or ".join(f"{name} in {ROOTS[name]}" for name in allowed)
    raise InvalidValue("documentType", found or "none", f"must be {names}, is in {tag_of(root)}")


def _require_zone(field: str, found: str, zone: str | None) -> None:
    if zone is not None and found != zone:
        raise InvalidValue(field, found, f"must be {zone}")


def _read_prices(series: Element, known_at: datetime) -> Iterator[Observation]:
    currency = text_of(series, "currency_Unit.name")
    require_match("currency_Unit.name", currency, "[A-Z]{3}", "must be an ISO 4217 code")
    measure = text_of(series, "price_Measure_Unit.name")
    if measure != "MWH":
        raise InvalidValue("price_Measure_Unit.name", measure, "must be MWH")
    for interval, value in read_curve(series, "price.amount"):
        yield Observation(
            interval.start_at,
            interval.end_at,
            value,
            f"{currency}/MWh",
            ValueKind.MEASURED,
            known_at,
        )


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y%m%d%H%M")
