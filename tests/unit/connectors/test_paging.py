from decimal import Decimal

import pytest
from pals_grid_connectors.paging import rows_of_pages

from pals_grid.core.errors import FeedDataInvalid, InvalidValue


def fetch(rows: list[object], *, size: int, total: int) -> tuple[list[object], list[int]]:
    """Rows that were read out of pages of ``size``, and after how many each page was asked for."""
    asked: list[int] = []

    def fetch_page(offset: int) -> tuple[list[object], Decimal]:
        asked.append(offset)
        return rows[offset : offset + size], Decimal(total)

    return rows_of_pages("Here", 3, "count", fetch_page), asked


def test_pages_are_read_to_the_last_row() -> None:
    assert fetch([*"abcde"], size=2, total=5) == ([*"abcde"], [0, 2, 4])
    assert fetch([*"ab"], size=2, total=2) == ([*"ab"], [0])
    assert fetch([], size=2, total=0) == ([], [0])


def test_pages_that_stop_short_or_never_end_are_refused() -> None:
    with pytest.raises(InvalidValue, match="count: must be 2, the rows that came, got '5'"):
        fetch([*"ab"], size=2, total=5)
    with pytest.raises(FeedDataInvalid, match="Here: more than 3 pages for one window"):
        fetch([*"abcdefg"], size=2, total=7)
