"""Step time and power of an LLM engine on GPUs of one kind, as functions of clock and batch.

Prefill and decode are apart: prefill is bound by compute (its time goes with 1/f), decode by
memory and launches, with a smaller part that goes with 1/f. A power limit acts as the highest
clock whose draw stays inside it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pals_grid.core.ports import PowerLimitRange

_GRID = 512


@dataclass(frozen=True)
class PowerLaw:
    """Draw of one GPU of a kind, in watts, against its clock as a ratio f of the highest.

    ``draw = static_w + dynamic_w * (linear_share * f + (1 - linear_share) * f ** exponent)``:
    linear where the voltage rests at its floor, steep where it has to rise with the clock.
    ``dynamic_w`` is the work's own (phase and batch). ``idle_w`` is the draw without any work,
    ``static_w`` the part of the draw under work that does not follow the clock.
    Leaves out temperature and the voltage spread between dies.
    """

    idle_w: float
    static_w: float
    linear_share: float
    exponent: float
    min_frequency_ratio: float
    max_clock_mhz: float

    def dynamic_ratio(self, frequency_ratio: float) -> float:
        """Dynamic power at ``frequency_ratio``, relative to that at the highest clock."""
        steep = math.pow(frequency_ratio, self.exponent)
        return self.linear_share * frequency_ratio + (1 - self.linear_share) * steep

    def frequency_ratio(self, limit_w: float, dynamic_w: float) -> float:
        """Highest clock ratio at which work of ``dynamic_w`` stays inside ``limit_w``.

        Never below the lowest clock: under that the GPU skips cycles to hold its limit, which
        is not modelled, so the last few watts above the lowest limit are optimistic.
        """
        ratio = (limit_w - self.static_w) / dynamic_w
        if ratio >= 1.0:
            return 1.0
        frequencies, ratios = self._inverse
        if ratio <= ratios[0]:
            return self.min_frequency_ratio
        i = bisect_right(ratios, ratio) - 1
        share = (ratio - ratios[i]) / (ratios[i + 1] - ratios[i])
        return frequencies[i] + share * (frequencies[i + 1] - frequencies[i])

    def draw_w(self, frequency_ratio: float, dynamic_w: float, limit_w: float) -> float:
        """Draw of work of ``dynamic_w`` at a clock, never above ``limit_w``."""
        return min(limit_w, self.static_w + dynamic_w * self.dynamic_ratio(frequency_ratio))

    @cached_property
    def _inverse(self) -> tuple[list[float], list[float]]:
        low = self.min_frequency_ratio
        frequencies = [low + (1 - low) * i / _GRID for i in range(_GRID + 1)]
        return frequencies, [self.dynamic_ratio(f) for f in frequencies]


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """One decode step of a running batch.

    ``coverage(n) = 1 - exp(-coverage_per_seq * n)`` is the share of the experts' weights that
    ``n`` sequences touch; of a dense model only its power follows it. Seconds ending in
    ``_cycles`` are at the highest clock and go with 1/f, the others do not follow the clock.
    ``dynamic_w`` is per GPU. The sequences' own context length is left out: ``per_seq_s`` is a
    mean over the source's contexts.
    """

    fixed_s: float
    weights_s: float
    fixed_s_cycles: float
    weights_s_cycles: float
    per_seq_s: float
    coverage_per_seq: float
    dynamic_w: float
    dynamic_coverage_w: float

    def coverage(self, running: float) -> float:
        """Share of the weights that ``running`` sequences touch."""
        return -math.expm1(-self.coverage_per_seq * running)

    def step_s(self, running: float, frequency_ratio: float) -> float:
        """Seconds of one step, which gives one token to each running sequence."""
        coverage = self.coverage(running)
        cycles_s = self.fixed_s_cycles + self.weights_s_cycles * coverage
        return (
            self.fixed_s
            + self.weights_s * coverage
            + self.per_seq_s * running
            + cycles_s / frequency_ratio
        )

    def dynamic_w_at(self, running: float) -> float:
        """Dynamic power per GPU at the highest clock."""
        return self.dynamic_w + self.dynamic_coverage_w * self.coverage(running)


@dataclass(frozen=True, slots=True)
class PrefillCost:
    """Prompt processing: seconds per prompt token on all GPUs, dynamic watts per GPU."""

    fixed_s_per_token: float
    cycles_s_per_token: float
    dynamic_w: float

    def token_s(self, frequency_ratio: float) -> float:
        """Seconds per prompt token."""
        return self.fixed_s_per_token + self.cycles_s_per_token / frequency_ratio


class PhaseMix(NamedTuple):
    """An engine's state at one clock limit: seconds and mean draw of each phase.

    ``*_w`` are per GPU of nominal die; ``prefill_share`` is the share of time that prefill
    takes while prompts wait for it, decode having the rest.
    """

    prefill_token_s: float
    prefill_w: float
    decode_step_s: float
    decode_w: float
    prefill_share: float
    frequency_ratio: float


@dataclass(frozen=True)
class EngineModel:
    """An LLM on ``gpu_count`` GPUs of one kind with tensor parallelism over all of them.

    ``gpu_model`` is the part of the driver's name that fixes the kind. ``max_num_batched_tokens``
    is the prompt tokens that one step of chunked prefill carries.
    Expert parallelism, pipelines and links between nodes are left out.
    """

    gpu_model: str
    model: str
    gpu_count: int
    limit_range: PowerLimitRange
    power: PowerLaw
    decode: DecodeCost
    prefill: PrefillCost
    max_num_batched_tokens: int = 2048

    def phase_mix(self, running: float, limit_w: float, worst_die_ratio: float = 1.0) -> PhaseMix:
        """Times and draw with ``running`` sequences decoding under ``limit_w`` per GPU.

        ``worst_die_ratio`` scales dynamic power: with tensor parallelism the slowest GPU paces
        the others.
        """
        law = self.power
        prefill_dynamic_w = self.prefill.dynamic_w
        prefill_f = law.frequency_ratio(limit_w, prefill_dynamic_w * worst_die_ratio)
        token_s = self.prefill.token_s(prefill_f)
        prefill_w = law.draw_w(prefill_f, prefill_dynamic_w, limit_w)
        if running <= 0:
            return PhaseMix(token_s, prefill_w, math.inf, law.idle_w, 1.0, prefill_f)
        decode_dynamic_w = self.decode.dynamic_w_at(running)
        decode_f = law.frequency_ratio(limit_w, decode_dynamic_w * worst_die_ratio)
        step_s = self.decode.step_s(running, decode_f)
        decode_w = law.draw_w(decode_f, decode_dynamic_w, limit_w)
        chunk_s = self.max_num_batched_tokens * token_s
        return PhaseMix(
            token_s, prefill_w, step_s, decode_w, chunk_s / (chunk_s + step_s), decode_f
        )
