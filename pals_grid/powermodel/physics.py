"""Step time and power of an LLM engine on GPUs of one kind, as functions of clock and batch.

Prefill and decode are apart. Of each, a share of the time goes with 1/f and the rest does not
follow the clock. A power limit acts as the highest clock whose draw stays inside it; as the draw
varies within a step (layers, kernels, waits between GPUs), the limit clips the hot parts first,
so that it costs a little even where it lies just above the mean draw.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pals_grid.core.ports import PowerLimitRange
    from pals_grid.powermodel.communication import Communication

_GRID = 512
_POINTS_KEPT = 4096
_LEVELS = (-math.sqrt(1.5), 0.0, math.sqrt(1.5))
"""Three equal parts of the work whose draw has a mean of 0 and a deviation of 1."""
FLOOR_SHARPNESS = 6.0
LIMIT_RATIO = 0.994
"""Mean draw where a limit binds throughout, over the limit: the A100 table's median at 150 W."""


@dataclass(frozen=True)
class PowerLaw:
    """Draw of one GPU of a kind, in watts, against its clock as a ratio f of the highest.

    ``draw = static_w + dynamic_w * (linear_share * f + (1 - linear_share) * f ** exponent)``:
    linear where the voltage rests at its floor, steep where it has to rise with the clock.
    ``dynamic_w`` is the work's own (phase and batch). ``idle_w`` is the draw without any work,
    ``static_w`` the part of the draw under work that does not follow the clock. ``spread_ratio``
    is the deviation of the dynamic draw within a step, over its mean.
    Leaves out temperature and the voltage spread between dies.
    """

    idle_w: float
    static_w: float
    linear_share: float
    exponent: float
    min_frequency_ratio: float
    max_clock_mhz: float
    spread_ratio: float = 0.0

    def dynamic_ratio(self, frequency_ratio: float) -> float:
        """Dynamic power at ``frequency_ratio``, relative to that at the highest clock."""
        steep = math.pow(frequency_ratio, self.exponent)
        return self.linear_share * frequency_ratio + (1 - self.linear_share) * steep

    def frequency_ratio(self, limit_w: float, dynamic_w: float) -> float:
        """Highest clock ratio at which work of ``dynamic_w`` stays inside ``limit_w``.

        Never below the lowest clock: at 100 W no work of the A100 table is slower than a floor
        near its 210 MHz explains, and the draw rests at the limit.
        """
        ratio = (limit_w - self.static_w) / dynamic_w
        if ratio >= 1.0:
            return 1.0
        frequencies, ratios = self._inverse
        if ratio <= ratios[0]:
            return frequencies[0]
        i = bisect_right(ratios, ratio) - 1
        share = (ratio - ratios[i]) / (ratios[i + 1] - ratios[i])
        return frequencies[i] + share * (frequencies[i + 1] - frequencies[i])

    def draw_w(self, frequency_ratio: float, dynamic_w: float, limit_w: float) -> float:
        """Draw of work of ``dynamic_w`` at a clock, never above ``limit_w``."""
        return min(limit_w, self.static_w + dynamic_w * self.dynamic_ratio(frequency_ratio))

    def locked_ratio(self, sm_clock_mhz: float) -> float:
        """Highest clock ratio under an SM-clock lock."""
        return min(1.0, max(self.min_frequency_ratio, sm_clock_mhz / self.max_clock_mhz))

    @cached_property
    def part_ratios(self) -> tuple[float, ...]:
        """Dynamic draw of the equal parts of a step, over its mean, rising."""
        return tuple(1 + self.spread_ratio * level for level in _LEVELS)

    @cached_property
    def _inverse(self) -> tuple[list[float], list[float]]:
        """Clock ratios with a soft floor, and the dynamic ratio at which each is reached."""
        free = [i / _GRID for i in range(_GRID + 1)]
        low, sharp = self.min_frequency_ratio, FLOOR_SHARPNESS
        floored = [min(1.0, (f**sharp + low**sharp) ** (1 / sharp)) for f in free]
        return floored, [self.dynamic_ratio(f) for f in free]


class ClockResponse(NamedTuple):
    """How the seconds of a piece of work follow the clock.

    ``t(f) / t(1) = 1 + cycles_share * (1/f - 1) + hidden_share * max(0, 1/f - 1/knee_ratio)``:
    the first share always goes with 1/f, the second only below the knee, above which memory
    hides it.
    """

    cycles_share: float
    hidden_share: float = 0.0
    knee_ratio: float = 1.0

    def time_ratio(self, frequency_ratio: float) -> float:
        """Time over that at the highest clock."""
        slow = 1 / frequency_ratio
        hidden = max(0.0, slow - 1 / self.knee_ratio)
        return 1 + self.cycles_share * (slow - 1) + self.hidden_share * hidden


class DecodeLevel(NamedTuple):
    """One decode step at the highest clock, free of limits: ``dynamic_w`` is per GPU."""

    running: float
    step_s: float
    dynamic_w: float


@dataclass(frozen=True)
class DecodeCost:
    """One decode step of a running batch, between fitted levels (straight in log-log).

    Below the first level and above the last the step's slope goes on, kept between flat and
    proportional; power rests at the end's. The sequences' own context length is left out: each
    level holds the mean over its source's contexts.
    """

    levels: tuple[DecodeLevel, ...]
    clock: ClockResponse

    def at(self, running: float) -> tuple[float, float]:
        """(Seconds of a step, dynamic watts per GPU) at the highest clock."""
        found = self._found.get(running)
        if found is None:
            if len(self._found) >= _POINTS_KEPT:
                self._found.clear()
            found = self._found[running] = self._at(running)
        return found

    def _at(self, running: float) -> tuple[float, float]:
        logs, steps, powers = self._logs
        x = math.log(max(running, 1.0))
        i = min(max(bisect_right(logs, x) - 1, 0), len(logs) - 2)
        share = (x - logs[i]) / (logs[i + 1] - logs[i])
        slope = steps[i + 1] - steps[i]
        if not 0 <= share <= 1:
            slope = min(max(slope, 0.0), logs[i + 1] - logs[i])
        outside = share - min(max(share, 0.0), 1.0)
        inside = share - outside
        log_step = steps[i] + inside * (steps[i + 1] - steps[i]) + outside * slope
        return math.exp(log_step), math.exp(powers[i] + inside * (powers[i + 1] - powers[i]))

    def step_s(self, running: float, frequency_ratio: float) -> float:
        """Seconds of one step, which gives one token to each running sequence."""
        return self.at(running)[0] * self.clock.time_ratio(frequency_ratio)

    def dynamic_w_at(self, running: float) -> float:
        """Dynamic power per GPU at the highest clock."""
        return self.at(running)[1]

    @cached_property
    def _found(self) -> dict[float, tuple[float, float]]:
        """Points asked for before: a simulation asks for the same ones under every limit."""
        return {}

    @cached_property
    def _logs(self) -> tuple[list[float], list[float], list[float]]:
        levels = self.levels if len(self.levels) > 1 else (*self.levels, _doubled(self.levels[0]))
        return (
            [math.log(level.running) for level in levels],
            [math.log(level.step_s) for level in levels],
            [math.log(level.dynamic_w) for level in levels],
        )


def _doubled(level: DecodeLevel) -> DecodeLevel:
    return level._replace(running=2 * level.running)


@dataclass(frozen=True, slots=True)
class PrefillCost:
    """Prompt processing: seconds per prompt token on all GPUs, dynamic watts per GPU.

    ``dynamic_w`` is that of a full chunk; a chunk of few tokens draws as decode does, and
    ``saturation_tokens`` is the size at which 63 % of the difference is reached.
    """

    token_s: float
    clock: ClockResponse
    dynamic_w: float
    saturation_tokens: float = 1.0


class PhaseMix(NamedTuple):
    """An engine's state at one clock limit: seconds and mean draw of each phase.

    ``*_w`` are per GPU of nominal die; ``prefill_share`` is the share of time that prefill
    takes while prompts wait for it, decode having the rest. ``frequency_ratio`` is decode's mean
    clock (prefill's where nothing runs).
    """

    prefill_token_s: float
    prefill_w: float
    decode_step_s: float
    decode_w: float
    prefill_share: float
    frequency_ratio: float


class _Phase(NamedTuple):
    time_ratio: float
    draw_w: float
    frequency_ratio: float


@dataclass(frozen=True)
class EngineModel:
    """An LLM on ``gpu_count`` GPUs of one kind, parallelism as deployed.

    ``gpu_model`` is the part of the driver's name that fixes the kind. ``max_num_batched_tokens``
    is the prompt tokens that one step of chunked prefill carries. What the GPUs of one node say
    to each other is inside the decode levels; ``communication`` adds the links between nodes.
    ``basis`` says where the coefficients come from.
    """

    gpu_model: str
    model: str
    gpu_count: int
    limit_range: PowerLimitRange
    power: PowerLaw
    decode: DecodeCost
    prefill: PrefillCost
    max_num_batched_tokens: int = 2048
    communication: Communication | None = None
    basis: str = "modelled"

    def phase_mix(
        self,
        running: float,
        limit_w: float,
        worst_die_ratio: float = 1.0,
        sm_clock_mhz: float | None = None,
        chunk_tokens: float | None = None,
    ) -> PhaseMix:
        """Times and draw with ``running`` sequences decoding under ``limit_w`` per GPU.

        ``worst_die_ratio`` scales dynamic power: with tensor parallelism the slowest GPU paces
        the others. ``sm_clock_mhz`` holds the clock at or below a value. ``chunk_tokens`` are
        the prompt tokens that are prefilled together, by default a full chunk.
        """
        law, prefill = self.power, self.prefill
        lock = 1.0 if sm_clock_mhz is None else law.locked_ratio(sm_clock_mhz)
        step_s, decode_w = self.decode.at(running)
        prompt_w = prefill.dynamic_w
        if chunk_tokens is not None:
            fullness = -math.expm1(-chunk_tokens / prefill.saturation_tokens)
            prompt_w = decode_w + (prompt_w - decode_w) * fullness
        limits = (limit_w, worst_die_ratio, lock)
        prompt = self._phase(prefill.clock, prompt_w, limits)
        token_s = prefill.token_s * prompt.time_ratio
        if self.communication is not None:
            token_s += self.communication.prompt_token_s
        if running <= 0:
            return PhaseMix(
                token_s, prompt.draw_w, math.inf, law.idle_w, 1.0, prompt.frequency_ratio
            )
        step = self._phase(self.decode.clock, decode_w, limits)
        step_s *= step.time_ratio
        draw_w = step.draw_w
        if self.communication is not None:
            wait_s = self.communication.step_s(running)
            draw_w = (step_s * draw_w + wait_s * min(limit_w, law.static_w)) / (step_s + wait_s)
            step_s += wait_s
        chunk_s = self.max_num_batched_tokens * token_s
        return PhaseMix(
            token_s,
            prompt.draw_w,
            step_s,
            draw_w,
            chunk_s / (chunk_s + step_s),
            step.frequency_ratio,
        )

    def _phase(
        self, clock: ClockResponse, dynamic_w: float, limits: tuple[float, float, float]
    ) -> _Phase:
        """Mean over the parts of a step that draw less and more than its mean."""
        limit_w, worst_die_ratio, lock = limits
        held_w = limit_w * LIMIT_RATIO
        law = self.power
        hottest_w = dynamic_w * law.part_ratios[-1]
        if law.static_w + hottest_w * worst_die_ratio <= held_w:
            draw_w = law.draw_w(lock, dynamic_w, held_w)
            return _Phase(clock.time_ratio(lock), draw_w, lock)
        seconds = joules = cycles = 0.0
        for part_ratio in law.part_ratios:
            part_w = dynamic_w * part_ratio
            f = min(lock, law.frequency_ratio(held_w, part_w * worst_die_ratio))
            part_s = clock.time_ratio(f)
            seconds += part_s
            joules += part_s * law.draw_w(f, part_w, held_w)
            cycles += part_s * f
        return _Phase(seconds / len(_LEVELS), joules / seconds, cycles / seconds)
