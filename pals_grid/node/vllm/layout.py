"""What the agent and vLLM tell each other through shared memory. Version 1.

Instants are CLOCK_MONOTONIC seconds, which all processes of a machine share. Names ending in
``_total`` are counters since the file was made.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from pals_grid.core.errors import InvalidValue
from pals_grid.node.vllm.record import Layout

VERSION = 1
LEASE_S = 3.0
MAX_LEASE_S = 5.0
BINS = 112
LOWEST_BIN_S = 1e-3
BIN_RATIO = 1.12


class BatchMode(IntEnum):
    """How a running batch above the target shrinks.

    DRAIN lets nothing in until enough have finished. PARK leaves requests out of the step, with
    their KV cache, by turns. PREEMPT takes them out; they are computed anew later.
    """

    DRAIN = 0
    PARK = 1
    PREEMPT = 2

    @classmethod
    def parse(cls, name: str) -> BatchMode:
        """Return a mode by its name in lower case.

        Raises:
            InvalidValue: for any other; names those that are.
        """
        known = [mode.name.lower() for mode in cls]
        if name not in known:
            raise InvalidValue("engine_batch_mode", name, f"must be one of {', '.join(known)}")
        return cls[name.upper()]


class Control(NamedTuple):
    """The agent's word: at most ``max_num_seqs`` (0: vLLM's own limit) until ``deadline_s``."""

    generation: int
    max_num_seqs: int
    mode: int
    deadline_s: float


class StepTelemetry(NamedTuple):
    """The scheduler's word after a step.

    ``generation`` and ``max_num_seqs`` are those in force at the last schedule (generation 0:
    no target, vLLM's own limit). ``running`` counts those in the batch, without ``parked``.
    ``prefill_tokens`` and ``decode_tokens`` are the last step's; a chunk of several tokens is
    prefill. ``prompt_tokens_waiting`` is -1 where it is not known. ``longest_park_s`` is the
    longest that any request was parked in one go. ``errors_total`` counts our own faults, each of
    which left vLLM to itself for that step. ``expert_imbalance`` is the load of the busiest expert
    over the mean, -1 where the engine does not tell.
    """

    at_s: float
    generation: int
    max_num_seqs: int
    own_max_num_seqs: int
    steps_total: int
    running: int
    parked: int
    waiting: int
    prefill_tokens: int
    decode_tokens: int
    prompt_tokens_waiting: float
    tokens_in_total: int
    tokens_out_total: int
    finished_total: int
    preemptions_total: int
    kv_usage_ratio: float
    step_s: float
    busy_s_total: float
    longest_park_s: float
    lapses_total: int
    errors_total: int
    expert_imbalance: float


class LatencyTotals(NamedTuple):
    """The front end's word: sums, then three histograms of ``BINS`` counts each.

    The bins are TTFT, gaps between tokens, and mean gap per finished request.
    """

    at_s: float
    prefills_total: int
    prefill_s_total: float
    bins: bytes


CONTROL: Layout[Control] = Layout(Control, "QIId")
TELEMETRY: Layout[StepTelemetry] = Layout(StepTelemetry, "dQIIQIIIIIdQQQQddddQQd")
LATENCY: Layout[LatencyTotals] = Layout(LatencyTotals, f"dQd{3 * BINS * 8}s")
