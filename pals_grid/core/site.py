"""A site: one grid connection, its limits and its policy."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from enum import StrEnum
from zoneinfo import ZoneInfo

from pals_grid.core.errors import InvalidValue

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

DEFAULT_RESERVE_RATIO = 0.8
"""Requests swing within minutes, which a budget of half an hour has to let through."""

MOST_TIERS = 20


class LiveGrants(StrEnum):
    """Whether power moves between a site's nodes inside an interval of its plan.

    A dry run computes and records what would be granted, and hands nothing out.
    """

    OFF = "off"
    DRY_RUN = "dry_run"
    ON = "on"


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
class ServiceTier:
    """A class of demand: its share, what it may lose, what a token is worth, how long it may wait.

    ``loss_ratio`` is the floor: at most this share may go unserved, and only where serving it
    costs more than ``value_per_mtoken`` (site's currency per million output tokens) or power is
    short. Work with a ``deferral_s`` above 0 may be served so much later.
    """

    name: str
    demand_ratio: float
    loss_ratio: float = 0.0
    value_per_mtoken: float = 0.0
    deferral_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """What the energy manager decides for a site. Power is at the site's boundary, in watts.

    ``minimum_w`` is never below, ``maximum_w`` never above. ``ramp_w_per_min`` bounds how fast the
    power at the grid connection may change. ``tiers`` split the demand, the most important first;
    without them ``deferrable_ratio`` is the share of the demand that may wait up to
    ``deferral_s``, and nothing may be lost.
    ``reserve_ratio`` is the margin of throughput kept above the expected demand;
    ``safe_limit_w`` holds where no plan does; carbon is priced in the site's currency per tonne:
    ``marginal_carbon_ratio`` of it by the marginal intensity, the rest by the average one.
    ``carbon_cap_kg_per_day`` counts average intensity over the site's local day.
    ``other_load_w`` is what live grants keep free for what the site draws beside its nodes, where
    no meter says it.
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
    tiers: tuple[ServiceTier, ...] = ()
    maximum_w: float | None = None
    ramp_w_per_min: float | None = None
    marginal_carbon_ratio: float = 0.0
    carbon_cap_kg_per_day: float | None = None
    live_grants: LiveGrants = LiveGrants.OFF
    other_load_w: float = 0.0

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
        _require_between("marginal_carbon_ratio", self.marginal_carbon_ratio, 0.0, 1.0)
        _require_between("other_load_w", self.other_load_w, 0.0, self.grid_connection_w)
        if self.maximum_w is not None:
            _require_between("maximum_w", self.maximum_w, self.minimum_w, self.grid_connection_w)
        if self.ramp_w_per_min is not None:
            _require_between("ramp_w_per_min", self.ramp_w_per_min, 1.0, 1e10)
        if self.carbon_cap_kg_per_day is not None:
            _require_between("carbon_cap_kg_per_day", self.carbon_cap_kg_per_day, 0.0, 1e9)
        if self.live_grants not in {mode.value for mode in LiveGrants}:
            bound = f"must be one of {', '.join(LiveGrants)}"
            raise InvalidValue("live_grants", self.live_grants, bound)
        self._require_tiers()

    @property
    def service_tiers(self) -> tuple[ServiceTier, ...]:
        """The tiers; where none are stated, what may not wait and what may."""
        return self.tiers or (
            ServiceTier("interactive", 1 - self.deferrable_ratio),
            ServiceTier("deferrable", self.deferrable_ratio, deferral_s=self.deferral_s),
        )

    @property
    def limit_w(self) -> float:
        """The most that the site may ever draw: the grid connection, or less."""
        if self.maximum_w is None:
            return self.grid_connection_w
        return min(self.maximum_w, self.grid_connection_w)

    def _require_tiers(self) -> None:
        if not self.tiers:
            return
        if self.deferrable_ratio > 0:
            bound = "must be 0 where tiers are stated: a tier has its own deferral_s"
            raise InvalidValue("deferrable_ratio", self.deferrable_ratio, bound)
        if len(self.tiers) > MOST_TIERS:
            raise InvalidValue("tiers", len(self.tiers), f"must be at most {MOST_TIERS}")
        for i, tier in enumerate(self.tiers):
            _require_tier(f"tiers[{i}]", tier, [other.name for other in self.tiers[:i]])
        total = sum(tier.demand_ratio for tier in self.tiers)
        if abs(total - 1) > 1e-6:
            raise InvalidValue("tiers.demand_ratio", total, "must add up to 1")


@dataclass(frozen=True, slots=True)
class Site:
    """A stored site; ``version`` counts its changes."""

    id: int
    version: int
    policy: SitePolicy


def _require_tier(field_name: str, tier: ServiceTier, before: list[str]) -> None:
    if not 1 <= len(tier.name.strip()) <= 100 or tier.name in before:
        raise InvalidValue(
            f"{field_name}.name", tier.name[:120], "must have 1 to 100 characters, and be used once"
        )
    _require_between(f"{field_name}.demand_ratio", tier.demand_ratio, 0.0, 1.0)
    _require_between(f"{field_name}.loss_ratio", tier.loss_ratio, 0.0, 1.0)
    _require_between(f"{field_name}.value_per_mtoken", tier.value_per_mtoken, 0.0, 1e9)
    _require_between(f"{field_name}.deferral_s", tier.deferral_s, 0.0, 7 * 86_400.0)
    if tier.loss_ratio > 0 and tier.value_per_mtoken == 0:
        bound = "must be above 0 where tokens may be lost"
        raise InvalidValue(f"{field_name}.value_per_mtoken", tier.value_per_mtoken, bound)


def _require_between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidValue(name, value, f"must be from {low:g} to {high:g}")
