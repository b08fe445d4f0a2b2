"""Bidding zones of the ENTSO-E Transparency Platform, by name and by code."""

from __future__ import annotations

import re

from pals_grid.core.errors import InvalidValue

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


def read_zone(zone: str) -> str:
    """Return the code of a zone given by name or code.

    Raises:
        InvalidValue: for neither.
    """
    code = ZONES.get(zone.upper().replace("_", "-"), zone)
    if not is_eic(code):
        names = ", ".join(ZONES)
        raise InvalidValue("options.zone", zone, f"must be an EIC code or one of {names}")
    return code


def is_eic(code: str) -> bool:
    """Whether the last of the 16 characters is the check character of the others."""
    if not re.fullmatch(r"[0-9A-Z-]{16}", code):
        return False
    numbers = [EIC_CHARACTERS.index(character) for character in code]
    total = sum(number * weight for number, weight in zip(numbers, range(16, 1, -1), strict=False))
    return numbers[-1] == 36 - (total - 1) % 37
