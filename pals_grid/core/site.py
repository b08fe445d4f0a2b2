"""A site: one grid connection, its limits and its policy."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from zoneinfo import ZoneInfo

from pals_grid.core.errors import InvalidValue

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

DEFAULT_RESERVE_RATIO = 0.8
"""Requests swing within minutes, which a budget of half an hour has to let through."""


@dataclass(frozen=True, slots=True)
class Slo:
    """Latency objectives: a request misses when it is slower."""

    ttft_s: float = 2.0
    itl_s: float = 0.1

    @property
    def planned_itl_s(self) -> float:
        """What operating points are chosen by: 80 % of the objective.

        A table's ITL is a mean; requests that share their time with long prompts lie above it.
        """
        return 0.8 * self.itl_s


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """What the energy manager decides for a site. Power is at the site's boundary, in watts.

    ``deferrable_ratio`` is the share of the demand that may wait up to ``deferral_s``;
    ``reserve_ratio`` is the margin of throughput kept above the expected demand;
    ``safe_limit_w`` holds where no plan does; carbon is priced in the site's currency per tonne.
    """

    slug: str
    name: str
    grid_connection_w: float
    minimum_w: float
    safe_limit_w: float
    timezone: str = "UTC"
    currency: str = "EUR"
    carbon_price_per_tonne: float = 0.0
    deferrable_ratio: float = 0.0
    deferral_s: float = 6 * 3600.0
    reserve_ratio: float = DEFAULT_RESERVE_RATIO
    demand_tokens_per_s: float = 0.0
    slot_s: float = 1800.0
    horizon_s: float = 36 * 3600.0
    slo: Slo = field(default_factory=Slo)

    def __post_init__(self) -> None:
        if not _SLUG.fullmatch(self.slug):
            raise InvalidValue("slug", self.slug, "must be lower-case letters, digits and hyphens")
        if not re.fullmatch(r"[A-Z]{3}", self.currency):
            raise InvalidValue("currency", self.currency, "must be an ISO 4217 code")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise InvalidValue("timezone", self.timezone, "must be an IANA time zone") from error
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float | int) and not math.isfinite(value):
                raise InvalidValue(item.name, value, "must be finite")
        _require_between("grid_connection_w", self.grid_connection_w, 1.0, 1e10)
        _require_between("minimum_w", self.minimum_w, 0.0, self.grid_connection_w)
        _require_between("safe_limit_w", self.safe_limit_w, 0.0, self.grid_connection_w)
        _require_between("carbon_price_per_tonne", self.carbon_price_per_tonne, 0.0, 1e6)
        _require_between("deferrable_ratio", self.deferrable_ratio, 0.0, 1.0)
        _require_between("deferral_s", self.deferral_s, 0.0, 7 * 86_400.0)
        _require_between("reserve_ratio", self.reserve_ratio, 0.0, 10.0)
        _require_between("demand_tokens_per_s", self.demand_tokens_per_s, 0.0, 1e12)
        _require_between("slot_s", self.slot_s, 60.0, 3600.0)
        _require_between("horizon_s", self.horizon_s, self.slot_s, 7 * 86_400.0)
        _require_between("slo.ttft_s", self.slo.ttft_s, 0.001, 3600.0)
        _require_between("slo.itl_s", self.slo.itl_s, 0.001, 3600.0)


@dataclass(frozen=True, slots=True)
class Site:
    """A stored site; ``version`` counts its changes."""

    id: int
    version: int
    policy: SitePolicy


def _require_between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidValue(name, value, f"must be from {low:g} to {high:g}")
