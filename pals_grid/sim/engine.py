"""A simulated serving engine: continuous batching as a fluid, request by request.

All running sequences decode together, so each has finished when the common service (tokens per
sequence) has grown by its length: a heap of finishing marks, O(log n) a request. Prefill is a
queue in order of admission with the same idea: a mark on the prompt tokens done so far.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import InvalidValue
from pals_grid.core.ports import EngineSample

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.site import Slo
    from pals_grid.sim.arrivals import Request

#: Rounding of fluid marks, in tokens.
_EPSILON = 1e-4


class Rates(NamedTuple):
    """Tokens/s now: prompt tokens of the whole engine, output tokens of each sequence."""

    prefill_tokens_per_s: float
    decode_tokens_per_s: float


class SimEngine:
    """Interactive requests go before deferrable ones; those inside are never put out again.

    At most ``deferrable_seqs`` deferrable requests run at once (all by default); one that has
    waited for ``deferral_s`` may wait no longer and is let in like any other.

    A request misses ``slo.ttft_s`` by the time from arrival to its first token (deferrable ones
    are exempt: they may wait), ``slo.itl_s`` by its mean time between tokens.
    """

    def __init__(
        self,
        model: str,
        slo: Slo,
        max_num_seqs: int,
        bring_up: Callable[[], float],
        deferral_s: float = 6 * 3600.0,
    ) -> None:
        if max_num_seqs < 1:
            raise InvalidValue("max_num_seqs", max_num_seqs, "must be 1 or more")
        self._model = model
        self._slo = slo
        self._most_seqs = max_num_seqs
        self._max_num_seqs = max_num_seqs
        self._bring_up = bring_up
        self._deferral_s = deferral_s
        self._deferrable_seqs = max_num_seqs
        self._running_deferrable = 0
        self._waiting: deque[Request] = deque()
        self._waiting_deferrable: deque[Request] = deque()
        self._prefilling: deque[tuple[float, Request]] = deque()
        self._running: list[tuple[float, int, float, Request]] = []
        self._admitted = 0
        self._admitted_tokens_in = 0.0
        self._service_tokens = 0.0
        self._tokens_in = 0.0
        self._tokens_out = 0.0
        self._finished = 0
        self._ttft_misses = 0
        self._itl_misses = 0

    @property
    def model(self) -> str:
        """Name of the model that is served."""
        return self._model

    def observe(self) -> EngineSample:
        """Read the counters now."""
        self._bring_up()
        return EngineSample(
            requests_running=len(self._prefilling) + len(self._running),
            requests_waiting=len(self._waiting),
            tokens_in_total=self._tokens_in,
            tokens_out_total=self._tokens_out,
            requests_finished_total=self._finished,
            ttft_misses_total=self._ttft_misses,
            itl_misses_total=self._itl_misses,
            max_num_seqs=self._max_num_seqs,
            requests_deferred=len(self._waiting_deferrable),
            requests_running_deferrable=self._running_deferrable,
        )

    def apply_deferrable_seqs(self, deferrable_seqs: int) -> None:
        """Let at most so many deferrable requests in."""
        now_s = self._bring_up()
        self._deferrable_seqs = max(0, deferrable_seqs)
        self._admit(now_s)

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        """Set the batch size, clamped; those above a lower one run to their end."""
        if not math.isfinite(max_num_seqs):
            return ActuationResult(
                Outcome.REFUSED, max_num_seqs, float(self._max_num_seqs), "not finite"
            )
        now_s = self._bring_up()
        self._max_num_seqs = min(self._most_seqs, max(1, int(max_num_seqs)))
        self._admit(now_s)
        if self._max_num_seqs != max_num_seqs:
            detail = f"range is 1 to {self._most_seqs}"
            return ActuationResult(Outcome.CLAMPED, max_num_seqs, float(self._max_num_seqs), detail)
        return ActuationResult(Outcome.APPLIED, max_num_seqs, float(self._max_num_seqs))

    # --- what the plant asks ---------------------------------------------------------------

    @property
    def decoding(self) -> int:
        """Sequences in decode."""
        return len(self._running)

    @property
    def prefilling(self) -> bool:
        """Whether a prompt is in work."""
        return bool(self._prefilling)

    def submit(self, request: Request) -> None:
        """Queue a request that has arrived."""
        (self._waiting_deferrable if request.deferrable else self._waiting).append(request)
        self._admit(request.arrival_s)

    def next_event_s(self, rates: Rates) -> float:
        """Seconds until a prompt is done or a sequence finishes at these rates."""
        wait_s = math.inf
        if self._prefilling and rates.prefill_tokens_per_s > 0:
            left = self._prefilling[0][0] - self._tokens_in
            wait_s = left / rates.prefill_tokens_per_s
        if self._running and rates.decode_tokens_per_s > 0:
            left = self._running[0][0] - self._service_tokens
            wait_s = min(wait_s, left / rates.decode_tokens_per_s)
        return max(0.0, wait_s)

    def progress(self, seconds: float, rates: Rates) -> None:
        """Work for ``seconds``, no longer than until the next event."""
        if self._prefilling:
            self._tokens_in += seconds * rates.prefill_tokens_per_s
        if self._running:
            step = seconds * rates.decode_tokens_per_s
            self._service_tokens += step
            self._tokens_out += step * len(self._running)

    def settle(self, now_s: float) -> bool:
        """Take the events that are due; whether there were any."""
        changed = False
        while self._prefilling and self._prefilling[0][0] - self._tokens_in <= _EPSILON:
            self._start_decode(now_s, *self._prefilling.popleft())
            changed = True
        while self._running and self._running[0][0] - self._service_tokens <= _EPSILON:
            self._finish(now_s, *heapq.heappop(self._running))
            changed = True
        if changed:
            self._admit(now_s)
        return changed

    def _admit(self, now_s: float) -> None:
        """Let waiting requests in while there is room."""
        while len(self._prefilling) + len(self._running) < self._max_num_seqs:
            queue = self._waiting or self._deferrable_due(now_s)
            if not queue:
                return
            request = queue.popleft()
            self._running_deferrable += request.deferrable
            self._admitted_tokens_in += request.tokens_in
            self._prefilling.append((self._admitted_tokens_in, request))

    def _deferrable_due(self, now_s: float) -> deque[Request] | None:
        """Return the deferrable queue, when its first may be let in."""
        queue = self._waiting_deferrable
        if not queue:
            return None
        overdue = now_s - queue[0].arrival_s >= self._deferral_s
        return queue if overdue or self._running_deferrable < self._deferrable_seqs else None

    def _start_decode(self, now_s: float, mark: float, request: Request) -> None:
        """A prompt is done: its first token is out."""
        self._tokens_in = max(self._tokens_in, mark)
        self._tokens_out += 1
        if not request.deferrable and now_s - request.arrival_s > self._slo.ttft_s:
            self._ttft_misses += 1
        if request.tokens_out == 1:
            self._finished += 1
            self._running_deferrable -= request.deferrable
            return
        self._admitted += 1
        finish = self._service_tokens + request.tokens_out - 1
        heapq.heappush(self._running, (finish, self._admitted, now_s, request))

    def _finish(
        self, now_s: float, mark: float, _order: int, first_token_s: float, request: Request
    ) -> None:
        """Count out a sequence that has its last token."""
        self._tokens_out += max(0.0, mark - self._service_tokens)
        self._finished += 1
        self._running_deferrable -= request.deferrable
        if now_s - first_token_s > self._slo.itl_s * (request.tokens_out - 1):
            self._itl_misses += 1
