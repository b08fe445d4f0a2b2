"""A simulated serving engine: continuous batching with chunked prefill, request by request.

All running sequences decode together, so each has finished when the common service (tokens per
sequence) has grown by its length: a heap of finishing marks, O(log n) a request. Between two
events the service grows steadily. Prompts are worked off in chunks: a step that carries a chunk
of prompt tokens takes the chunk's time and the decode step's, and gives each running sequence
one token, so those tokens come after just that gap. A chunk takes what stands in the queue, up
to the engine's ``max_num_batched_tokens`` less one token for each running sequence; it begins
where a step begins.

Left out: preemption and a limit by KV-cache room; time that the host takes beyond what the step
times hold.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.core.commands import ActuationResult, Outcome, judge
from pals_grid.core.errors import InvalidValue
from pals_grid.core.ports import EngineSample
from pals_grid.sim.arrivals import ClosedLoop
from pals_grid.sim.histogram import JITTER_SIGMA, RecentLatencies, latency_bin
from pals_grid.sim.sequence import Prompt, Running
from pals_grid.sim.work import Work, chunk_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pals_grid.core.site import Slo
    from pals_grid.sim.arrivals import Request
    from pals_grid.sim.histogram import LatencyHistogram
    from pals_grid.sim.work import PhaseTable

#: Rounding of fluid marks, in tokens.
_EPSILON = 1e-4
_LEAST_CHUNK_TOKENS = 64
_LATE_SHARE = 0.99


class RequestRecord(NamedTuple):
    """The life of one request; instants in seconds since the node was made."""

    arrival_s: float
    admitted_s: float
    first_token_s: float
    finished_s: float
    tokens_in: int
    tokens_out: int
    deferrable: bool


class SimEngine:
    """Interactive requests go before deferrable ones; those inside are never put out again.

    At most ``deferrable_seqs`` deferrable requests run at once (all by default); one that has
    waited for ``deferral_s`` may wait no longer and is let in like any other.

    A request misses ``slo.ttft_s`` by the time from arrival to its first token (deferrable ones
    are exempt: they may wait), ``slo.itl_s`` by its mean time between tokens. ``record`` is
    called at each request's end. ``arrivals`` rise in ``arrival_s``; a ``ClosedLoop`` keeps the
    queue filled.
    """

    def __init__(  # noqa: PLR0913 - an engine's settings
        self,
        model: str,
        slo: Slo,
        max_num_seqs: int,
        bring_up: Callable[[], float],
        deferral_s: float = 6 * 3600.0,
        *,
        max_num_batched_tokens: int = 2048,
        record: Callable[[RequestRecord], None] | None = None,
        arrivals: Iterable[Request] | ClosedLoop = (),
    ) -> None:
        if max_num_seqs < 1:
            raise InvalidValue("max_num_seqs", max_num_seqs, "must be 1 or more")
        self.work = Work()
        self._model = model
        self._slo = slo
        self._most_seqs = max_num_seqs
        self._max_num_seqs = max_num_seqs
        self._bring_up = bring_up
        self._deferral_s = deferral_s
        self._max_num_batched_tokens = max_num_batched_tokens
        self._record = record
        self._source = arrivals if isinstance(arrivals, ClosedLoop) else None
        self._arrivals = iter(() if isinstance(arrivals, ClosedLoop) else arrivals)
        self._arrival = next(self._arrivals, None)
        self._arrival_s = math.inf if self._arrival is None else self._arrival.arrival_s
        self._deferrable_seqs = max_num_seqs
        self._running_deferrable = 0
        self._waiting: deque[Request] = deque()
        self._waiting_deferrable: deque[Request] = deque()
        self._prompts: deque[Prompt] = deque()
        self._prompts_ending: list[Prompt] = []
        self._running: list[Running] = []
        self._inside = 0
        self._chunk_tokens = 0
        self._chunk_class = 0
        self._chunk_left = 0.0
        self._order = 0
        self._service_tokens = 0.0
        self._prompt_tokens_due = 0
        self._submitted = 0
        self._tokens_in = 0
        self._tokens_out = 0.0
        self._finished = 0
        self._ttft_misses = 0
        self._prefills = 0
        self._prefill_s = 0.0
        self._itl_misses = 0
        self._itl = RecentLatencies(jitter_sigma=JITTER_SIGMA)
        self._ttft = RecentLatencies()

    @property
    def model(self) -> str:
        """Name of the model that is served."""
        return self._model

    @property
    def requests_submitted(self) -> int:
        """Requests that have arrived so far."""
        return self._submitted

    @property
    def itl_histogram(self) -> LatencyHistogram:
        """Output tokens after the first by the gap before them, so far."""
        return self._itl.histogram()

    @property
    def ttft_histogram(self) -> LatencyHistogram:
        """Requests that may not wait by the time to their first token, so far."""
        return self._ttft.histogram()

    def observe(self) -> EngineSample:
        """Read the counters now.

        A request that will be let in when the chunk in progress ends counts as running: an
        engine takes it from its input into the next step without calling it waiting.
        """
        self._bring_up()
        tokens_in = self._tokens_in + self._chunk_tokens - self._chunk_left
        coming = min(len(self._waiting), max(0, self._max_num_seqs - self._inside))
        return EngineSample(
            requests_running=self._inside + coming,
            requests_waiting=len(self._waiting) - coming,
            tokens_in_total=tokens_in,
            tokens_out_total=self._tokens_out,
            requests_finished_total=self._finished,
            ttft_misses_total=self._ttft_misses,
            itl_misses_total=self._itl_misses,
            max_num_seqs=self._max_num_seqs,
            requests_deferred=len(self._waiting_deferrable),
            requests_running_deferrable=self._running_deferrable,
            prompt_tokens_waiting=self._prompt_tokens_due - tokens_in,
            ttft_p99_s=self._ttft.quantile(_LATE_SHARE),
            itl_p99_s=self._itl.quantile(_LATE_SHARE),
            prefills_total=self._prefills,
            prefill_s_total=self._prefill_s,
        )

    def apply_deferrable_seqs(self, deferrable_seqs: int) -> None:
        """Let at most so many deferrable requests in."""
        now_s = self._bring_up()
        self._deferrable_seqs = max(0, deferrable_seqs)
        if not self._chunk_tokens:
            self._admit(now_s)

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        """Set the batch size, clamped; those above a lower one run to their end."""
        if not math.isfinite(max_num_seqs):
            return ActuationResult(
                Outcome.REFUSED, max_num_seqs, float(self._max_num_seqs), "not finite"
            )
        now_s = self._bring_up()
        self._max_num_seqs = min(self._most_seqs, max(1, int(max_num_seqs)))
        if not self._chunk_tokens:
            self._admit(now_s)
        detail = f"range is 1 to {self._most_seqs}"
        return judge(max_num_seqs, float(self._max_num_seqs), detail)

    # --- what the plant asks ---------------------------------------------------------------

    @property
    def phase(self) -> tuple[int, int]:
        """Sequences in decode, and the class of the chunk in progress; 0 without one."""
        return len(self._running), self._chunk_class

    def submit(self, request: Request) -> None:
        """Queue a request that arrives now, beside ``arrivals``."""
        self._queue(request)
        if not self._chunk_tokens:
            self._admit(request.arrival_s)

    def roll(self, now_s: float) -> None:
        """Let old latencies go; called about once a second."""
        self._itl.roll(now_s)
        self._ttft.roll(now_s)

    def run(self, now_s: float, end_s: float, phases: PhaseTable) -> None:
        """Work from ``now_s`` to ``end_s``, by the ``phases`` of the limits in force.

        The draw of each phase is left in ``work``.
        """
        running = self._running
        while True:
            if self._arrival_s <= now_s:
                self._take_arrivals(now_s)
            if not self._chunk_tokens:
                if self._waiting or self._waiting_deferrable or self._source is not None:
                    self._admit(now_s)
                if self._prompts and (not running or not self._service_tokens % 1.0):
                    self._take_chunk()  # only where a step begins
            if now_s >= end_s:
                return
            if self._arrival_s >= end_s or self._chunk_tokens or self._inside >= self._max_num_seqs:
                now_s = self._step(now_s, end_s, phases)  # an arrival waits for the step's end
            else:
                now_s = self._step(now_s, self._arrival_s, phases)

    def _step(self, now_s: float, end_s: float, phases: PhaseTable) -> float:
        """Work up to the next event, at most to ``end_s``; returns the time reached.

        Most of a simulation's time is spent here: no calls but where something ends.
        """
        running = self._running
        count, chunk = len(running), self._chunk_tokens
        if chunk:
            prefill_token_s, gap_s, _, _, prefill, decode = phases[count, self._chunk_class]
            prefill_s = chunk * prefill_token_s
            gap_s = prefill_s + gap_s if count else prefill_s
            gap_bin = latency_bin(gap_s)
            left_s = self._chunk_left / chunk * gap_s
            if count:
                goal = running[0].finish_tokens
                left_s = min(left_s, (goal - self._service_tokens) * gap_s)
        elif count:
            _, gap_s, gap_bin, _, prefill, decode = phases[count, 0]
            prefill_s = 0.0
            goal = running[0].finish_tokens
            if self._prompts:
                goal = min(goal, self._service_tokens // 1.0 + 1.0)  # to the end of this step
            left_s = (goal - self._service_tokens) * gap_s
        else:
            self.work.idle_s += end_s - now_s
            return end_s
        ends = left_s <= end_s - now_s
        step_s = max(0.0, left_s) if ends else end_s - now_s
        steps = step_s / gap_s
        self.work.add(prefill, decode, prefill_s / gap_s * step_s, step_s)
        if chunk:
            self._chunk_left -= chunk * steps
        if count:
            self._service_tokens += steps
            tokens = count * steps
            self._tokens_out += tokens
            self._itl.now[gap_bin] += tokens
        if not ends:
            return end_s
        now_s += step_s
        self._settle(now_s)
        return now_s

    def _settle(self, now_s: float) -> None:
        """Take the ends that are due; all fall on the end of a step, a whole token."""
        running, service = self._running, self._service_tokens
        whole = round(service)
        if -_EPSILON <= service - whole <= _EPSILON:
            self._tokens_out += (whole - service) * len(running)
            self._service_tokens = service = float(whole)
        if self._chunk_tokens and self._chunk_left <= _EPSILON:
            self._end_chunk(now_s)
        while running and running[0].finish_tokens - service <= _EPSILON:
            self._finish(now_s, heapq.heappop(running))

    def _take_arrivals(self, now_s: float) -> None:
        """Queue what has arrived."""
        arrival, arrival_s = self._arrival, self._arrival_s
        while arrival is not None and arrival_s <= now_s:
            self._queue(arrival)
            arrival = self._arrival = next(self._arrivals, None)
            if arrival is None:
                self._arrival_s = math.inf
                return
            before_s, arrival_s = arrival_s, arrival.arrival_s
            self._arrival_s = arrival_s
            if arrival_s < before_s:
                raise InvalidValue("arrival_s", arrival_s, "must not fall")

    def _queue(self, request: Request) -> None:
        self._submitted += 1
        if request.deferrable:
            self._waiting_deferrable.append(request)
        else:
            self._waiting.append(request)
            self._prompt_tokens_due += request.tokens_in

    def _take_chunk(self) -> None:
        """Put the prompts' next tokens into one step."""
        room = max(_LEAST_CHUNK_TOKENS, self._max_num_batched_tokens - len(self._running))
        prompts, chunk = self._prompts, 0
        while prompts and chunk < room:
            prompt = prompts[0]
            if prompt.left_tokens > room - chunk:
                prompt.left_tokens -= room - chunk
                chunk = room
            else:
                chunk += prompt.left_tokens
                self._prompts_ending.append(prompts.popleft())
        self._chunk_tokens, self._chunk_left = chunk, float(chunk)
        self._chunk_class = chunk_class(chunk)

    def _end_chunk(self, now_s: float) -> None:
        """A step with a chunk is done: the prompts that end in it have their first token."""
        self._tokens_in += self._chunk_tokens
        self._chunk_tokens, self._chunk_left, self._chunk_class = 0, 0.0, 0
        service, most_ttft_s = self._service_tokens, self._slo.ttft_s
        for prompt in self._prompts_ending:
            request, admitted_s = prompt.request, prompt.admitted_s
            arrival_s, _, tokens_out, deferrable = request
            self._tokens_out += 1
            if not deferrable:
                ttft_s = now_s - arrival_s
                self._ttft.add(ttft_s)
                self._ttft_misses += ttft_s > most_ttft_s
            self._prefills += 1
            self._prefill_s += now_s - admitted_s
            self._order = order = self._order + 1
            sequence = Running(service + tokens_out - 1, order, admitted_s, now_s, request)
            if tokens_out == 1:
                self._finish(now_s, sequence)
            else:
                heapq.heappush(self._running, sequence)
        self._prompts_ending.clear()

    def _finish(self, now_s: float, sequence: Running) -> None:
        """Count out a sequence that has its last token."""
        finish_tokens, _, admitted_s, first_token_s, request = sequence
        _, _, tokens_out, deferrable = request
        left_tokens = finish_tokens - self._service_tokens
        if left_tokens > 0.0:
            self._tokens_out += left_tokens
        self._finished += 1
        self._inside -= 1
        if deferrable:
            self._running_deferrable -= 1
        if now_s - first_token_s > self._slo.itl_s * (tokens_out - 1):
            self._itl_misses += 1
        if self._record is not None:
            self._record(
                RequestRecord(request.arrival_s, admitted_s, first_token_s, now_s, *request[1:])
            )

    def _admit(self, now_s: float) -> None:
        """Let waiting requests in while there is room; called between chunks only."""
        room = self._max_num_seqs - self._inside
        if self._source is not None:
            self._refill(now_s, max(0, room) + self._source.waiting)
        while room > 0:
            queue = self._waiting or self._deferrable_due(now_s)
            if not queue:
                return
            request = queue.popleft()
            if request.deferrable:
                self._running_deferrable += 1
                self._prompt_tokens_due += request.tokens_in
            self._prompts.append(Prompt(now_s, request))
            self._inside += 1
            room -= 1

    def _refill(self, now_s: float, least: int) -> None:
        """Let the source fill the queue up to ``least`` requests."""
        assert self._source is not None
        while len(self._waiting) < least:
            self._queue(self._source.request(now_s))

    def _deferrable_due(self, now_s: float) -> deque[Request] | None:
        """Return the deferrable queue, when its first may be let in."""
        queue = self._waiting_deferrable
        if not queue:
            return None
        overdue = now_s - queue[0].arrival_s >= self._deferral_s
        return queue if overdue or self._running_deferrable < self._deferrable_seqs else None
