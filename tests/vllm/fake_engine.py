"""vLLM's real scheduler over a model of our own, without weights, GPU or server.

The runner keeps what a worker keeps: each request's tokens as far as it was told or has sampled
them, and the KV cache's blocks. A token depends on the whole sequence before it, and each KV entry
on the whole prefix, so a token that is lost, repeated or computed on foreign blocks changes all
that follow or is found at once. Runs inside the interpreter that has vLLM.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 16
VOCABULARY = 30_000
_MASK = (1 << 61) - 1


def chain(prefix: int, token: int) -> int:
    """Return the fingerprint of a sequence that is longer by a token."""
    return (prefix * 1_000_003 + token + 7) & _MASK


def expected(prompt: list[int], count: int) -> list[int]:
    """Return the tokens that the model gives after ``prompt``."""
    mark, tokens = 0, []
    for token in prompt:
        mark = chain(mark, token)
    for _ in range(count):
        tokens.append(mark % VOCABULARY)
        mark = chain(mark, tokens[-1])
    return tokens


@dataclasses.dataclass
class _Seen:
    """What the runner knows of a request; ``marks[i]`` is the fingerprint of tokens[:i]."""

    tokens: list[int]
    blocks: list[int]
    marks: list[int] = dataclasses.field(default_factory=lambda: [0])

    def mark(self, length: int) -> int:
        while len(self.marks) <= length:
            self.marks.append(chain(self.marks[-1], self.tokens[len(self.marks) - 1]))
        return self.marks[length]


class FakeRunner:
    """Executes scheduler outputs in order."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._cache: dict[int, int] = {}

    def execute(self, output: Any) -> Any:
        from vllm.v1.outputs import ModelRunnerOutput  # noqa: PLC0415

        for name in output.finished_req_ids:
            self._seen.pop(name, None)
        starts = self._take(output)
        names = list(output.num_scheduled_tokens)
        sampled = [
            self._compute(self._seen[name], starts[name], output.num_scheduled_tokens[name])
            for name in names
        ]
        fields = {
            "req_ids": names,
            "req_id_to_index": {name: index for index, name in enumerate(names)},
            "sampled_token_ids": sampled,
            "logprobs": None,
            "prompt_logprobs_dict": {},
            "pooler_output": [],
        }
        return ModelRunnerOutput(**fields)

    def _take(self, output: Any) -> dict[str, int]:
        """Take what the scheduler says of each request; return where each one's step begins."""
        starts: dict[str, int] = {}
        for new in output.scheduled_new_reqs:
            tokens = new.prefill_token_ids or new.prompt_token_ids
            self._seen[new.req_id] = _Seen(list(tokens), list(new.block_ids[0]))
            starts[new.req_id] = new.num_computed_tokens
        cached = output.scheduled_cached_reqs
        for index, name in enumerate(cached.req_ids):
            seen = self._seen[name]
            starts[name] = cached.num_computed_tokens[index]
            told = cached.all_token_ids.get(name)
            if told is not None:  # it was not in the step before: the scheduler's word holds
                self._seen[name] = seen = _Seen(list(told), seen.blocks)
            blocks = cached.new_block_ids[index]
            if name in cached.resumed_req_ids:
                seen.blocks = list(blocks[0])
            elif blocks is not None:
                seen.blocks.extend(blocks[0])
        return starts

    def _compute(self, seen: _Seen, start: int, count: int) -> list[int]:
        """Write the KV of ``count`` tokens from ``start``; sample where all are computed."""
        end = start + count
        assert end <= len(seen.tokens), f"token {end - 1} of {len(seen.tokens)} is not known yet"
        assert end <= len(seen.blocks) * BLOCK, "no block for a token"
        first = start // BLOCK
        for index in range(first):
            block = seen.blocks[index]
            assert self._cache[block] == seen.mark((index + 1) * BLOCK), "foreign KV block"
        if start % BLOCK:
            assert self._cache[seen.blocks[first]] == seen.mark(start), "foreign KV entry"
        for index in range(first, -(-end // BLOCK)):
            self._cache[seen.blocks[index]] = seen.mark(min(end, (index + 1) * BLOCK))
        if end < len(seen.tokens):
            return []
        token = seen.mark(end) % VOCABULARY
        seen.tokens.append(token)
        return [token]


class FakeEngine:
    """The engine core's loop: up to ``depth`` steps are under way at once."""

    def __init__(self, scheduler: Any, depth: int) -> None:
        self.scheduler = scheduler
        self.runner = FakeRunner()
        self.depth = depth
        self.tokens: dict[str, list[int]] = {}
        self.finished: set[str] = set()
        self._under_way: deque[tuple[Any, Any]] = deque()

    def step(self) -> Any | None:
        """Schedule, and take a result where enough are under way; returns what was scheduled."""
        output = None
        if len(self._under_way) < self.depth and self.scheduler.has_requests():
            output = self.scheduler.schedule()
            self._under_way.append((output, self.runner.execute(output)))
            if output.total_num_scheduled_tokens and len(self._under_way) < self.depth:
                return output
        if self._under_way:
            results = self.scheduler.update_from_output(*self._under_way.popleft())
            for result in results.values():
                for item in result.outputs:
                    self.tokens.setdefault(item.request_id, []).extend(item.new_token_ids)
                    if item.finish_reason is not None:
                        self.finished.add(item.request_id)
        return output

    @property
    def has_work(self) -> bool:
        return bool(self._under_way) or self.scheduler.has_requests()


def make_scheduler(
    folder: Path, *, max_num_seqs: int, blocks: int, caching: bool, asynchronous: bool, cls: str
) -> Any:
    """Make a scheduler of the vLLM that is installed, for a tiny Qwen2."""
    import torch  # noqa: PLC0415
    from vllm.config import (  # noqa: PLC0415
        CacheConfig,
        DeviceConfig,
        ModelConfig,
        ParallelConfig,
        SchedulerConfig,
        VllmConfig,
    )
    from vllm.utils.import_utils import resolve_obj_by_qualname  # noqa: PLC0415
    from vllm.v1.kv_cache_interface import (  # noqa: PLC0415
        FullAttentionSpec,
        KVCacheConfig,
        KVCacheGroupSpec,
    )
    from vllm.v1.structured_output import StructuredOutputManager  # noqa: PLC0415

    write_model(folder)
    model = ModelConfig(model=str(folder), skip_tokenizer_init=True, dtype="float16", seed=0)
    cache = _made(CacheConfig, block_size=BLOCK, enable_prefix_caching=caching, swap_space=0)
    cache.num_gpu_blocks = blocks
    config = VllmConfig(
        model_config=model,
        cache_config=cache,
        device_config=DeviceConfig("cpu"),
        parallel_config=ParallelConfig(),
        scheduler_config=_made(
            SchedulerConfig,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=128,
            max_model_len=1024,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            async_scheduling=asynchronous,
            scheduler_cls=cls,
        ),
    )
    config.scheduler_config.async_scheduling = asynchronous
    cache.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=16, dtype=torch.float16)
    kv = KVCacheConfig(
        num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
    )
    return resolve_obj_by_qualname(cls)(
        vllm_config=config,
        kv_cache_config=kv,
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK,
        log_stats=True,
    )


class Requests:
    """Makes requests of the vLLM that is installed."""

    def __init__(self, caching: bool) -> None:
        self._extra: dict[str, Any] = {"eos_token_id": None}
        if caching:
            from vllm.utils.hashing import sha256  # noqa: PLC0415
            from vllm.v1.core.kv_cache_utils import (  # noqa: PLC0415
                get_request_block_hasher,
                init_none_hash,
            )

            init_none_hash(sha256)
            self._extra["block_hasher"] = get_request_block_hasher(BLOCK, sha256)

    def make(self, name: str, prompt: list[int], max_tokens: int) -> Any:
        from vllm import SamplingParams  # noqa: PLC0415
        from vllm.v1.request import Request  # noqa: PLC0415

        return _made(
            Request,
            request_id=name,
            prompt_token_ids=prompt,
            sampling_params=SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True),
            pooling_params=None,
            **self._extra,
        )


def write_model(folder: Path) -> None:
    """Write the configuration of a tiny model; it has no weights."""
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["Qwen2ForCausalLM"],
                "model_type": "qwen2",
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "num_hidden_layers": 1,
                "vocab_size": VOCABULARY,
                "max_position_embeddings": 1024,
                "torch_dtype": "float16",
            }
        )
    )


def _made(kind: Any, **fields: Any) -> Any:
    """Call ``kind`` with those of ``fields`` that this version of vLLM has."""
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in fields.items() if name in known})
