from __future__ import annotations

import pytest
from pals_grid_dashboards.console import formats
from pals_grid_dashboards.console.formats import MINUS, THIN, UNKNOWN


@pytest.mark.parametrize(
    ("value_w", "text"),
    [
        (None, UNKNOWN),
        (0.0, f"0{THIN}W"),
        (999.4, f"999{THIN}W"),
        (999.6, f"1.00{THIN}kW"),
        (4_600.0, f"4.60{THIN}kW"),
        (123_456.0, f"123{THIN}kW"),
        (12_345_678.0, f"12.3{THIN}MW"),
    ],
)
def test_power_takes_the_unit_that_fits(value_w: float | None, text: str) -> None:
    assert formats.power(value_w) == text


def test_numbers_group_thousands_and_never_show_a_minus_zero() -> None:
    assert formats.number(1_234_567.0) == f"1{THIN}234{THIN}567"
    assert formats.number(-12.34, 1) == f"{MINUS}12.3"
    assert formats.number(-0.001, 2) == "0.00"
    assert formats.number(float("nan")) == UNKNOWN


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.7276, "0.728"), (1.0, "1.00"), (58.83, "58.8"), (1234.5, f"1{THIN}234"), (0.0, "0.00")],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert formats.significant(value) == text


def test_money_keeps_small_sums_visible() -> None:
    assert formats.money(7.431, "GBP") == f"7.43{THIN}GBP"
    assert formats.money(0.0281, "GBP") == f"0.0281{THIN}GBP"
    assert formats.money(-3.2, "EUR") == f"{MINUS}3.20{THIN}EUR"
    assert formats.money(None, "EUR") == UNKNOWN


def test_negative_prices_are_shown() -> None:
    assert formats.price(-17.5, "EUR") == f"{MINUS}17.50{THIN}EUR/MWh"


@pytest.mark.parametrize(
    ("ratio", "text"), [(1.0, "100"), (0.9999, "99.9"), (0.967, "97"), (0.0, "0"), (1.2, "120")]
)
def test_nearly_all_is_not_all(ratio: float, text: str) -> None:
    assert formats.percent(ratio) == f"{text}{THIN}%"


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (3.2, f"3{THIN}s"),
        (89.0, f"89{THIN}s"),
        (300.0, f"5{THIN}min"),
        (7_200.0, f"2{THIN}h"),
        (7_800.0, f"2{THIN}h 10{THIN}min"),
        (200_000.0, f"2{THIN}days"),
        (None, UNKNOWN),
    ],
)
def test_durations_in_their_two_largest_units(value_s: float | None, text: str) -> None:
    assert formats.duration(value_s) == text


def test_amounts_change_unit_when_they_are_large_or_small() -> None:
    assert formats.carbon_mass(62.5) == f"62.5{THIN}g"
    assert formats.carbon_mass(5_016.0) == f"5.02{THIN}kg"
    assert formats.tokens(2_700_000.0) == f"2{THIN}700{THIN}000"
    assert formats.tokens(44_100_000.0) == f"44.1{THIN}M"
    assert formats.energy(1.861) == f"1.86{THIN}kWh"
    assert formats.energy(0.25) == f"250{THIN}Wh"
    assert formats.energy(0.00005) == f"<{THIN}1{THIN}Wh"
