"""The site file of a backtest: policy, nodes, load and signals, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from pals_grid.core.errors import InvalidValue
from pals_grid.core.site import SitePolicy
from pals_grid.counterfactual.plant import Nodes

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.core.site import ServiceTier

DAY_AHEAD = "day_ahead"
AFTER = "after"

_Positive = Annotated[float, Meta(gt=0, le=1e12)]


class HourEnding(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Columns of a file whose rows are a local date and the hour that ends (1 to 24).

    ``repeated_column`` says Y for the second of the two hours at the end of summer time.
    """

    date_column: str
    hour_column: str
    date_format: str = "%m/%d/%Y"
    repeated_column: str = ""


class Known(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When values become known.

    ``day_ahead``: at ``published_at`` (local) on the day before the day of delivery, which begins
    ``day_shift_h`` hours before local midnight. ``after``: ``lag_s`` after the interval's end, as
    real-time values are. ``column``: as the file's own column says.
    """

    rule: Literal["day_ahead", "after", "column"] = "day_ahead"
    published_at: Annotated[str, Meta(pattern="^[0-2][0-9]:[0-5][0-9]$")] = "13:00"
    day_shift_h: Annotated[float, Meta(ge=0, le=12)] = 0.0
    lag_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


class Series(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of values. ``mapping`` are options of the connector ``file``; None: by the header.

    ``timezone`` is that of the market; the site's where empty. A hole in the file is filled with
    the value before it, for ``hold_s`` at most; a longer one is refused inside a month.
    """

    path: str
    known: Known = Known()
    mapping: dict[str, str] | None = None
    hour_ending: HourEnding | None = None
    timezone: str = ""
    hold_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


class Load(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Output tokens/s that the site is asked for; all tiers share its shape.

    ``daily``: the synthetic envelope of the replay (0.6 at 03:00, 1.4 at 15:00 local time) times
    ``weekend_ratio`` on Saturdays and Sundays, times log-normal noise of ``noise_ratio`` that fades
    over two hours. ``constant``: the mean throughout. ``csv``: ``path`` has the columns
    ``start_at`` (ISO 8601 with offset, equally long steps) and ``tokens_per_s``.
    """

    shape: Literal["daily", "constant", "csv"] = "daily"
    mean_tokens_per_s: _Positive | None = None
    weekend_ratio: Annotated[float, Meta(gt=0, le=10)] = 0.8
    noise_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.15
    seed: int = 1
    path: str = ""


class SiteFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a backtest is made of, besides its dates.

    Without ``price`` the price is ``constant_price_per_mwh`` throughout. ``replan_s`` is how often
    the planner is asked; the foresight's windows are ``foresight_days``, of which all but the last
    two are carried out.
    """

    policy: SitePolicy
    nodes: Annotated[tuple[Nodes, ...], Meta(min_length=1)]
    load: Load
    price: Series | None = None
    constant_price_per_mwh: float | None = None
    carbon: Series | None = None
    replan_s: Annotated[float, Meta(ge=300, le=86_400)] = 3600.0
    foresight_days: Annotated[int, Meta(ge=3, le=7)] = 6

    def __post_init__(self) -> None:
        if (self.price is None) is (self.constant_price_per_mwh is None):
            raise InvalidValue("price", None, "must be given, or else constant_price_per_mwh")
        if self.replan_s % self.policy.slot_s:
            bound = f"must be a multiple of policy.slot_s ({self.policy.slot_s:g})"
            raise InvalidValue("replan_s", self.replan_s, bound)
        if 86_400 % self.policy.slot_s:
            raise InvalidValue("policy.slot_s", self.policy.slot_s, "must divide a day")
        losing = [tier.name for tier in self.policy.tiers if tier.loss_ratio > 0]
        if losing:
            bound = "must be 0: policies are compared at equal tokens"
            raise InvalidValue(f"policy.tiers[{losing[0]}].loss_ratio", "above 0", bound)
        if self.load.shape != "csv" and self.load.mean_tokens_per_s is None:
            raise InvalidValue("load.mean_tokens_per_s", None, "must be given without a CSV")

    @property
    def tiers(self) -> tuple[ServiceTier, ...]:
        """The policy's tiers that have any demand."""
        return tuple(tier for tier in self.policy.service_tiers if tier.demand_ratio > 0)


def load_site(path: Path) -> SiteFile:
    """Read a site file; of its ``policy``, ``minimum_w`` and ``safe_limit_w`` may be left out.

    Raises:
        InvalidValue: for a file that cannot be read, naming what is wrong.
    """
    try:
        raw = msgspec.json.decode(path.read_bytes())
        if isinstance(raw, dict) and isinstance(raw.get("policy"), dict):
            raw["policy"] = {"minimum_w": 0.0, "safe_limit_w": 0.0} | raw["policy"]
        return msgspec.convert(raw, SiteFile)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise InvalidValue(f"site {path.name}", str(error), "must be a site file") from error
