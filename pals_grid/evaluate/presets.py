"""Options of the ``file`` connector for files that are recognised by their header."""

from __future__ import annotations

import csv
import gzip
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PRICE_PRESETS: tuple[dict[str, str], ...] = (
    {  # Octopus Agile, half-hourly, local time without offset, VAT included
        "unit": "p/kWh",
        "start_column": "Period from",
        "end_column": "Period to",
        "value_column": "Agile Import price (p/kWh)",
        "time_format": "%d/%m/%Y %H:%M",
        "timezone": "Europe/London",
    },
)
CARBON_PRESETS: tuple[dict[str, str], ...] = (
    {  # polls of Electricity Maps' latest value; ``timestamp`` is the time of the poll
        "unit": "gCO2eq/kWh",
        "start_column": "zone_datetime",
        "value_column": "carbon_intensity_avg",
        "interval_s": "3600",
        "known_at_column": "timestamp",
        "known_at_format": "unix",
    },
)
_COLUMNS = ("start_column", "end_column", "value_column", "known_at_column")


def file_options(
    field: str,
    path: Path,
    quantity: str,
    mapping: Mapping[str, str] | None,
    presets: tuple[dict[str, str], ...],
) -> dict[str, str]:
    """Options that read ``path``: the mapping given, or the preset that the header fits.

    Raises:
        InvalidValue: when the file cannot be read, or no preset fits and no mapping is given.
    """
    base = {"quantity": quantity, "path": str(path.resolve())}
    if mapping is not None:
        return base | dict(mapping)
    header = _header(field, path)
    for preset in presets:
        if all(preset[name] in header for name in _COLUMNS if name in preset):
            return base | preset
    shown = ",".join(header)[:120]
    raise InvalidValue(field, shown, "has columns that no preset knows: give a mapping")


def _header(field: str, path: Path) -> list[str]:
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt") if is_gzip else path.open() as text:
            return [name.strip() for name in next(csv.reader(text), [])]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(field, str(path), f"must be a readable CSV file ({error})") from error
