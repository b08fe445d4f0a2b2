"""What the schemas share: strict models, instants with an offset, pages."""

from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from fastapi import Query, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import parse_instant
from pals_grid.service.paging import MAX_LIMIT, Page, Paged

T = TypeVar("T")
# Days can be added to and taken from any of them.
FIRST_YEAR, LAST_YEAR = 1970, 2199


def _read_instant(value: object) -> object:
    if isinstance(value, datetime):
        return value
    bound = (
        f"must be an ISO 8601 instant with offset, like 2026-01-31T18:00:00Z, "
        f"from {FIRST_YEAR} to {LAST_YEAR}"
    )
    if not isinstance(value, str):
        raise ValueError(bound)  # noqa: TRY004 - pydantic turns ValueError into a 422
    try:
        # A plus sign that nobody encoded reaches a query as a space.
        found = parse_instant("", value.replace(" ", "+") if "T" in value else value)
    except (InvalidValue, OverflowError) as error:
        raise ValueError(bound) from error
    if not FIRST_YEAR <= found.year <= LAST_YEAR:
        raise ValueError(bound)
    return found


def _to_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


Instant = Annotated[
    datetime,
    BeforeValidator(_read_instant),
    AfterValidator(_to_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""ISO 8601 with offset, in UTC after reading; naive times and bare numbers are refused."""


class Model(BaseModel):
    """A body: no unknown fields, no NaN, no infinities; read from our own dataclasses too."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        from_attributes=True,
        ser_json_inf_nan="null",
        protected_namespaces=(),
    )


class PagedOut(Model, Generic[T]):
    """Some items of a list; the next page is at ``?cursor=<next_cursor>`` while it is not null."""

    items: list[T]
    next_cursor: str | None


def read_page(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
) -> Page:
    """Which part of the list is wanted."""
    return Page(limit, cursor)


def link_next(request: Request, response: Response, found: Paged[T]) -> Paged[T]:
    """Add ``Link: <...>; rel="next"`` where there is a next page."""
    if found.next_cursor is not None:
        url = request.url.include_query_params(cursor=found.next_cursor)
        response.headers["link"] = f'<{url}>; rel="next"'
    return found
