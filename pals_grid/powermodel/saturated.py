"""The steady state of an engine that always has the same number of requests inside.

A step gives each running sequence one token and carries what stands in the queue of prompts, up
to ``max_num_batched_tokens`` less one token for each running sequence. A request is let in where
another one ends, waits for the prompts before it, has its first token at the end of the step
that carries the rest of its prompt, and then takes one step for each further token. How many are
in decode follows from the time that prompts take, and that time from how many are in decode:
solved for the share of its stay that a request spends before its first token.

Against the simulated plant (five engines, seven mixes of prompt and output tokens from 100/1000 to
4000/100 and 200/5, batches of 1 to 128, two limits; lengths log-normal) the mean error is 0.5 % in
tokens/s, 0.4 % in power, 5 % in TTFT (0.79 to 1.27 times) and 0.9 % in ITL. Requests that are all
alike go in step with each other, which is left out: most have half to twice such a TTFT then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pals_grid.powermodel.physics import EngineModel, PhaseMix

PROMPT_VARIANCE_RATIO = 1.0
"""Variance of the prompts' length over its mean squared: 0.92 in AzureLLMInferenceTrace_conv_2023
(github.com/Azure/AzurePublicDataset, commit b469a11), about that of an exponential spread."""
LEAST_CHUNK_TOKENS = 64.0
_MOST_FILLED = 0.999
_HALVINGS = 30


class SteadyState(NamedTuple):
    """``tokens_per_s`` are output tokens of the engine, ``gpu_w`` is the mean of one GPU.

    ``ttft_s`` is the mean from admission to the first token, ``itl_s`` the mean gap after it.
    """

    tokens_per_s: float
    gpu_w: float
    ttft_s: float
    itl_s: float


class Workload(NamedTuple):
    """``inside`` requests, each of ``tokens_in`` prompt and ``tokens_out`` output tokens (means).

    A prompt has at least one token.
    """

    inside: int
    tokens_in: float
    tokens_out: float


class _Guess(NamedTuple):
    mix: PhaseMix
    request_s: float
    ttft_s: float


def steady_state(
    engine: EngineModel, power_limit_w: float, load: Workload, sm_clock_mhz: float | None = None
) -> SteadyState:
    """Rates, draw and latencies under one limit, all dies nominal.

    Leaves out the spread of the outputs' lengths, waiting for a place in the batch, and requests
    that go in step with each other because all are alike.
    """
    load = load._replace(tokens_in=max(1.0, load.tokens_in))
    limits = (power_limit_w, sm_clock_mhz)
    low, high = 0.0, 1.0 if load.inside > 1 else 0.0
    guess = _guess(engine, limits, load, low)
    while high - low > 2**-_HALVINGS:
        waiting = (low + high) / 2
        guess = _guess(engine, limits, load, waiting)
        if guess.ttft_s > waiting * load.inside * guess.request_s:
            low = waiting
        else:
            high = waiting
    mix, request_s, ttft_s = guess
    stay_s = load.inside * request_s
    ttft_s = min(ttft_s, stay_s)
    itl_s = mix.decode_step_s
    if load.tokens_out > 1 and ttft_s < stay_s:
        itl_s = (stay_s - ttft_s) / (load.tokens_out - 1)
    prefill_ratio = load.tokens_in * mix.prefill_token_s / request_s
    return SteadyState(
        tokens_per_s=load.tokens_out / request_s,
        gpu_w=prefill_ratio * mix.prefill_w + (1 - prefill_ratio) * mix.decode_w,
        ttft_s=ttft_s,
        itl_s=itl_s,
    )


def _guess(
    engine: EngineModel, limits: tuple[float, float | None], load: Workload, waiting: float
) -> _Guess:
    """Return times where requests spend ``waiting`` (a ratio) of their stay before the first token.

    ``request_s`` is the engine's time for one request: its prompt, and its part of the decode
    steps. Prompts queue for the steps' chunks as in an M/G/1 queue (Pollaczek-Khinchine); lengths
    that spread exponentially leave a mean of ``size * exp(-1 / size)`` chunks for later steps.
    """
    inside, tokens_in, tokens_out = load
    others = (inside - 1) / inside
    steps = max(tokens_out - 1, 1e-3)
    decoding = 1 + (inside - 1) * (1 - waiting)
    room = max(LEAST_CHUNK_TOKENS, engine.max_num_batched_tokens - decoding + 1)
    beside_tokens = min(others * decoding / steps * tokens_in, room)
    limit_w, sm_clock_mhz = limits
    mix = engine.phase_mix(
        decoding,
        limit_w,
        sm_clock_mhz=sm_clock_mhz,
        chunk_tokens=min(room, tokens_in + beside_tokens),
    )
    filled = min(_MOST_FILLED, beside_tokens / room)
    before_tokens = filled / (1 - filled) * tokens_in * (1 + PROMPT_VARIANCE_RATIO) / 2
    size = (before_tokens + tokens_in) / room
    steps_to_first = 1 + size * math.exp(-1 / size) if size > 0 else 1.0
    decode_beside_ratio = 1 - waiting ** (inside - 1)
    ttft_s = decode_beside_ratio * mix.decode_step_s * steps_to_first
    ttft_s += mix.prefill_token_s * (before_tokens + tokens_in + beside_tokens)
    decode_s = max(tokens_out - 1, 0.0) * mix.decode_step_s / decoding
    return _Guess(mix, tokens_in * mix.prefill_token_s + decode_s, ttft_s)
