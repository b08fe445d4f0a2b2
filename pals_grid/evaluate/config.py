"""What a replay is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.intervals import require_utc
from pals_grid.core.site import DEFAULT_RESERVE_RATIO

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """One replay: real price and carbon files, a request trace, a simulated node.

    ``start_at`` must lie on a full hour. ``trace_path`` is a CSV in the form of
    AzureLLMInferenceTrace; it is repeated under a daily envelope, which makes the
    load synthetic. ``price_mapping`` and ``carbon_mapping`` are options of the ``file``
    connector; None recognises the file by its header. ``seed`` fixes arrivals and noise.
    ``deferrable_ratio`` of the requests may wait up to ``deferral_s``.
    """

    price_path: Path
    carbon_path: Path
    trace_path: Path
    start_at: datetime
    hours: int = 24
    price_mapping: dict[str, str] | None = None
    carbon_mapping: dict[str, str] | None = None
    currency: str = "GBP"
    timezone: str = "Europe/London"
    carbon_price_per_tonne: float = 0.0
    deferrable_ratio: float = 0.2
    deferral_s: float = 6 * 3600.0
    reserve_ratio: float = DEFAULT_RESERVE_RATIO
    seed: int = 1
    database_url: str | None = None

    def __post_init__(self) -> None:
        start_at = require_utc("start_at", self.start_at)
        if (start_at.minute, start_at.second, start_at.microsecond) != (0, 0, 0):
            raise InvalidValue("start_at", start_at.isoformat(), "must be on a full hour")
        if not 1 <= self.hours <= 24 * 31:
            raise InvalidValue("hours", self.hours, "must be from 1 to 744")
