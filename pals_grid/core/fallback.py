"""What stands in for a feed where it has no value: an ordered chain, and a record of each use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pals_grid.core.feed import Feed
    from pals_grid.core.intervals import Interval
    from pals_grid.core.series import ValueKind

MOST_ENTRIES = 8
MOST_WEEKS = 8
DEFAULT_WEEKS = 4
_CONSTANT_BOUND = 1e6


class SourceKind(StrEnum):
    """Where a slot's value comes from; all but ``primary`` are substitutes."""

    PRIMARY = "primary"
    FEED = "feed"
    MODEL = "model"
    LAST_WEEK = "last_week"
    CONSTANT = "constant"


class Absence(StrEnum):
    """Why the primary feed has no value for a slot.

    ``not_published``: it answers, and has none yet. ``silent``: it has stopped answering.
    ``never_answered``: it has not answered once. ``not_convertible``: its value is in a currency
    that no tariff converts.
    """

    NOT_PUBLISHED = "not_published"
    SILENT = "silent"
    NEVER_ANSWERED = "never_answered"
    NOT_CONVERTIBLE = "not_convertible"


@dataclass(frozen=True, slots=True)
class FromFeed:
    """The values of another feed of the same quantity at the same site, by its name."""

    feed: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.feed.strip()) <= 100:
            raise InvalidValue("feed", self.feed[:120], "must be the name of a feed")


@dataclass(frozen=True, slots=True)
class FromLastWeek:
    """The measured value of the same local time a week ago; of two weeks ago where that is missing.

    And so on, up to ``weeks`` back.
    """

    weeks: int = DEFAULT_WEEKS

    def __post_init__(self) -> None:
        if not 1 <= self.weeks <= MOST_WEEKS:
            raise InvalidValue("weeks", self.weeks, f"must be from 1 to {MOST_WEEKS}")


@dataclass(frozen=True, slots=True)
class FromConstant:
    """One value for ever: per MWh in the site's currency, or in gCO2eq/kWh."""

    value: float

    def __post_init__(self) -> None:
        if not -_CONSTANT_BOUND <= self.value <= _CONSTANT_BOUND:
            bound = f"must be from -{_CONSTANT_BOUND:g} to {_CONSTANT_BOUND:g}"
            raise InvalidValue("constant", self.value, bound)


Fallback: TypeAlias = FromFeed | FromLastWeek | FromConstant


@dataclass(frozen=True, slots=True)
class SlotSource:
    """Where one slot's value of one signal comes from, so that a plan can be checked later.

    ``value`` is what was taken, in ``unit``, before any tariff. ``feed`` gave it; of a constant,
    it is the primary whose chain states it. ``primary`` is the feed that should have, and
    ``absence`` why it did not (None where it did). ``taken_from`` is set where the value of another
    time was taken, ``weeks_back`` weeks ago. ``tariff_id`` is the tariff that made the slot's
    price of it (0: none).
    """

    kind: SourceKind
    feed_id: int
    feed: str
    value: float
    unit: str
    value_kind: ValueKind | None = None
    taken_from: Interval | None = None
    weeks_back: int = 0
    primary: str = ""
    absence: Absence | None = None
    silent_since_at: datetime | None = None
    tariff_id: int = 0

    @property
    def is_substitute(self) -> bool:
        """Whether something stands in for the primary feed."""
        return self.kind is not SourceKind.PRIMARY

    def same_as(self, other: SlotSource) -> bool:
        """Whether both are one substitution, over whatever time."""
        return _key(self) == _key(other)


def _key(source: SlotSource) -> tuple[object, ...]:
    constant = source.value if source.kind is SourceKind.CONSTANT else None
    return (
        source.kind,
        source.feed_id,
        source.primary,
        source.absence,
        constant,
        source.weeks_back,
    )


def primary_of(feeds: Sequence[Feed]) -> Feed | None:
    """Return the first feed with a chain of its own that stands in no other's; None without one.

    ``feeds`` are of one quantity of one site, in the order of their creation.
    """
    named = {
        entry.feed for item in feeds for entry in item.fallbacks if isinstance(entry, FromFeed)
    }
    return next((item for item in feeds if item.fallbacks and item.name not in named), None)


def feed_order(feeds: Sequence[Feed]) -> list[int]:
    """Ids of feeds of one quantity: the primary, those that stand in for it, then all others."""
    primary = primary_of(feeds)
    if primary is None:
        return [item.id for item in feeds]
    by_name = {item.name: item.id for item in feeds}
    named = (entry.feed for entry in primary.fallbacks if isinstance(entry, FromFeed))
    first = [primary.id, *(by_name[name] for name in named if name in by_name)]
    return [*first, *(item.id for item in feeds if item.id not in first)]


def read_fallback(document: object) -> Fallback:
    """Read ``{"feed": NAME}``, ``{"last_week": true, "weeks": 4}`` or ``{"constant": 80}``.

    Raises:
        InvalidValue: for anything else.
    """
    bound = 'must be {"feed": NAME}, {"last_week": true, "weeks": N} or {"constant": VALUE}'
    match document:
        case {"feed": str(name), **rest} if not rest:
            return FromFeed(name)
        case {"last_week": True, "weeks": int(weeks), **rest} if not (
            rest or isinstance(weeks, bool)
        ):
            return FromLastWeek(weeks)
        case {"last_week": True, **rest} if not rest:
            return FromLastWeek()
        case {"constant": int() | float() as value, **rest} if not (
            rest or isinstance(value, bool)
        ):
            return FromConstant(float(FromConstant(value).value))  # a float holds it: it is bounded
    raise InvalidValue("fallbacks", document, bound)


def write_fallback(item: Fallback) -> dict[str, object]:
    """Return the JSON that ``read_fallback`` reads."""
    if isinstance(item, FromFeed):
        return {"feed": item.feed}
    if isinstance(item, FromLastWeek):
        return {"last_week": True, "weeks": item.weeks}
    return {"constant": item.value}


def check_chain(feed: str, chain: Sequence[Fallback], others: Mapping[str, Sequence[str]]) -> None:
    """Check one feed's chain; ``others`` are the site's other feeds of its quantity by name.

    The value of each is the names of the feeds that its own chain leads to.

    Raises:
        InvalidValue: for an unknown feed, a circle, an entry given twice or behind a constant.
    """
    if len(chain) > MOST_ENTRIES:
        raise InvalidValue("fallbacks", len(chain), f"must have at most {MOST_ENTRIES} entries")
    for i, item in enumerate(chain):
        at = f"fallbacks[{i}]"
        if any(type(item) is type(held) and _what(item) == _what(held) for held in chain[:i]):
            raise InvalidValue(at, write_fallback(item), "must be given once")
        if i and isinstance(chain[i - 1], FromConstant):
            bound = "must not stand behind a constant, which always has a value"
            raise InvalidValue(at, write_fallback(item), bound)
        if isinstance(item, FromFeed):
            _check_feed(f"{at}.feed", feed, item.feed, others)


def _what(item: Fallback) -> object:
    return item.feed if isinstance(item, FromFeed) else type(item)


def _check_feed(at: str, feed: str, named: str, others: Mapping[str, Sequence[str]]) -> None:
    if named == feed:
        raise InvalidValue(at, named, "must be another feed")
    if named not in others:
        known = ", ".join(others) or "there is none"
        raise InvalidValue(at, named, f"must be another feed of the same quantity ({known})")
    seen, ahead = set[str](), [named]
    while ahead:
        following = ahead.pop()
        if following == feed:
            raise InvalidValue(at, named, f"must not lead back to {feed!r}: that is a circle")
        if following not in seen:
            seen.add(following)
            ahead += others.get(following, ())
