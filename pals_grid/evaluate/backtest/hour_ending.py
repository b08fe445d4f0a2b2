"""Files whose rows are a local date and the hour that ends."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.series import Observation, ValueKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from zoneinfo import ZoneInfo

    from pals_grid.evaluate.backtest.config import HourEnding

HOUR = timedelta(hours=1)
GZIP = b"\x1f\x8b"


def read_hour_ending(
    path: Path, columns: HourEnding, mapping: Mapping[str, str], zone: ZoneInfo
) -> tuple[Observation, ...]:
    """Read hourly values; ``mapping`` gives ``value_column`` and ``unit`` (a currency per MWh).

    Raises:
        InvalidValue: naming line, column and value.
    """
    if set(mapping) != {"value_column", "unit"}:
        raise InvalidValue("mapping", ", ".join(mapping), "must give value_column and unit alone")
    return _read(path, columns, mapping["value_column"], mapping["unit"], zone)


@lru_cache(maxsize=4)
def _read(
    path: Path, columns: HourEnding, value_column: str, unit: str, zone: ZoneInfo
) -> tuple[Observation, ...]:
    if not unit.endswith("/MWh"):
        raise InvalidValue("mapping.unit", unit, "must be a currency per MWh")
    try:
        raw = path.read_bytes()
        plain = gzip.decompress(raw) if raw.startswith(GZIP) else raw
        rows = list(csv.DictReader(plain.decode("utf-8-sig").splitlines()))
        found = [_observe(columns, row, float(row[value_column]), unit, zone) for row in rows]
    except (OSError, EOFError, ValueError, TypeError, KeyError, csv.Error) as error:
        bound = f"must be CSV with the columns that are named ({error!r})"
        raise InvalidValue("path", path.name, bound) from error
    return tuple(sorted(found, key=lambda item: item.start_at))


def _observe(
    columns: HourEnding, row: dict[str, str], value: float, unit: str, zone: ZoneInfo
) -> Observation:
    date = datetime.strptime(row[columns.date_column], columns.date_format).replace(tzinfo=zone)
    hour = int(row[columns.hour_column].partition(":")[0]) - 1
    if not 0 <= hour < 24:
        raise InvalidValue(columns.hour_column, row[columns.hour_column], "must be from 1 to 24")
    fold = columns.repeated_column != "" and row[columns.repeated_column].strip() == "Y"
    start_at = date.replace(hour=hour, fold=int(fold)).astimezone(UTC)
    return Observation(start_at, start_at + HOUR, value, unit, ValueKind.MEASURED, start_at)
