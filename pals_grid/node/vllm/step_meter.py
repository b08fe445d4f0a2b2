"""Counts what vLLM's scheduler does, step by step. Knows vLLM's objects by their attributes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from pals_grid.node.vllm.experts import ExpertLoads

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROMPTS_EVERY_S = 0.25
_PROMPTS_LOOKED_AT = 512


class StepMeter:
    """Totals since the start, and the last step's figures.

    ``steps`` counts results that came in, ``in_flight`` the steps whose results have not yet.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.in_flight = 0
        self.prefill_tokens = 0
        self.decode_tokens = 0
        self.tokens_in = 0
        self.tokens_out = 0
        self.finished = 0
        self.preemptions = 0
        self.step_s = 0.0
        self.busy_s = 0.0
        self.prompt_tokens_waiting = -1.0
        self.experts = ExpertLoads()
        self._since_s = 0.0
        self._prompts_at_s = float("-inf")

    def scheduled(self, scheduler: Any, output: Any, now_s: float) -> None:  # noqa: ANN401
        """Take what ``schedule`` returned."""
        total = output.total_num_scheduled_tokens
        if total > 0:
            self._count_phases(output, total)
            if self.in_flight == 0:
                self._since_s = now_s
            self.in_flight += 1
            for new in output.scheduled_new_reqs:
                request = scheduler.requests.get(new.req_id)
                if request is not None and not request.num_preemptions:
                    self.tokens_in += request.num_prompt_tokens
        # Preempted by us, or for want of KV room.
        self.preemptions += len(output.preempted_req_ids or ())
        if now_s - self._prompts_at_s >= _PROMPTS_EVERY_S:
            self._prompts_at_s = now_s
            self.prompt_tokens_waiting = _prompt_tokens_waiting(scheduler)

    def updated(self, output: Any, results: Mapping[int, Any] | None, now_s: float) -> None:  # noqa: ANN401
        """Take what ``update_from_output`` returned for a scheduled step."""
        for result in (results or {}).values():
            for item in result.outputs:
                self.tokens_out += len(item.new_token_ids)
                if item.finish_reason is not None:
                    self.finished += 1
                routed = getattr(item, "routed_experts", None)
                if routed is not None:
                    self.experts.add(routed, now_s)
        if output.total_num_scheduled_tokens > 0:
            self.steps += 1
            self.in_flight = max(0, self.in_flight - 1)
            self.step_s = max(0.0, now_s - self._since_s)
            self.busy_s += self.step_s
            self._since_s = now_s

    def _count_phases(self, output: Any, total: int) -> None:  # noqa: ANN401
        counts = output.num_scheduled_tokens
        drafts = output.scheduled_spec_decode_tokens
        self.decode_tokens = total
        if total != len(counts):
            self.decode_tokens = sum(
                count
                for name, count in counts.items()
                if count == 1 or (drafts and count == 1 + len(drafts.get(name, ())))
            )
        self.prefill_tokens = total - self.decode_tokens


def _prompt_tokens_waiting(scheduler: Any) -> float:  # noqa: ANN401
    """Tokens that are queued or admitted and not computed; a long queue counts by its head."""
    due = float(sum(_due(request) for request in scheduler.running))
    for name in ("waiting", "skipped_waiting", "kv_holding_waiting"):
        queue = getattr(scheduler, name, None)
        if not queue:
            continue
        length = len(queue)
        head = [_due(request) for request in itertools.islice(queue, _PROMPTS_LOOKED_AT)]
        due += sum(head) * length / len(head)
    return due


def _due(request: Any) -> int:  # noqa: ANN401
    left = request.num_tokens - request.num_computed_tokens
    return left if left > 1 else 0  # one token is decode
