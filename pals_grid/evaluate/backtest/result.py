"""What came of a backtest: sums by month and policy, savings, bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.evaluate.backtest import names

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

    from pals_grid.core.intervals import Interval
    from pals_grid.evaluate.backtest.validate import Check

DAY_AHEAD_SHARE = 0.95
REAL_TIME_SHARE = 0.80
EQUAL_TOKENS_RATIO = 1e-6


@dataclass(frozen=True, slots=True)
class MonthRun:
    """One policy's month and its settling time. Power and energy at node boundary, modelled.

    ``worth`` is the cost and the priced emissions, in the site's currency: what policies save.
    ``settings`` are what a rival was tuned to. ``power_w`` and ``tokens_per_s`` are by slot.
    """

    policy: str
    settings: str
    energy_kwh: float
    cost: float
    carbon_kg: float | None
    worth: float
    tokens: float
    late_at_once_tokens: float
    late_waiting_tokens: float
    unserved_tokens: float
    peak_w: float
    plans: int
    findings: int
    cpu_s: float
    power_w: npt.NDArray[np.float64]
    tokens_per_s: npt.NDArray[np.float64]

    @property
    def late_ratio(self) -> float:
        """Share of the tokens that were served after their slot or deadline."""
        late = self.late_at_once_tokens + self.late_waiting_tokens
        return late / self.tokens if self.tokens > 0 else 0.0

    def to_json(self) -> dict[str, object]:
        """Plain values; units are in the names."""
        return {
            "policy": self.policy,
            "settings": self.settings,
            "energy_kwh": self.energy_kwh,
            "cost": self.cost,
            "carbon_kg": self.carbon_kg,
            "cost_with_priced_carbon": self.worth,
            "tokens": self.tokens,
            "late_at_once_tokens": self.late_at_once_tokens,
            "late_waiting_tokens": self.late_waiting_tokens,
            "late_ratio": self.late_ratio,
            "unserved_tokens": self.unserved_tokens,
            "peak_w": self.peak_w,
            "plans": self.plans,
            "findings": self.findings,
            "cpu_s": self.cpu_s,
        }


@dataclass(frozen=True, slots=True)
class Month:
    """A month of a site under every policy that was asked for."""

    interval: Interval
    runs: tuple[MonthRun, ...]

    @property
    def name(self) -> str:
        """Year and month, with the days where it is not a whole month."""
        start_at, end_at = self.interval.start_at, self.interval.end_at
        if start_at.day == end_at.day == 1:
            return f"{start_at:%Y-%m}"
        return f"{start_at:%Y-%m-%d} to {end_at:%Y-%m-%d}"

    def run(self, policy: str) -> MonthRun | None:
        """A policy's run, if it was asked for."""
        return next((run for run in self.runs if run.policy == policy), None)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bound, what was reached, and in which month."""

    name: str
    bound: float
    value: float
    month: str

    @property
    def met(self) -> bool:
        """Whether the bound is reached."""
        return self.value >= self.bound

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "name": self.name,
            "bound": self.bound,
            "value": self.value,
            "month": self.month,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class SiteResult:
    """A site over its months. ``objective`` says in words what is saved."""

    slug: str
    name: str
    currency: str
    slot_s: float
    nodes: tuple[str, ...]
    signals: str
    objective: str
    real_time: bool
    months: tuple[Month, ...]
    checks: tuple[Check, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """Policies that every month has, in the usual order."""
        return tuple(name for name in names.ALL if all(month.run(name) for month in self.months))

    def runs(self, policy: str) -> list[MonthRun]:
        """A policy's runs by month."""
        return [run for month in self.months if (run := month.run(policy)) is not None]

    def total(self, policy: str, field: str) -> float:
        """Sum of a figure over the months."""
        return sum(float(getattr(run, field)) for run in self.runs(policy))

    def share(self, base: str, months: Iterable[Month] | None = None) -> float | None:
        """The planner's saving against ``base`` over the foresight's; None where that is none."""
        chosen = self.months if months is None else tuple(months)
        sums = [
            [run.worth for month in chosen if (run := month.run(name)) is not None]
            for name in (base, names.PLANNER, names.FORESIGHT)
        ]
        if any(len(part) != len(chosen) for part in sums):
            return None
        start, planner, foresight = (sum(part) for part in sums)
        best = start - foresight
        return (start - planner) / best if best > 1e-9 * abs(start) else None

    @property
    def bars(self) -> tuple[Bar, ...]:
        """The bars that the policies that ran allow to judge, each by its worst month too."""
        return (*self._share_bars(), *self._rival_bars(), *self._token_bars())

    def _share_bars(self) -> list[Bar]:
        bound = REAL_TIME_SHARE if self.real_time else DAY_AHEAD_SHARE
        shares = [
            (share, month.name)
            for month in self.months
            if (share := self.share(names.NO_CONTROL, [month])) is not None
        ]
        whole = self.share(names.NO_CONTROL)
        if whole is None or not shares:
            return []
        return [
            Bar("share of the foresight's saving", bound, whole, ""),
            Bar("the same, worst month", bound, *min(shares)),
        ]

    def _rival_bars(self) -> list[Bar]:
        found = []
        for rival in (names.PRICE_THRESHOLD, names.CARBON_THRESHOLD):
            margins = [
                ((theirs.worth - ours.worth) / abs(theirs.worth), month.name)
                for month in self.months
                if (theirs := month.run(rival)) and (ours := month.run(names.PLANNER))
            ]
            if margins:
                found.append(Bar(f"below {rival}, worst month", 0.0, *min(margins)))
        return found

    def _token_bars(self) -> list[Bar]:
        """Equal tokens: 1 less the largest difference between two policies in a month."""
        if len(self.policies) < 2:
            return []
        spreads = [
            (1 - (max(tokens) - min(tokens)) / max(tokens), month.name)
            for month in self.months
            if (tokens := [run.tokens for run in month.runs]) and max(tokens) > 0
        ]
        return [Bar("equal tokens, worst month", 1 - EQUAL_TOKENS_RATIO, *min(spreads))]

    def to_json(self) -> dict[str, object]:
        """Plain values; units are in the names."""
        return {
            "site": self.name,
            "currency": self.currency,
            "nodes": list(self.nodes),
            "signals": self.signals,
            "objective": self.objective,
            "boundary": "node",
            "origin": "modelled",
            "share_of_foresight_saving_against_no_control": self.share(names.NO_CONTROL),
            "share_of_foresight_saving_by_shifting": self.share(names.AS_IT_COMES),
            "bars": [bar.to_json() for bar in self.bars],
            "checks": [check.to_json() for check in self.checks],
            "months": [
                {
                    "start_at": month.interval.start_at.isoformat(),
                    "end_at": month.interval.end_at.isoformat(),
                    "runs": [run.to_json() for run in month.runs],
                }
                for month in self.months
            ],
        }
