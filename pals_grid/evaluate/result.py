"""What a replay found: two runs of the same hours, and the budget that one of them followed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pals_grid.accounting.per_token import energy_j_per_token, idle_ratio, miss_ratio

if TYPE_CHECKING:
    from datetime import datetime

    from pals_grid.core.budget import Reason

LABELS = (
    "Plant: simulated GPUs and engine, with modelled coefficients.",
    "Node energy: modelled from GPU energy by the node's overhead; there is no meter.",
    "Load: synthetic; requests of the trace, repeated under a daily envelope.",
    "Cost and carbon are at the node's boundary; joules per token count output tokens.",
)


PER_TOKEN = (
    "node_j_per_token",
    "gpu_j_per_token",
    "cost_per_million_tokens",
    "carbon_g_per_million_tokens",
)
"""Fair to compare where one run leaves more work behind than the other."""


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One hour, or the whole (``start_at`` None), of one run.

    Cost is in the replay's currency and None where no price is known; misses count requests.
    """

    start_at: datetime | None
    node_energy_kwh: float
    gpu_energy_kwh: float
    idle_energy_kwh: float
    cost: float | None
    carbon_g: float | None
    tokens_in: float
    tokens_out: float
    requests_finished: int
    ttft_misses: int
    itl_misses: int

    @property
    def node_j_per_token(self) -> float | None:
        """Joules of the whole node per output token."""
        return energy_j_per_token(self.node_energy_kwh * 3.6e6, self.tokens_out)

    @property
    def gpu_j_per_token(self) -> float | None:
        """Joules of the GPUs per output token."""
        return energy_j_per_token(self.gpu_energy_kwh * 3.6e6, self.tokens_out)

    @property
    def cost_per_million_tokens(self) -> float | None:
        """Cost of a million output tokens."""
        return self._per_million_tokens(self.cost)

    @property
    def carbon_g_per_million_tokens(self) -> float | None:
        """Emissions of a million output tokens, in grams."""
        return self._per_million_tokens(self.carbon_g)

    def _per_million_tokens(self, amount: float | None) -> float | None:
        return None if amount is None or not self.tokens_out else amount / self.tokens_out * 1e6

    @property
    def idle_energy_ratio(self) -> float | None:
        """Share of the node's energy spent without a running request."""
        return idle_ratio(self.idle_energy_kwh, self.node_energy_kwh)

    @property
    def ttft_miss_ratio(self) -> float | None:
        """Share of requests whose first token came late."""
        return miss_ratio(self.ttft_misses, self.requests_finished)

    @property
    def itl_miss_ratio(self) -> float | None:
        """Share of requests whose tokens came late."""
        return miss_ratio(self.itl_misses, self.requests_finished)


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """One way of running the day. ``requests_left`` were still inside at the end."""

    name: str
    description: str
    hours: tuple[ReplayRow, ...]
    total: ReplayRow
    requests_left: int
    power_w: tuple[tuple[datetime, float], ...]


@dataclass(frozen=True, slots=True)
class ReplaySlot:
    """The budget in force over one slot, and the signals as known when the day was over."""

    start_at: datetime
    limit_w: float
    reason: Reason
    explanation: str
    price_per_mwh: float | None
    carbon_g_per_kwh: float | None


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Everything that is printed, drawn or written as JSON."""

    start_at: datetime
    hours: int
    currency: str
    seed: int
    plant: str
    controlled: ReplayRun
    uncontrolled: ReplayRun
    slots: tuple[ReplaySlot, ...]
    plans: int
    cpu_s: float

    @property
    def labels(self) -> tuple[str, ...]:
        """What the figures are, and which signal the files did not have."""
        total = self.uncontrolled.total
        known = [
            f"{name}: as recorded in the file, known to the planner only once published."
            if value is not None
            else f"{name}: the file holds none for these hours; nothing is counted in it."
            for name, value in (("Price", total.cost), ("Carbon", total.carbon_g))
        ]
        return (*LABELS, *known)

    def saving_ratio(self, field: str) -> float | None:
        """Share by which the controlled run's total of ``field`` is below the other's."""
        with_it = getattr(self.controlled.total, field)
        without = getattr(self.uncontrolled.total, field)
        if with_it is None or not without:
            return None
        return float(1 - with_it / without)

    def to_json(self) -> dict[str, object]:
        """Plain data, for a JSON encoder that knows datetimes; ratios are included."""
        document: dict[str, Any] = asdict(self)
        document["labels"] = self.labels
        for name in ("controlled", "uncontrolled"):
            run: ReplayRun = getattr(self, name)
            document[name]["hours"] = [_row_json(row) for row in run.hours]
            document[name]["total"] = _row_json(run.total)
        document["saving_ratio"] = {
            field: self.saving_ratio(field)
            for field in ("node_energy_kwh", "cost", "carbon_g", *PER_TOKEN)
        }
        return document


def _row_json(row: ReplayRow) -> dict[str, object]:
    derived = (*PER_TOKEN, "ttft_miss_ratio", "itl_miss_ratio")
    return asdict(row) | {name: getattr(row, name) for name in derived}
