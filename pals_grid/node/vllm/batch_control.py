"""What stands between vLLM's scheduler and the channel: hold the batch, tell what happened.

Knows vLLM's objects by their attributes, so it is tested without vLLM; `plugin` has the imports.
It must never hurt serving: a fault of ours is counted, logged once, and leaves the step to vLLM's
own limits.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from pals_grid.node.vllm.layout import BatchMode, StepTelemetry
from pals_grid.node.vllm.policy import BatchPolicy
from pals_grid.node.vllm.step_meter import StepMeter
from pals_grid.node.vllm.target import LeasedTarget, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.node.vllm.channel import RankFile

log = logging.getLogger("vllm.pals_grid")  # below vLLM's logger, so it is shown as vLLM's are

_CLOSED_S = 1.0
_LOOK_EVERY_S = 1.0


class BatchControl:
    """One scheduler's control. ``before`` and ``after`` enclose its ``schedule``.

    ``monotonic_s`` is the clock of leases and turns; ``spent_s_total`` is what this code took.
    """

    def __init__(
        self, channel: RankFile, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._channel = channel
        self.monotonic_s = monotonic_s
        self._policy = BatchPolicy()
        self._lease = LeasedTarget()
        self.meter = StepMeter()
        self.target = Target(0, 0, BatchMode.DRAIN)
        self.parked = 0
        self.errors = 0
        self.spent_s_total = 0.0
        self._own = 0
        self._order: list[Any] | None = None
        self._inside: list[Any] = []
        self._limit_name = ""
        self._told = -1
        self._look_at_s = float("-inf")
        self._preempted_now: set[str] = set()
        self._closed_until: tuple[int, float] | None = None

    def announce(self, scheduler: Any) -> None:  # noqa: ANN401 - vLLM's
        """Tell the agent the engine's own limit before the first step."""
        self._own = own = _own_limit(scheduler)[1]
        self.target = Target(0, own, BatchMode.DRAIN)
        self._tell(scheduler)

    def before(self, scheduler: Any) -> None:  # noqa: ANN401 - vLLM's
        """Hold the batch for one ``schedule``; ``after`` has to follow."""
        begun_s = time.perf_counter()
        try:
            self._hold(scheduler)
        except Exception as fault:  # noqa: BLE001 - whatever it is, serving goes on
            self._report_fault("before a step", fault)
            self._let_go(scheduler)
            if self._preempted_now:  # in this very step no engine may take them back
                self._set_limit(scheduler, min(self._own, len(scheduler.running)))
        self.spent_s_total += time.perf_counter() - begun_s

    def after(self, scheduler: Any, output: Any | None) -> None:  # noqa: ANN401 - vLLM's
        """Undo ``before``; ``output`` is what ``schedule`` returned, None where it raised."""
        begun_s = time.perf_counter()
        self._let_go(scheduler)
        try:
            if output is not None:
                self._tell_runner(output)
                self.meter.scheduled(scheduler, output, self.monotonic_s())
                idle = not output.total_num_scheduled_tokens  # then no result may follow
                if idle or self.target.generation != self._told:
                    self._tell(scheduler)
        except Exception as fault:  # noqa: BLE001 - as above
            self._report_fault("after a step", fault)
        self.spent_s_total += time.perf_counter() - begun_s

    def updated(self, scheduler: Any, output: Any, results: Any) -> None:  # noqa: ANN401 - vLLM's
        """Take the step's result and tell the agent."""
        begun_s = time.perf_counter()
        try:
            self.meter.updated(output, results, self.monotonic_s())
            self._tell(scheduler)
        except Exception as fault:  # noqa: BLE001 - as above
            self._report_fault("after a result", fault)
        self.spent_s_total += time.perf_counter() - begun_s

    def _hold(self, scheduler: Any) -> None:  # noqa: ANN401
        now_s = self.monotonic_s()
        self._limit_name, self._own = _, own = _own_limit(scheduler)
        self._preempted_now = set()
        target = self._lease.target(self._channel.control.read(), own, now_s)
        self.target = target
        running = scheduler.running
        mode = target.mode
        if mode is BatchMode.PREEMPT and not _can_preempt(scheduler):
            mode = BatchMode.DRAIN
        if mode is BatchMode.PREEMPT and len(running) > target.max_num_seqs:
            running = _by_priority(scheduler)
        plan = self._policy.plan(running, target.max_num_seqs, mode, now_s)
        if plan.preempted:
            self._preempt(scheduler, plan.preempted, now_s)
        self.parked = len(plan.parked)
        if plan.parked:
            self._order = scheduler.running
            out = {id(request) for request in plan.parked}
            self._inside = [r for r in self._order if id(r) not in out]
            scheduler.running = list(self._inside)
        limit = plan.limit
        if self._is_closed(now_s):
            limit = 0
        limit = max(limit, len(scheduler.running))  # below that engines die
        if limit != own:
            self._set_limit(scheduler, min(limit, own))

    def _preempt(self, scheduler: Any, going: Sequence[Any], now_s: float) -> None:  # noqa: ANN401
        meter = self.meter
        self._closed_until = meter.steps + meter.in_flight, now_s + _CLOSED_S
        for request in reversed(going):  # so that they come back in their order
            scheduler.running.remove(request)
            self._preempted_now.add(request.request_id)
            scheduler._preempt_request(request, time.monotonic())  # noqa: SLF001 - vLLM's own way

    def _is_closed(self, now_s: float) -> bool:
        """Whether a step that was under way at the last preemption still is; then nobody comes in.

        An engine that resumed a request before its last token is in would compute that twice.
        """
        if self._closed_until is None:
            return False
        step, until_s = self._closed_until
        if self.meter.steps < step and now_s < until_s:
            return True
        if not self._preempted_now:
            self._closed_until = None
        return bool(self._preempted_now)

    def _set_limit(self, scheduler: Any, limit: int) -> None:  # noqa: ANN401
        setattr(scheduler, self._limit_name, limit)

    def _let_go(self, scheduler: Any) -> None:  # noqa: ANN401
        """Give vLLM back its limit, and its batch in its order."""
        if self._limit_name:
            self._set_limit(scheduler, self._own)
        order, inside = self._order, self._inside
        if order is None:
            return
        self._order = None
        if scheduler.running == inside:  # as in most steps
            scheduler.running = order
            return
        before, now = {id(r) for r in inside}, {id(r) for r in scheduler.running}
        known = {id(r) for r in order}
        scheduler.running = [
            *(r for r in order if id(r) in now or id(r) not in before),
            *(r for r in scheduler.running if id(r) not in known),
        ]

    def _tell_runner(self, output: Any) -> None:  # noqa: ANN401
        """Name those whom we preempted; newer engines have done so themselves."""
        named = output.preempted_req_ids
        if self._preempted_now and named is not None:
            named.update(self._preempted_now)

    def _tell(self, scheduler: Any) -> None:  # noqa: ANN401
        running, waiting = _counts(scheduler)
        meter = self.meter
        now_s = self.monotonic_s()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + _LOOK_EVERY_S
            self._channel = self._channel.restored()
        parked = min(self.parked, running)
        self._channel.telemetry.write(
            StepTelemetry(
                at_s=now_s,
                generation=self.target.generation,
                max_num_seqs=self.target.max_num_seqs,
                own_max_num_seqs=self._own,
                steps_total=meter.steps,
                running=running - parked,
                parked=parked,
                waiting=waiting,
                prefill_tokens=meter.prefill_tokens,
                decode_tokens=meter.decode_tokens,
                prompt_tokens_waiting=meter.prompt_tokens_waiting,
                tokens_in_total=meter.tokens_in,
                tokens_out_total=meter.tokens_out,
                finished_total=meter.finished,
                preemptions_total=meter.preemptions,
                kv_usage_ratio=scheduler.kv_cache_manager.usage,
                step_s=meter.step_s,
                busy_s_total=meter.busy_s,
                longest_park_s=self._policy.longest_park_s,
                lapses_total=self._lease.lapses,
                errors_total=self.errors,
                expert_imbalance=meter.experts.imbalance,
            )
        )
        self._told = self.target.generation

    def _report_fault(self, where: str, fault: Exception) -> None:
        self.errors += 1
        if self.errors == 1:
            log.error(
                "PALS Grid: fault %s; vLLM goes on within its own limits. Later faults are "
                "counted, not logged",
                where,
                exc_info=fault,
            )


def _own_limit(scheduler: Any) -> tuple[str, int]:  # noqa: ANN401
    """Return the attribute that limits admission, and vLLM's own value of it."""
    name = "max_num_active_reqs"  # 0.31 on; the slot count beside it stays as it is
    if not hasattr(scheduler, name):
        name = "max_num_running_reqs"
    return name, getattr(scheduler, name)


def _counts(scheduler: Any) -> tuple[int, int]:  # noqa: ANN401
    running, waiting = scheduler.get_request_counts()
    return running, waiting


def _by_priority(scheduler: Any) -> list[Any]:  # noqa: ANN401
    """Return the batch with those last whom vLLM would preempt first."""
    if getattr(getattr(scheduler, "policy", None), "value", "") != "priority":
        return list(scheduler.running)
    return sorted(scheduler.running, key=lambda r: (r.priority, r.arrival_time))


def _can_preempt(scheduler: Any) -> bool:  # noqa: ANN401
    """Whether requests may be preempted from outside: not with KV caches kept elsewhere too."""
    return (
        hasattr(scheduler, "_preempt_request")
        and getattr(scheduler, "connector", None) is None
        and getattr(scheduler, "ec_connector", None) is None
    )
