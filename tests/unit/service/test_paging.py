from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.service.paging import Page, paged

AT = datetime(2026, 3, 2, 12, 0, 0, 5, tzinfo=UTC)


def test_first_page_is_after_nothing() -> None:
    assert Page().after(tuple[int]) is None


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_limit_out_of_bounds_is_refused(limit: int) -> None:
    with pytest.raises(InvalidValue, match="limit: must be from 1 to 1000"):
        Page(limit=limit)


def test_cursor_comes_back_as_the_key() -> None:
    found = paged([1, 2, 3], Page(limit=2), lambda item: (AT, item, "ä/e"))
    assert found.items == (1, 2)
    key = Page(cursor=found.next_cursor).after(tuple[datetime, int, str])
    assert key == (AT, 2, "ä/e")


def test_last_page_has_no_cursor() -> None:
    assert paged([1, 2], Page(limit=2), lambda item: (item,)).next_cursor is None
    assert paged([], Page(limit=2), lambda item: (item,)).next_cursor is None


@pytest.mark.parametrize("cursor", ["", "!", "bm8", "WzFd", "ä", "W10", "WyJ4Il0", "Wz" * 500])
def test_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidValue, match="cursor: must be the next_cursor of the same list"):
        Page(cursor=cursor).after(tuple[datetime, int])
