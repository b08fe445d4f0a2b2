"""The measures of a run. Every one counts from the end of the warm-up on.

Energy and tokens are of the window ``[start_s, end_s)``; requests are those that arrive in it,
followed to their end or until the run's. One that is not finished by then is outside.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.evaluate.suite.statistics import quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pals_grid.core.site import Slo
    from pals_grid.sim.arrivals import Request
    from pals_grid.sim.engine import RequestRecord

WINDOW_S = 5.0
GOODPUT_RATIO = 0.95
OVERSHOOT_RATIO = 0.02
SETTLED_RATIO = 0.02


class TickSample(NamedTuple):
    """A node after a tick: counters since the start, and what held during the tick.

    ``draw_w`` is the GPUs' mean over the tick, from their energy counters; ``allowed_w`` what
    the envelope left to them. ``limit_w`` is per GPU, the mean of all.
    """

    at_s: float
    gpu_j: float
    node_j: float
    tokens_out: float
    draw_w: float
    node_w: float
    envelope_w: float
    limit_w: float
    max_num_seqs: float
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class Energy:
    """Output tokens and joules of a window."""

    seconds: float
    tokens: float
    gpu_j: float
    node_j: float

    @property
    def tokens_per_s(self) -> float:
        """Mean throughput."""
        return self.tokens / self.seconds

    def metrics(self) -> dict[str, float | None]:
        """Throughput, draw, tokens/J at both boundaries."""
        return {
            "tokens_per_s": self.tokens_per_s,
            "gpu_power_w": self.gpu_j / self.seconds,
            "node_power_w": self.node_j / self.seconds,
            "tokens_per_j_gpu": self.tokens / self.gpu_j,
            "tokens_per_j_node": self.tokens / self.node_j,
        }


def energy(ticks: Sequence[TickSample], start_s: float, end_s: float) -> Energy:
    """What was made and used between the ticks nearest to ``start_s`` and ``end_s``."""
    first = min(ticks, key=lambda tick: abs(tick.at_s - start_s))
    last = min(ticks, key=lambda tick: abs(tick.at_s - end_s))
    return Energy(
        seconds=last.at_s - first.at_s,
        tokens=last.tokens_out - first.tokens_out,
        gpu_j=last.gpu_j - first.gpu_j,
        node_j=last.node_j - first.node_j,
    )


class Served(NamedTuple):
    """A request's fate; latencies are None while they did not happen."""

    arrival_s: float
    tokens_out: int
    ttft_s: float | None
    itl_s: float | None
    e2e_s: float | None

    def inside(self, slo: Slo) -> bool:
        """Whether it finished, its first token and its mean time between tokens in time."""
        if self.ttft_s is None or self.e2e_s is None:
            return False
        return self.ttft_s <= slo.ttft_s and (self.itl_s is None or self.itl_s <= slo.itl_s)


def served(
    arrived: Iterable[Request], records: Iterable[RequestRecord], start_s: float, end_s: float
) -> list[Served]:
    """The fate of every request that arrived in the window, in order of arrival."""
    done: dict[tuple[float, int, int], list[RequestRecord]] = {}
    for record in records:
        key = (record.arrival_s, record.tokens_in, record.tokens_out)
        done.setdefault(key, []).append(record)
    fates = []
    for request in arrived:
        if start_s <= request.arrival_s < end_s:
            same = done.get((request.arrival_s, request.tokens_in, request.tokens_out))
            fates.append(_fate(request, same.pop() if same else None))
    return fates


def _fate(request: Request, record: RequestRecord | None) -> Served:
    if record is None:
        return Served(request.arrival_s, request.tokens_out, None, None, None)
    gaps = record.tokens_out - 1
    in_decode_s = record.finished_s - record.first_token_s
    return Served(
        arrival_s=request.arrival_s,
        tokens_out=request.tokens_out,
        ttft_s=record.first_token_s - record.arrival_s,
        itl_s=in_decode_s / gaps if gaps > 0 else None,
        e2e_s=record.finished_s - record.arrival_s,
    )


def request_metrics(fates: Sequence[Served], slo: Slo) -> dict[str, float | None]:
    """Shares outside the objectives, and latencies of the requests that finished."""
    ttft = [fate.ttft_s for fate in fates if fate.ttft_s is not None]
    itl = [fate.itl_s for fate in fates if fate.itl_s is not None]
    e2e = [fate.e2e_s for fate in fates if fate.e2e_s is not None]
    return {
        "requests": float(len(fates)),
        "unfinished": float(sum(fate.e2e_s is None for fate in fates)),
        "outside_ratio": outside_ratio(fates, slo),
        "windows_outside_ratio": windows_outside_ratio(fates, slo),
        "ttft_p50_s": quantile(ttft, 0.5),
        "ttft_p99_s": quantile(ttft, 0.99),
        "request_itl_p50_s": quantile(itl, 0.5),
        "request_itl_p99_s": quantile(itl, 0.99),
        "e2e_p50_s": quantile(e2e, 0.5),
        "e2e_p99_s": quantile(e2e, 0.99),
        "e2e_mean_s": sum(e2e) / len(e2e) if e2e else None,
    }


def outside_ratio(fates: Sequence[Served], slo: Slo) -> float | None:
    """Share of requests outside the objectives."""
    if not fates:
        return None
    return sum(not fate.inside(slo) for fate in fates) / len(fates)


def windows_outside_ratio(fates: Sequence[Served], slo: Slo) -> float | None:
    """Share of 5-s windows (by arrival) whose goodput is below 95 % of the demand.

    Goodput counts the output tokens of the requests inside the objectives, demand those of all.
    Windows without arrivals do not count.
    """
    demand: dict[int, float] = {}
    good: dict[int, float] = {}
    for fate in fates:
        window = int(fate.arrival_s // WINDOW_S)
        demand[window] = demand.get(window, 0.0) + fate.tokens_out
        if fate.inside(slo):
            good[window] = good.get(window, 0.0) + fate.tokens_out
    if not demand:
        return None
    below = sum(good.get(window, 0.0) < GOODPUT_RATIO * whole for window, whole in demand.items())
    return below / len(demand)


def windows_below_ratio(
    ticks: Sequence[TickSample], start_s: float, end_s: float, target_tokens_per_s: float
) -> float | None:
    """Share of 5-s windows with less than 95 % of a throughput target."""
    marks = [tick for tick in ticks if start_s - 1e-9 <= tick.at_s <= end_s + 1e-9]
    if len(marks) < 2:
        return None
    step = max(1, round(WINDOW_S / (marks[1].at_s - marks[0].at_s)))
    edges = marks[::step]
    rates = [
        (b.tokens_out - a.tokens_out) / (b.at_s - a.at_s) for a, b in itertools.pairwise(edges)
    ]
    if not rates:
        return None
    return sum(rate < GOODPUT_RATIO * target_tokens_per_s for rate in rates) / len(rates)


# --- following a budget --------------------------------------------------------------------


def tracking_metrics(ticks: Sequence[TickSample]) -> dict[str, float | None]:
    """How the node's draw follows its envelope, over the ticks at which it binds."""
    if not ticks:
        return {"tracking_mae_ratio": None, "overshoot_ratio": None}
    errors = [abs(tick.node_w - tick.envelope_w) / tick.envelope_w for tick in ticks]
    over = sum(tick.node_w > tick.envelope_w * (1 + OVERSHOOT_RATIO) for tick in ticks)
    return {
        "tracking_mae_ratio": sum(errors) / len(errors),
        "overshoot_ratio": over / len(ticks),
    }


def settling_ticks(ticks: Sequence[TickSample], hold: int = 3) -> int | None:
    """Ticks from a step to the first of ``hold`` in a row within 2 % of the envelope.

    ``ticks`` begins with the first tick that ends after the step; 1 means that this very tick's
    mean draw is inside. None: never.
    """
    inside = [
        abs(tick.node_w - tick.envelope_w) <= SETTLED_RATIO * tick.envelope_w for tick in ticks
    ]
    for i in range(len(inside) - hold + 1):
        if all(inside[i : i + hold]):
            return i + 1
    return None


def direction_changes(limits_w: Sequence[float], ratio: float = 0.05) -> int:
    """How often a limit turns round, moves of less than ``ratio`` since the last turn left out."""
    turns, direction, extreme = 0, 0, limits_w[0] if limits_w else 0.0
    for limit_w in limits_w:
        if (direction >= 0 and limit_w > extreme) or (direction <= 0 and limit_w < extreme):
            if direction == 0 and abs(limit_w - extreme) > ratio * extreme:
                direction = 1 if limit_w > extreme else -1
                extreme = limit_w
            elif direction != 0:
                extreme = limit_w
        elif direction != 0 and abs(limit_w - extreme) > ratio * extreme:
            turns, direction, extreme = turns + 1, -direction, limit_w
    return turns


def merged(*parts: Mapping[str, float | None]) -> dict[str, float | None]:
    """One dictionary of several."""
    return {key: value for part in parts for key, value in part.items()}
