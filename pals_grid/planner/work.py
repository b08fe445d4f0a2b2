"""What is to be served: tiers at once, queues of work that may wait."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    import numpy.typing as npt

    from pals_grid.core.budget import BatchWork, PlanRequest, PlanSlot
    from pals_grid.core.site import ServiceTier

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

_PER_MTOKEN = 1e-6
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TierWork:
    """Demand served at once: tokens/s by slot. Rank 0 is the most important tier's."""

    name: str
    rank: int
    demand: Floats
    loss_ratio: float
    value_per_token: float


@dataclass(frozen=True, slots=True)
class Queue:
    """Work that may wait: tokens that arrive in each slot may be served up to slot ``last``.

    ``waiting`` tokens are there when the first slot begins; ``waiting_due`` of them (cumulative)
    must be gone by the end of each slot.
    ``last`` is the number of slots where the deadline lies beyond the horizon. ``may_lose`` is
    how many tokens in all may be left undone at ``value_per_token``.
    """

    name: str
    rank: int
    arrivals: Floats
    last: Ints
    may_lose: float
    value_per_token: float
    waiting: float
    waiting_due: Floats
    wait_s: float

    @property
    def arrived(self) -> Floats:
        """Cumulative tokens that may have been served by the end of each slot."""
        return self.waiting + np.cumsum(self.arrivals)

    @property
    def due(self) -> Floats:
        """Cumulative tokens whose window ends by the end of each slot."""
        inside = self.last < len(self.arrivals)
        due = np.bincount(self.last[inside], self.arrivals[inside], len(self.arrivals))
        return self.waiting_due + np.cumsum(due)


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that is to be served."""

    tiers: tuple[TierWork, ...]
    queues: tuple[Queue, ...]

    @property
    def at_once(self) -> Floats:
        """Tokens/s of all tiers that cannot wait, by slot."""
        total: Floats = np.sum([tier.demand for tier in self.tiers], axis=0)
        return total

    @property
    def reachable(self) -> Floats:
        """Tokens of work that may wait and could be served in each slot, at most."""
        total = np.zeros(len(self.tiers[0].demand))
        for queue in self.queues:
            total += queue.arrived - np.concatenate([[0.0], queue.due[:-1]])
        return total

    @property
    def most_value_per_token(self) -> float:
        """The highest value of a token that is stated for any of it."""
        values = [tier.value_per_token for tier in self.tiers]
        return max([*values, *(queue.value_per_token for queue in self.queues)])


def work_of(request: PlanRequest, slots: Sequence[PlanSlot]) -> Work:
    """Split the slots' demand into tiers, and add batch work and backlog."""
    demand = np.array([slot.demand_tokens_per_s for slot in slots])
    duration_s = np.array([slot.interval.duration_s for slot in slots])
    policy_tiers = list(enumerate(request.policy.service_tiers))
    at_once = [item for item in policy_tiers if item[1].deferral_s <= 0]
    later = [item for item in policy_tiers if item[1].deferral_s > 0]
    backlog = [request.backlog_tokens] + [0.0] * len(later)
    queues = [
        _tier_queue(rank, tier, demand * duration_s, slots, waiting)
        for (rank, tier), waiting in zip(later, backlog, strict=False)
    ]
    if not later and request.backlog_tokens > 0:
        queues.append(_backlog_queue(request, slots, len(policy_tiers)))
    first_rank = len(policy_tiers) + 1
    queues += [
        _batch_queue(first_rank + i, items, slots)
        for i, items in enumerate(_by_name(request.batch_work))
    ]
    return Work(
        tuple(_tier_work(rank, tier, demand) for rank, tier in at_once)
        or (TierWork("none", 0, np.zeros_like(demand), 0.0, 0.0),),
        tuple(queue for queue in queues if queue.arrivals.any() or queue.waiting > 0),
    )


def _tier_work(rank: int, tier: ServiceTier, demand: Floats) -> TierWork:
    return TierWork(
        tier.name,
        rank,
        demand * tier.demand_ratio,
        tier.loss_ratio,
        tier.value_per_mtoken * _PER_MTOKEN,
    )


def _tier_queue(
    rank: int, tier: ServiceTier, tokens: Floats, slots: Sequence[PlanSlot], waiting: float
) -> Queue:
    arrivals = tokens * tier.demand_ratio
    return Queue(
        name=tier.name,
        rank=rank,
        arrivals=arrivals,
        last=_last_slots(slots, tier.deferral_s),
        may_lose=tier.loss_ratio * float(arrivals.sum()),
        value_per_token=tier.value_per_mtoken * _PER_MTOKEN,
        waiting=waiting,
        waiting_due=_waiting_due(waiting, arrivals, tier.deferral_s, slots),
        wait_s=tier.deferral_s,
    )


def _waiting_due(
    waiting: float, arrivals: Floats, deferral_s: float, slots: Sequence[PlanSlot]
) -> Floats:
    """How much of the waiting work has to be gone by the end of each slot.

    Nobody says how long it has waited. The oldest was served first, so it is the newest that came:
    taken to be what the forecast has for the same hours a day later, or, where the horizon ends
    before, the first slot's rate. What came in a slot is due in the last one that ends within
    ``deferral_s`` of its start, or in the first.
    """
    ends = [slot.interval.end_at for slot in slots]
    due = np.zeros(len(slots))
    left = waiting
    for came_at, tokens in _came_before(arrivals, slots):
        deadline_at = came_at + timedelta(seconds=deferral_s)
        at = max(0, bisect_right(ends, deadline_at) - 1)
        taken = left if at == 0 else min(left, tokens)
        due[at] += taken
        left -= taken
        if left <= 0 or at == 0:
            break
    due[0] += left
    return np.cumsum(due)


def _came_before(arrivals: Floats, slots: Sequence[PlanSlot]) -> Iterator[tuple[datetime, float]]:
    """Starts and tokens of slots before the first, the newest first."""
    start_at = slots[0].interval.start_at
    end = bisect_left([slot.interval.start_at for slot in slots], start_at + _DAY)
    if slots[-1].interval.end_at < start_at + _DAY:
        length = slots[0].interval.end_at - start_at
        for k in range(1, 1 + int(_DAY / length)):
            yield start_at - k * length, float(arrivals[0])
        return
    for slot, tokens in zip(reversed(slots[:end]), reversed(arrivals[:end]), strict=True):
        yield slot.interval.start_at - _DAY, float(tokens)


def _backlog_queue(request: PlanRequest, slots: Sequence[PlanSlot], rank: int) -> Queue:
    last = _last_slots(slots, request.policy.deferral_s)
    return Queue(
        name="backlog",
        rank=rank,
        arrivals=np.zeros(len(slots)),
        last=last,
        may_lose=0.0,
        value_per_token=0.0,
        waiting=request.backlog_tokens,
        waiting_due=np.where(last[0] <= np.arange(len(slots)), request.backlog_tokens, 0.0),
        wait_s=request.policy.deferral_s,
    )


def _last_slots(slots: Sequence[PlanSlot], deferral_s: float) -> Ints:
    """Index of the last slot that ends within ``deferral_s`` of each slot's start, or itself.

    Work whose window reaches past the horizon is served inside it.
    """
    ends = [slot.interval.end_at for slot in slots]
    deferral = timedelta(seconds=deferral_s)
    return np.array(
        [
            max(i, bisect_right(ends, slot.interval.start_at + deferral) - 1)
            for i, slot in enumerate(slots)
        ]
    )


def _by_name(batch_work: Sequence[BatchWork]) -> list[list[BatchWork]]:
    """Items that are one queue: of one name, released already, none of which may be left undone.

    Served in the order of their deadlines they are exactly as free as one by one.
    """
    groups: list[list[BatchWork]] = []
    waiting: dict[str, list[BatchWork]] = {}
    for item in batch_work:
        held = waiting.get(item.name)
        if item.release_at is not None or item.value_per_mtoken is not None:
            groups.append([item])
        elif held is not None:
            held.append(item)
        else:
            waiting[item.name] = [item]
            groups.append(waiting[item.name])
    return groups


def _batch_queue(rank: int, items: Sequence[BatchWork], slots: Sequence[PlanSlot]) -> Queue:
    if len(items) == 1:
        return _single_queue(rank, items[0], slots)
    ends = [slot.interval.end_at for slot in slots]
    count = len(slots)
    due = np.zeros(count)
    for item in items:
        if item.deadline_at <= ends[-1]:
            due[max(0, bisect_right(ends, item.deadline_at) - 1)] += item.tokens
    latest = max(item.deadline_at for item in items)
    waiting = math.fsum(item.tokens for item in items)
    return Queue(
        name=items[0].name,
        rank=rank,
        arrivals=np.zeros(count),
        last=np.full(count, count - 1 if latest <= ends[-1] else count),
        may_lose=0.0,
        value_per_token=0.0,
        waiting=waiting,
        waiting_due=np.minimum(np.cumsum(due), waiting),
        wait_s=(latest - slots[0].interval.start_at).total_seconds(),
    )


def _single_queue(rank: int, item: BatchWork, slots: Sequence[PlanSlot]) -> Queue:
    """Batch work in the first slot that begins after its release; none of it where that is late.

    A deadline inside the first slots still grants that slot.
    """
    starts = [slot.interval.start_at for slot in slots]
    ends = [slot.interval.end_at for slot in slots]
    first = 0 if item.release_at is None else bisect_left(starts, item.release_at)
    last = len(slots) if item.deadline_at > ends[-1] else bisect_right(ends, item.deadline_at) - 1
    arrivals = np.zeros(len(slots))
    if 0 < first < len(slots):
        arrivals[first] = item.tokens
    value = item.value_per_mtoken
    waiting = item.tokens if first == 0 else 0.0
    return Queue(
        name=item.name,
        rank=rank,
        arrivals=arrivals,
        last=np.full(len(slots), max(first, last)),
        may_lose=item.tokens if value is not None else 0.0,
        value_per_token=(value or 0.0) * _PER_MTOKEN,
        waiting=waiting,
        waiting_due=np.where(np.arange(len(slots)) >= max(first, last), waiting, 0.0),
        wait_s=(item.deadline_at - starts[min(first, len(slots) - 1)]).total_seconds(),
    )
