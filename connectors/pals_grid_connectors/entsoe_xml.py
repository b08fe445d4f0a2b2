"""Documents of the ENTSO-E Transparency Platform: tags, acknowledgements, curves."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from pals_grid.core.connecting import read_number, require_few
from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import Interval, parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from xml.etree.ElementTree import Element

T = TypeVar("T")
MAX_VALUES = 200_000
NO_DATA = "no matching data found"
RESOLUTIONS = {
    "PT15M": timedelta(minutes=15),
    "PT30M": timedelta(minutes=30),
    "PT60M": timedelta(hours=1),
    "PT1H": timedelta(hours=1),
}


def load_xml(payload: bytes) -> Element:
    """Read a document.

    Raises:
        InvalidValue: when it is not XML, or declares entities.
    """
    require_few(payload, b"<", "tags")
    try:
        root: Element = fromstring(payload, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InvalidValue("payload", payload[:40], f"must be XML ({error})") from error
    return root


def tag_of(element: Element) -> str:
    """Name without its namespace, which changes with every version of the schema."""
    return str(element.tag).rpartition("}")[2]


def children(parent: Element, tag: str) -> Iterator[Element]:
    """Return the children of that name."""
    return (child for child in parent if tag_of(child) == tag)


def text_of(parent: Element, tag: str) -> str:
    """Text of the first child of that name; empty where there is none."""
    return next((child.text or "" for child in children(parent, tag)), "").strip()


# --- acknowledgements ----------------------------------------------------------------------


def is_acknowledgement(root: Element) -> bool:
    """Whether the platform answers with a reason instead of values."""
    return tag_of(root) == "Acknowledgement_MarketDocument"


def acknowledgement(body: bytes) -> Element | None:
    """Return the acknowledgement in an answer; None where it is something else."""
    try:
        root = load_xml(body)
    except InvalidValue:
        return None
    return root if is_acknowledgement(root) else None


def says_no_data(root: Element) -> bool:
    """Whether "no matching data" is all that an acknowledgement says.

    Its code is 999 as of other errors, so the text tells; one that we do not know is an error.
    """
    reasons = [
        (text_of(reason, "code"), text_of(reason, "text").lower())
        for reason in children(root, "Reason")
    ]
    return bool(reasons) and all(
        code == "999" and text.startswith(NO_DATA) for code, text in reasons
    )


def reason_in(root: Element) -> str:
    """Return an acknowledgement's reasons in one line."""
    reasons = [
        f"reason {text_of(reason, 'code')}, {text_of(reason, 'text')}"
        for reason in children(root, "Reason")
    ]
    return "; ".join(reasons) or "an acknowledgement without a reason"


def plain_text(body: bytes) -> str:
    """Return the text of an error's page without its tags."""
    text = re.sub(r"<[^>]*>", " ", body[:4096].decode("utf-8", "replace"))
    return " ".join(text.split())


# --- curves --------------------------------------------------------------------------------


def bounded(values: Iterable[T]) -> list[T]:
    """Take all values, but never more than a document of a month has.

    Raises:
        InvalidValue: for more: a curve of two points may stand for a thousand years.
    """
    found = list(islice(values, MAX_VALUES + 1))
    if len(found) > MAX_VALUES:
        raise InvalidValue("TimeSeries", "more", f"must give at most {MAX_VALUES} values")
    return found


def read_curve(series: Element, member: str) -> Iterator[tuple[Interval, float]]:
    """Give the values of a TimeSeries over its periods.

    A curve of type A03 leaves out what repeats the point before it, inside one period; A01 has a
    gap there.
    """
    curve = text_of(series, "curveType") or "A01"
    if curve not in {"A01", "A03"}:
        raise InvalidValue("curveType", curve, "must be A01 or A03")
    for period in children(series, "Period"):
        yield from _read_period(period, member, repeats=curve == "A03")


def _read_period(
    period: Element, member: str, *, repeats: bool
) -> Iterator[tuple[Interval, float]]:
    span = _read_span(period)
    resolution = text_of(period, "resolution")
    if resolution not in RESOLUTIONS:
        raise InvalidValue("resolution", resolution, f"must be one of {', '.join(RESOLUTIONS)}")
    step = RESOLUTIONS[resolution]
    count, rest = divmod(span.end_at - span.start_at, step)
    if rest:
        raise InvalidValue("timeInterval", str(span), f"must be a multiple of {resolution}")
    points = _read_points(period, member, count)
    value: float | None = None
    for position in range(1, count + 1):
        value = points.get(position, value if repeats else None)
        if value is not None:
            start_at = span.start_at + (position - 1) * step
            yield Interval(start_at, start_at + step), value


def _read_span(period: Element) -> Interval:
    for span in children(period, "timeInterval"):
        start_at = parse_instant("timeInterval.start", text_of(span, "start"))
        return Interval(start_at, parse_instant("timeInterval.end", text_of(span, "end")))
    raise InvalidValue("timeInterval", None, "must be there")


def _read_points(period: Element, member: str, count: int) -> dict[int, float]:
    points: dict[int, float] = {}
    for point in children(period, "Point"):
        text = text_of(point, "position")
        position = int(text) if text.isdecimal() and len(text) < 7 else 0
        if not 1 <= position <= count or position in points:
            raise InvalidValue("position", text, f"must be from 1 to {count}, each once")
        points[position] = float(read_number(member, text_of(point, member)))
    if not points:
        raise InvalidValue("Point", None, "must be there")
    return points
