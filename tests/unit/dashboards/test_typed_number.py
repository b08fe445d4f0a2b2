"""Numbers as people type them."""

from __future__ import annotations

import pytest
from pals_grid_dashboards.console.formats import number
from pals_grid_dashboards.console.typed_number import read_number

from pals_grid.core.errors import InvalidValue


@pytest.mark.parametrize(("text", "value"), [
    ("1000", 1000.0),
    ("4,5", 4.5),
    ("4.5", 4.5),
    ("-0,125", -0.125),
    ("0,250", 0.25),
    ("1.000", 1.0),
    ("1 200,5", 1200.5),
    ("12,34", 12.34),
    ("1234,567", 1234.567),
    (" 7 ", 7.0),
    ("1e3", 1000.0),
])  # fmt: skip
def test_points_commas_and_spaces(text: str, value: float) -> None:
    assert read_number("power", text) == value


def test_what_a_page_shows_can_be_typed_in_again() -> None:
    assert read_number("power", number(12_345.6, 1)) == 12_345.6


@pytest.mark.parametrize(("text", "either"), [
    ("1,000", "1000 or 1.000"),
    ("-12,500", "-12500 or -12.500"),
    ("100,250", "100250 or 100.250"),
])  # fmt: skip
def test_what_may_be_thousands_or_decimals_is_asked_again(text: str, either: str) -> None:
    with pytest.raises(InvalidValue, match=f"must be clear, write {either}") as caught:
        read_number("power", text)
    assert (caught.value.field, caught.value.value) == ("power", text)


@pytest.mark.parametrize("text", ["", "much", "1,000.5", "1,2,3", "4..5", "--1"])
def test_what_is_no_number_is_named(text: str) -> None:
    with pytest.raises(InvalidValue, match="must be a number"):
        read_number("power", text)
