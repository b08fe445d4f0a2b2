"""Answers that come in pages of rows, each of which says how many rows there are in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import FeedDataInvalid, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal


def rows_of_pages(
    provider: str,
    max_pages: int,
    total_field: str,
    fetch_page: Callable[[int], tuple[list[object], Decimal]],
) -> list[object]:
    """Rows of all pages; ``fetch_page`` gives those after so many, and how many there are in all.

    Raises:
        InvalidValue: naming ``total_field``, for an empty page before the last row.
        FeedDataInvalid: for more than ``max_pages``.
    """
    rows: list[object] = []
    for _ in range(max_pages):
        page, total = fetch_page(len(rows))
        rows += page
        if len(rows) >= total:
            return rows
        if not page:
            raise InvalidValue(total_field, str(total), f"must be {len(rows)}, the rows that came")
    raise FeedDataInvalid(f"{provider}: more than {max_pages} pages for one window")
