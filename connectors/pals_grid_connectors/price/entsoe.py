"""ENTSO-E Transparency Platform: day-ahead prices (document type A44) of the European zones.

Source: https://transparencyplatform.zendesk.com, "Web API guide", 12.1.D. Three traps are met
here. A03 curves leave out a point that repeats the one before it. Where a zone has several
auctions, sequence 1 is the common one (SDAC) and 2 a local one (EXAA in DE-LU and AT): when 1 is
missing there is no data, 2 is never taken in its place. "No matching data" comes as an
acknowledgement with the same reason code, 999, as a real error. The platform gives no time of
publication: ``createdDateTime`` is the time of the answer.
"""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, ClassVar

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from pals_grid.core.connecting import raise_for_status, read_number, read_options, refusing
from pals_grid.core.errors import FeedRejected, InvalidValue
from pals_grid.core.intervals import Interval, floor_to, parse_instant, slots
from pals_grid.core.ports import ConnectorOption
from pals_grid.core.series import Observation, Quantity, ValueKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from xml.etree.ElementTree import Element

    from pals_grid.core.ports import FetchContext

NAME = "ENTSO-E"
HOUR = timedelta(hours=1)
MAX_WINDOW = timedelta(days=90)
RESOLUTIONS = {
    "PT15M": timedelta(minutes=15),
    "PT30M": timedelta(minutes=30),
    "PT60M": HOUR,
    "PT1H": HOUR,
}
ACKNOWLEDGEMENT = "Acknowledgement_MarketDocument"
NO_DATA = "no matching data found"
SEQUENCE = "classificationSequence_AttributeInstanceComponent.position"

# Energy Identification Codes of the bidding zones, from the platform's list of areas.
ZONES = {
    "AL": "10YAL-KESH-----5",
    "AT": "10YAT-APG------L",
    "BE": "10YBE----------2",
    "BG": "10YCA-BULGARIA-R",
    "CH": "10YCH-SWISSGRIDZ",
    "CZ": "10YCZ-CEPS-----N",
    "DE-LU": "10Y1001A1001A82H",
    "DK1": "10YDK-1--------W",
    "DK2": "10YDK-2--------M",
    "EE": "10Y1001A1001A39I",
    "ES": "10YES-REE------0",
    "FI": "10YFI-1--------U",
    "FR": "10YFR-RTE------C",
    "GB": "10YGB----------A",
    "GR": "10YGR-HTSO-----Y",
    "HR": "10YHR-HEP------M",
    "HU": "10YHU-MAVIR----U",
    "IE-SEM": "10Y1001A1001A59C",
    "IT-NORD": "10Y1001A1001A73I",
    "IT-CNOR": "10Y1001A1001A70O",
    "IT-CSUD": "10Y1001A1001A71M",
    "IT-SUD": "10Y1001A1001A788",
    "IT-SICI": "10Y1001A1001A75E",
    "IT-SARD": "10Y1001A1001A74G",
    "LT": "10YLT-1001A0008Q",
    "LV": "10YLV-1001A00074",
    "ME": "10YCS-CG-TSO---S",
    "MK": "10YMK-MEPSO----8",
    "NL": "10YNL----------L",
    "NO1": "10YNO-1--------2",
    "NO2": "10YNO-2--------T",
    "NO3": "10YNO-3--------J",
    "NO4": "10YNO-4--------9",
    "NO5": "10Y1001A1001A48H",
    "PL": "10YPL-AREA-----S",
    "PT": "10YPT-REN------W",
    "RO": "10YRO-TEL------P",
    "RS": "10YCS-SERBIATSOV",
    "SE1": "10Y1001A1001A44P",
    "SE2": "10Y1001A1001A45N",
    "SE3": "10Y1001A1001A46L",
    "SE4": "10Y1001A1001A47J",
    "SI": "10YSI-ELES-----O",
    "SK": "10YSK-SEPS-----K",
}
EIC_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-"


class Entsoe:
    """Day-ahead prices of one bidding zone, in its currency per MWh."""

    summary: ClassVar[str] = "ENTSO-E: day-ahead prices of the European bidding zones"
    needs_secret: ClassVar[bool] = True
    options: ClassVar[tuple[ConnectorOption, ...]] = (
        ConnectorOption("zone", "NL, DE-LU, FR ... or an EIC code; needed to fetch", ""),
        ConnectorOption("sequence", "which auction, where a zone has several; 1 is SDAC", "1"),
        ConnectorOption("base_url", "address of the API", "https://web-api.tp.entsoe.eu/api"),
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        given = read_options(options, self.options)
        self._zone = _read_zone(given["zone"]) if given["zone"] else None
        self._sequence = given["sequence"]
        if not re.fullmatch("[1-9]", self._sequence):
            raise InvalidValue("options.sequence", self._sequence, "must be from 1 to 9")
        self._base_url = given["base_url"]
        if not re.fullmatch(r"https?://\S+", self._base_url):
            raise InvalidValue("options.base_url", self._base_url, "must be an http(s) address")

    @property
    def quantity(self) -> Quantity:
        """A price."""
        return Quantity.PRICE

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the prices over ``window``; the token is the context's secret.

        Raises:
            FeedUnavailable, FeedRejected, FeedDataInvalid: see ``core.errors``.
        """
        if self._zone is None:
            raise FeedRejected(f"{NAME}: option zone is needed to fetch")
        if not context.secret:
            raise FeedRejected(f"{NAME}: a security token is needed; name it by secret_ref")
        found: list[Observation] = []
        start_at = floor_to(window.start_at, HOUR)
        end_at = floor_to(window.end_at + HOUR, HOUR)
        for part in slots(start_at, end_at, MAX_WINDOW):
            found += self._fetch_part(part, self._zone, context.secret, context)
        inside = [item for item in found if window.overlap_s(item.interval) > 0]
        return sorted(inside, key=lambda item: item.start_at)

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one document; "no matching data" gives no values.

        Raises:
            FeedRejected: when the payload is any other acknowledgement.
            FeedDataInvalid: when it is no price document of type A44, or not of this zone.
        """
        with refusing(NAME):
            root = _load_xml(payload)
            if _tag(root) == ACKNOWLEDGEMENT:
                if _says_no_data(root):
                    return []
                raise FeedRejected(f"{NAME} says: {_reason(root)}")
            _require_prices(root)
            found = [
                item
                for series in _children(root, "TimeSeries")
                if self._is_wanted(series)
                for item in _read_series(series, known_at)
            ]
        return sorted(found, key=lambda item: item.start_at)

    def _fetch_part(
        self, part: Interval, zone: str, token: str, context: FetchContext
    ) -> list[Observation]:
        params = {
            "securityToken": token,
            "documentType": "A44",
            "in_Domain": zone,
            "out_Domain": zone,
            "contract_MarketAgreement.type": "A01",
            "periodStart": _stamp(part.start_at),
            "periodEnd": _stamp(part.end_at),
        }
        response = context.http.get(self._base_url, params)
        if response.status >= 400:
            said = _acknowledgement(response.body)
            if response.status == 400 and said is not None and _says_no_data(said):
                return []
            says = _plain_text(response.body) if said is None else _reason(said)
            raise_for_status(response, says)
        return self.parse(response.body, context.fetched_at)

    def _is_wanted(self, series: Element) -> bool:
        """Whether it is of this auction; intraday auctions come in the same document type."""
        zone = _text(series, "in_Domain.mRID")
        if self._zone is not None and zone != self._zone:
            raise InvalidValue("in_Domain.mRID", zone, f"must be {self._zone}")
        contract = _text(series, "contract_MarketAgreement.type")
        return contract in {"", "A01"} and _text(series, SEQUENCE) in {"", self._sequence}


def _read_zone(zone: str) -> str:
    code = ZONES.get(zone.upper().replace("_", "-"), zone)
    if not _is_eic(code):
        names = ", ".join(ZONES)
        raise InvalidValue("options.zone", zone, f"must be an EIC code or one of {names}")
    return code


def _is_eic(code: str) -> bool:
    """Whether the last of the 16 characters is the check character of the others."""
    if not re.fullmatch(r"[0-9A-Z-]{16}", code):
        return False
    numbers = [EIC_CHARACTERS.index(character) for character in code]
    total = sum(number * weight for number, weight in zip(numbers, range(16, 1, -1), strict=False))
    return numbers[-1] == 36 - (total - 1) % 37


def _load_xml(payload: bytes) -> Element:
    try:
        root: Element = fromstring(payload, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InvalidValue("payload", payload[:40], f"must be XML ({error})") from error
    return root


def _require_prices(root: Element) -> None:
    document_type = _text(root, "type")
    if _tag(root) == "Publication_MarketDocument" and document_type == "A44":
        return
    raise InvalidValue(
        "documentType", document_type or "none", f"must be A44, day-ahead prices, in {_tag(root)}"
    )


def _says_no_data(root: Element) -> bool:
    """Whether "no matching data" is all that an acknowledgement says.

    Its code is 999 as of other errors, so the text tells; one that we do not know is an error.
    """
    reasons = [
        (_text(reason, "code"), _text(reason, "text").lower())
        for reason in _children(root, "Reason")
    ]
    return bool(reasons) and all(
        code == "999" and text.startswith(NO_DATA) for code, text in reasons
    )


def _reason(root: Element) -> str:
    reasons = [
        f"reason {_text(reason, 'code')}, {_text(reason, 'text')}"
        for reason in _children(root, "Reason")
    ]
    return "; ".join(reasons) or "an acknowledgement without a reason"


def _acknowledgement(body: bytes) -> Element | None:
    try:
        root = _load_xml(body)
    except InvalidValue:
        return None
    return root if _tag(root) == ACKNOWLEDGEMENT else None


def _plain_text(body: bytes) -> str:
    """Return the text of an error's page without its tags."""
    text = re.sub(r"<[^>]*>", " ", body[:4096].decode("utf-8", "replace"))
    return " ".join(text.split())


def _read_series(series: Element, known_at: datetime) -> Iterator[Observation]:
    currency = _text(series, "currency_Unit.name")
    if not re.fullmatch("[A-Z]{3}", currency):
        raise InvalidValue("currency_Unit.name", currency, "must be an ISO 4217 code")
    measure = _text(series, "price_Measure_Unit.name")
    if measure != "MWH":
        raise InvalidValue("price_Measure_Unit.name", measure, "must be MWH")
    curve = _text(series, "curveType") or "A01"
    if curve not in {"A01", "A03"}:
        raise InvalidValue("curveType", curve, "must be A01 or A03")
    for period in _children(series, "Period"):
        values = _read_period(period, repeats=curve == "A03")
        for interval, value in values:
            yield Observation(
                interval.start_at,
                interval.end_at,
                value,
                f"{currency}/MWh",
                ValueKind.MEASURED,
                known_at,
            )


def _read_period(period: Element, *, repeats: bool) -> Iterator[tuple[Interval, float]]:
    """Give the values of one period; with ``repeats`` a missing one is as the one before it."""
    span = _read_span(period)
    resolution = _text(period, "resolution")
    if resolution not in RESOLUTIONS:
        raise InvalidValue("resolution", resolution, f"must be one of {', '.join(RESOLUTIONS)}")
    step = RESOLUTIONS[resolution]
    count, rest = divmod(span.end_at - span.start_at, step)
    if rest:
        raise InvalidValue("timeInterval", str(span), f"must be a multiple of {resolution}")
    points = _read_points(period, count)
    value: float | None = None
    for position in range(1, count + 1):
        value = points.get(position, value if repeats else None)
        if value is not None:
            start_at = span.start_at + (position - 1) * step
            yield Interval(start_at, start_at + step), value


def _read_span(period: Element) -> Interval:
    for span in _children(period, "timeInterval"):
        start_at = parse_instant("timeInterval.start", _text(span, "start"))
        return Interval(start_at, parse_instant("timeInterval.end", _text(span, "end")))
    raise InvalidValue("timeInterval", None, "must be there")


def _read_points(period: Element, count: int) -> dict[int, float]:
    points: dict[int, float] = {}
    for point in _children(period, "Point"):
        text = _text(point, "position")
        position = int(text) if text.isdecimal() and len(text) < 7 else 0
        if not 1 <= position <= count or position in points:
            raise InvalidValue("position", text, f"must be from 1 to {count}, each once")
        points[position] = float(read_number("price.amount", _text(point, "price.amount")))
    if not points:
        raise InvalidValue("Point", None, "must be there")
    return points


def _tag(element: Element) -> str:
    """Name without its namespace, which changes with every version of the schema."""
    return str(element.tag).rpartition("}")[2]


def _children(parent: Element, tag: str) -> Iterator[Element]:
    return (child for child in parent if _tag(child) == tag)


def _text(parent: Element, tag: str) -> str:
    return next((child.text or "" for child in _children(parent, tag)), "").strip()


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y%m%d%H%M")
