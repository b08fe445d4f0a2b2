"""A scheduler with vLLM's attributes and a few of its rules; tests/vllm has the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass(eq=False)
class FakeRequest:
    request_id: str
    num_prompt_tokens: int = 10
    num_tokens: int = 11
    num_computed_tokens: int = 10
    num_preemptions: int = 0
    num_output_placeholders: int = 0
    priority: int = 0
    arrival_time: float = 0.0
    done: bool = False

    def is_finished(self) -> bool:
        return self.done


@dataclass
class FakeScheduler:
    """Admits up to its limit, schedules one token for each of ``running``."""

    limit: int = 8
    rank: int = 0
    running: list[FakeRequest] = field(default_factory=list)
    waiting: list[FakeRequest] = field(default_factory=list)
    connector: Any = None
    broken: bool = False
    limits_seen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.max_num_running_reqs = self.limit
        self.kv_cache_manager = SimpleNamespace(usage=0.25)
        parallel = SimpleNamespace(data_parallel_rank=self.rank)
        self.vllm_config = SimpleNamespace(parallel_config=parallel)

    @property
    def requests(self) -> dict[str, FakeRequest]:
        return {r.request_id: r for r in (*self.running, *self.waiting)}

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.running), len(self.waiting)

    def _preempt_request(self, request: FakeRequest, _timestamp: float) -> None:
        if self.broken:
            raise RuntimeError("broken")
        request.num_preemptions += 1
        self.waiting.insert(0, request)

    def schedule(self) -> SimpleNamespace:
        limit = getattr(self, "max_num_active_reqs", self.max_num_running_reqs)
        self.limits_seen.append(limit)
        assert len(self.running) <= self.max_num_running_reqs, "what old engines die of"
        new = []
        while self.waiting and len(self.running) < limit:
            new.append(self.waiting.pop(0))
            self.running.append(new[-1])
        return SimpleNamespace(
            total_num_scheduled_tokens=len(self.running),
            num_scheduled_tokens={r.request_id: 1 for r in self.running},
            scheduled_spec_decode_tokens={},
            scheduled_new_reqs=[SimpleNamespace(req_id=r.request_id) for r in new],
            preempted_req_ids=set(),
        )


def tokens(output: SimpleNamespace, ended: set[str] | None = None) -> dict[int, Any]:
    """Make the result of a step: a token each, and the end of some."""
    outputs = [
        SimpleNamespace(new_token_ids=[1], finish_reason="stop" if name in (ended or ()) else None)
        for name in output.num_scheduled_tokens
    ]
    return {0: SimpleNamespace(outputs=outputs)}


def requests(count: int, first: int = 0) -> list[FakeRequest]:
    return [FakeRequest(f"r{index}") for index in range(first, first + count)]
