"""Which requests of the running batch take part in a step. Knows no vLLM: requests are ids.

A batch above its target shrinks in one of three ways (`BatchMode`). Under PARK those that sit out
change places with those that run: whoever has waited longest comes in, whoever has run longest
goes out, so often that nobody waits longer than ``park_s`` while a step is shorter than a turn.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pals_grid.node.vllm.layout import BatchMode

if TYPE_CHECKING:
    from collections.abc import Sequence

PARK_S = 0.25


class BatchRequest(Protocol):
    """What is read of a vLLM request."""

    @property
    def request_id(self) -> str: ...  # noqa: D102


class StepPlan(NamedTuple):
    """What a step does: who is parked, who is preempted, and the ``limit`` on the others.

    While anybody is parked the limit lets nobody new in.
    """

    limit: int
    parked: Sequence[BatchRequest] = ()
    preempted: Sequence[BatchRequest] = ()


class BatchPolicy:
    """Plans each step; keeps who is parked since when."""

    def __init__(self, park_s: float = PARK_S) -> None:
        self._park_s = park_s
        self._parked_s: dict[str, float] = {}  # in order: who is parked longest comes first
        self._parked: list[BatchRequest] = []
        self._came_s: dict[str, float] = {}
        self._turn_at_s = 0.0
        self.longest_park_s = 0.0

    def plan(
        self, running: Sequence[BatchRequest], cap: int, mode: BatchMode, now_s: float
    ) -> StepPlan:
        """Plan a step of at most ``cap`` >= 1 requests, ``running`` in the order of admission."""
        excess = len(running) - cap
        if mode is BatchMode.PARK and excess > 0:
            parked = self._park(running, cap, now_s)
            return StepPlan(len(running) - len(parked), parked)
        held = self._release(running, now_s) if self._parked_s else []
        if mode is BatchMode.PREEMPT and excess > 0:
            going = running[cap:]
            held = [request for request in held if request not in going]
            return StepPlan(cap - len(held), held, going)
        return StepPlan(max(cap, len(running)) - len(held), held)

    def _release(self, running: Sequence[BatchRequest], now_s: float) -> list[BatchRequest]:
        """Bring all in who can come; return those who cannot yet."""
        by_id = {request.request_id: request for request in running}
        self._drop_gone(by_id)
        self._bring_in(by_id, len(by_id), now_s)
        if not self._parked_s:
            self._came_s.clear()
        self._parked = [by_id[name] for name in self._parked_s]
        return self._parked

    def _park(self, running: Sequence[BatchRequest], cap: int, now_s: float) -> list[BatchRequest]:
        if now_s < self._turn_at_s and len(self._parked) == len(running) - cap:
            names = self._parked_s
            if sum(request.request_id in names for request in running) == len(self._parked):
                return self._parked  # as in the step before: most steps are
        by_id = {request.request_id: request for request in running}
        self._drop_gone(by_id)
        room = cap - (len(running) - len(self._parked_s))
        if room < 0:
            self._send_out(by_id, -room, now_s)
            self._turn_at_s = now_s + self._turn_s(cap)
        elif room > 0:
            self._bring_in(by_id, room, now_s)
        if self._parked_s and now_s >= self._turn_at_s:
            came = self._bring_in(by_id, min(cap, len(self._parked_s)), now_s)
            self._send_out(by_id, came, now_s)
            self._turn_at_s = now_s + self._turn_s(cap)
        self._parked = [by_id[name] for name in self._parked_s]
        return self._parked

    def _drop_gone(self, by_id: dict[str, BatchRequest]) -> None:
        for name in [name for name in self._parked_s if name not in by_id]:
            del self._parked_s[name]
        if len(self._came_s) > 2 * len(by_id):
            self._came_s = {name: at for name, at in self._came_s.items() if name in by_id}

    def _turn_s(self, cap: int) -> float:
        """Return how long a turn is, so that the last of the parked comes in after ``park_s``."""
        return self._park_s / max(1, -(-len(self._parked_s) // cap))

    def _send_out(self, by_id: dict[str, BatchRequest], count: int, now_s: float) -> None:
        """Park those that came in first; of those that never sat out, the newest."""
        inside = [name for name in by_id if name not in self._parked_s]
        inside.reverse()
        inside.sort(key=lambda name: self._came_s.get(name, 0.0))
        for name in inside[:count]:
            self._came_s.pop(name, None)
            self._parked_s[name] = now_s

    def _bring_in(self, by_id: dict[str, BatchRequest], count: int, now_s: float) -> int:
        """Bring in those that waited longest, except those whose last token is still on its way.

        A request may only come back once the scheduler knows all its tokens.
        """
        ready = (name for name in self._parked_s if is_settled(by_id[name]))
        chosen = list(itertools.islice(ready, count))
        for name in chosen:
            self.longest_park_s = max(self.longest_park_s, now_s - self._parked_s.pop(name))
            self._came_s[name] = now_s
        return len(chosen)


def is_settled(request: BatchRequest) -> bool:
    """Whether no token of the request is still being computed (async scheduling)."""
    return getattr(request, "num_output_placeholders", 0) <= 0
