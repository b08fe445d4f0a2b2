"""A simulated node: one engine on its GPUs, brought up to the clock event by event."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.core.errors import InvalidValue
from pals_grid.core.site import Slo
from pals_grid.powermodel.coefficients import engine_model
from pals_grid.sim.engine import Rates, SimEngine
from pals_grid.sim.gpu import SimGpu
from pals_grid.sim.meter import SimMeter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pals_grid.core.ports import Clock
    from pals_grid.powermodel.overhead import NodeOverhead
    from pals_grid.sim.arrivals import Request

#: Half the range of dynamic power between dies of one kind: about 5.7 % of the whole draw from
#: best to worst (B200, 8 boards, quoted in the project's literature list; assumed for others).
DIE_SPREAD_RATIO = 0.04
#: Draw noise: 0.56 % is the repeatability of the A100 table's cells, cut at three times that.
NOISE_RATIO = 0.0056
NOISE_BOUND_RATIO = 3 * NOISE_RATIO
_NOISE_STEP_S = 0.5


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a simulated node is made of; ``max_num_seqs`` is the start value and the most."""

    name: str
    gpu_model: str
    model: str
    gpu_count: int
    overhead: NodeOverhead
    max_num_seqs: int
    slo: Slo = field(default_factory=Slo)


class _State(NamedTuple):
    """Rates and draws while nothing changes: per GPU before noise."""

    rates: Rates
    powers_w: tuple[float, ...]
    clock_mhz: float


class SimNode:
    """GPUs, engine and meter behind the node's ports, all brought up by any look at them.

    Between two events (arrival, prompt done, sequence done, limit on its way, noise) every rate
    is constant, so energy is the exact integral of power however often the node is looked at.
    ``arrivals`` rise in ``arrival_s``, seconds after the node is made. One thread only.
    """

    def __init__(
        self, clock: Clock, spec: NodeSpec, arrivals: Iterable[Request], seed: int = 0
    ) -> None:
        self.spec = spec
        self._clock = clock
        self._origin_s = clock.monotonic_s()
        self._now_s = 0.0
        self._model = engine_model(spec.gpu_model, spec.model, spec.gpu_count)
        self._random = random.Random(seed)  # noqa: S311  # noise, no secret
        self._gpus = tuple(self._make_gpu(i) for i in range(spec.gpu_count))
        self._engine = SimEngine(spec.model, spec.slo, spec.max_num_seqs, self.advance)
        self.meter = SimMeter(spec.overhead)
        self._arrivals = iter(arrivals)
        self._arrival = next(self._arrivals, None)
        self._submitted = 0
        self._noise = [1.0] * spec.gpu_count
        self._next_noise_s = 0.0
        self._next_stair_s = math.inf
        self._states: dict[tuple[int, bool], _State] = {}

    @property
    def gpus(self) -> tuple[SimGpu, ...]:
        """The node's GPUs."""
        return self._gpus

    @property
    def engine(self) -> SimEngine:
        """The node's engine."""
        return self._engine

    @property
    def requests_submitted(self) -> int:
        """Requests that have arrived so far."""
        return self._submitted

    def advance(self) -> float:
        """Bring the plant up to the clock; returns its time, in seconds since it was made."""
        end_s = self._clock.monotonic_s() - self._origin_s
        self._next_stair_s = min(gpu.next_stair_s for gpu in self._gpus)
        while self._now_s < end_s:
            self._take_due_events()
            self._run_until(end_s)
        self._take_due_events()
        return self._now_s

    def _make_gpu(self, index: int) -> SimGpu:
        die_ratio = 1 + self._random.uniform(-DIE_SPREAD_RATIO, DIE_SPREAD_RATIO)
        return SimGpu(
            uuid=f"SIM-{self.spec.name}-{index}",
            model=self.spec.gpu_model,
            limit_range=self._model.limit_range,
            die_ratio=die_ratio,
            bring_up=self.advance,
        )

    def _run_until(self, end_s: float) -> None:
        """Run to the next event, or to ``end_s``."""
        state = self._state()
        horizon_s = min(end_s, self._next_noise_s, self._next_stair_s)
        if self._arrival is not None:
            horizon_s = min(horizon_s, self._arrival.arrival_s)
        step_s = max(0.0, horizon_s - self._now_s)
        event_s = self._engine.next_event_s(state.rates)
        if event_s < step_s:
            step_s = event_s
            self._now_s += step_s
        else:
            self._now_s = horizon_s
        self._engine.progress(step_s, state.rates)
        for gpu, power_w, noise in zip(self._gpus, state.powers_w, self._noise, strict=True):
            gpu.power_w = power_w * noise
            gpu.energy_j += gpu.power_w * step_s
            gpu.sm_clock_mhz = state.clock_mhz

    def _take_due_events(self) -> None:
        now_s = self._now_s
        self._engine.settle(now_s)
        while self._arrival is not None and self._arrival.arrival_s <= now_s:
            self._engine.submit(self._arrival)
            self._submitted += 1
            following = next(self._arrivals, None)
            if following is not None and following.arrival_s < self._arrival.arrival_s:
                raise InvalidValue("arrival_s", following.arrival_s, "must not fall")
            self._arrival = following
        if self._next_stair_s <= now_s:
            for gpu in self._gpus:
                gpu.climb(now_s)
            self._next_stair_s = min(gpu.next_stair_s for gpu in self._gpus)
            self._states.clear()
        if self._next_noise_s <= now_s:
            self._noise = [self._draw_noise() for _ in self._gpus]
            self._next_noise_s = (math.floor(now_s / _NOISE_STEP_S) + 1) * _NOISE_STEP_S

    def _draw_noise(self) -> float:
        noise = self._random.gauss(0.0, NOISE_RATIO)
        return 1 + min(NOISE_BOUND_RATIO, max(-NOISE_BOUND_RATIO, noise))

    def _state(self) -> _State:
        key = (self._engine.decoding, self._engine.prefilling)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = self._solve(*key)
        return state

    def _solve(self, decoding: int, prefilling: bool) -> _State:
        """Rates and draws under the limits in force; the GPU with least room paces all."""
        law = self._model.power
        if not decoding and not prefilling:
            idle_w = tuple(law.idle_w for _ in self._gpus)
            return _State(Rates(0.0, 0.0), idle_w, law.min_frequency_ratio * law.max_clock_mhz)
        pace = min(self._gpus, key=lambda g: (g.effective_limit_w - law.static_w) / g.die_ratio)
        mix = self._model.phase_mix(decoding, pace.effective_limit_w, pace.die_ratio)
        share = mix.prefill_share if prefilling else 0.0
        decode_rate = (1 - share) / mix.decode_step_s if decoding else 0.0
        nominal_w = share * mix.prefill_w + (1 - share) * mix.decode_w
        powers_w = tuple(
            min(g.effective_limit_w, law.static_w + (nominal_w - law.static_w) * g.die_ratio)
            for g in self._gpus
        )
        rates = Rates(share / mix.prefill_token_s, decode_rate)
        return _State(rates, powers_w, mix.frequency_ratio * law.max_clock_mhz)
