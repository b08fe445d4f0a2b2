"""A simulated node: one engine on its GPUs, brought up to the clock event by event."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.ports import ClockRange
from pals_grid.core.site import Slo
from pals_grid.powermodel.coefficients import engine_model
from pals_grid.powermodel.physics import LIMIT_RATIO
from pals_grid.sim.engine import SimEngine
from pals_grid.sim.gpu import Reading, SimGpu
from pals_grid.sim.histogram import latency_bin
from pals_grid.sim.meter import SimMeter
from pals_grid.sim.noise import IDLE_NOISE, NOISE_STEP_S, DrawNoise, regulated
from pals_grid.sim.work import Draw, Phases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pals_grid.core.ports import Clock
    from pals_grid.powermodel.overhead import NodeOverhead
    from pals_grid.powermodel.physics import EngineModel
    from pals_grid.sim.arrivals import ClosedLoop, Request
    from pals_grid.sim.engine import RequestRecord
    from pals_grid.sim.histogram import LatencyHistogram

#: Half the range of dynamic power between dies of one kind: about 5.7 % of the whole draw from
#: best to worst (B200, 8 boards, quoted in the project's literature list; assumed for others).
DIE_SPREAD_RATIO = 0.04
_PACES_KEPT = 256
_NOISE_STEPS_PER_ROLL = 4


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a simulated node is made of; ``max_num_seqs`` is the start value and the most.

    ``engine`` is used as it is where given, otherwise looked up by ``gpu_model``, ``model`` and
    ``gpu_count``.
    """

    name: str
    gpu_model: str
    model: str
    gpu_count: int
    overhead: NodeOverhead
    max_num_seqs: int
    slo: Slo = field(default_factory=Slo)
    engine: EngineModel | None = None
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        if self.engine is not None and self.engine.gpu_count != self.gpu_count:
            raise InvalidValue("gpu_count", self.gpu_count, f"must be {self.engine.gpu_count}")

    def engine_model(self) -> EngineModel:
        """Return the engine's coefficients.

        Raises:
            NotFound: when there are none.
        """
        if self.engine is not None:
            return self.engine
        return engine_model(self.gpu_model, self.model, self.gpu_count)


class SimNode:
    """GPUs, engine and meter behind the node's ports, all brought up by any look at them.

    Between two events (arrival, chunk done, sequence done, limit on its way, noise) every rate
    is constant, so energy is the exact integral of power however often the node is looked at.
    ``arrivals`` rise in ``arrival_s``, seconds after the node is made; a ``ClosedLoop`` keeps the
    engine's queue filled. ``record`` is called at each request's end and must not look at the
    node. One thread only.
    """

    def __init__(
        self,
        clock: Clock,
        spec: NodeSpec,
        arrivals: Iterable[Request] | ClosedLoop,
        seed: int = 0,
        *,
        record: Callable[[RequestRecord], None] | None = None,
    ) -> None:
        self.spec = spec
        self._clock = clock
        self._origin_s = clock.monotonic_s()
        self._now_s = 0.0
        self._model = spec.engine_model()
        draw = random.Random(seed)  # noqa: S311  # noise, no secret
        self._gpus = tuple(self._make_gpu(i, draw) for i in range(spec.gpu_count))
        self._engine = SimEngine(
            spec.model,
            spec.slo,
            spec.max_num_seqs,
            self.advance,
            max_num_batched_tokens=self._model.max_num_batched_tokens,
            record=record,
            arrivals=arrivals,
        )
        self.meter = SimMeter(spec.overhead)
        self._noise = DrawNoise(draw)
        self._next_noise_s = NOISE_STEP_S
        self._noise_steps = 0
        self._next_change_s = math.inf
        self._drawn_s = 0.0
        self._idle_s = 0.0
        self._even_j = 0.0
        self._die_j = 0.0
        self._paces: dict[tuple[float, float, float | None, float], _Pace] = {}
        self._pace = self._find_pace()

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
        return self._engine.requests_submitted

    @property
    def itl_histogram(self) -> LatencyHistogram:
        """Output tokens after the first by the gap before them, so far."""
        return self._engine.itl_histogram

    def advance(self) -> float:
        """Bring the plant up to the clock; returns its time, in seconds since it was made."""
        end_s = self._clock.monotonic_s() - self._origin_s
        now_s = self._now_s
        if now_s >= end_s:
            return now_s
        self._next_change_s = min([gpu.next_change_s for gpu in self._gpus])
        while now_s < end_s:
            horizon_s = min(end_s, self._next_noise_s, self._next_change_s)
            if horizon_s > now_s:
                self._engine.run(now_s, horizon_s, self._pace)
                self._now_s = now_s = horizon_s
            if self._next_change_s <= now_s:
                self._change(now_s)
            if self._next_noise_s <= now_s:
                self._renew_noise()
        self._take_work()
        self._draw()
        return now_s

    def _make_gpu(self, index: int, draw: random.Random) -> SimGpu:
        die_ratio = 1 + draw.uniform(-DIE_SPREAD_RATIO, DIE_SPREAD_RATIO)
        law = self._model.power
        return SimGpu(
            uuid=f"SIM-{self.spec.name}-{index}",
            model=self.spec.gpu_model,
            limit_range=self._model.limit_range,
            die_ratio=die_ratio,
            bring_up=self.advance,
            clock_range=ClockRange(law.min_frequency_ratio * law.max_clock_mhz, law.max_clock_mhz),
            reading=self.spec.reading,
        )

    def _renew_noise(self) -> None:
        self._take_work()
        if self.spec.reading.keeps_s:
            self._draw()
        self._noise.step()
        self._noise_steps += 1
        self._next_noise_s = (self._noise_steps + 1) * NOISE_STEP_S
        if self._noise_steps % _NOISE_STEPS_PER_ROLL == 0:
            self._engine.roll(self._now_s)

    def _change(self, now_s: float) -> None:
        """Take the limits and locks that come into force."""
        for gpu in self._gpus:
            gpu.change(now_s)
        self._next_change_s = min([gpu.next_change_s for gpu in self._gpus])
        self._pace = self._find_pace()

    def _find_pace(self) -> _Pace:
        """Return the phases under the limits in force; the GPU with least room paces all."""
        static_w = self._model.power.static_w
        pace = min(self._gpus, key=lambda g: (g.effective_limit_w - static_w) / g.die_ratio)
        locks = [g.effective_lock_mhz for g in self._gpus if g.effective_lock_mhz is not None]
        least_w = min(g.effective_limit_w for g in self._gpus)
        key = (pace.effective_limit_w, pace.die_ratio, min(locks, default=None), least_w)
        found = self._paces.get(key)
        if found is None:
            if len(self._paces) >= _PACES_KEPT:
                self._paces.clear()
            found = self._paces[key] = _Pace(self._model, *key)
        return found

    def _take_work(self) -> None:
        """Count the energy of the work since the last time, under the noise of that time."""
        work, law, noise = self._engine.work, self._model.power, self._noise.value
        idle_j = law.idle_w * (1 + IDLE_NOISE * noise) * work.idle_s
        self._even_j += work.held_even_j + noise * work.noisy_even_j + idle_j
        self._die_j += work.held_die_j + noise * work.noisy_die_j
        self._idle_s += work.idle_s
        work.clear()

    def _draw(self) -> None:
        """Bring the GPUs' counters up to date."""
        now_s, law = self._now_s, self._model.power
        seconds, self._drawn_s = now_s - self._drawn_s, now_s
        if seconds <= 0:
            return
        clock_mhz = self._pace[self._engine.phase].clock_mhz
        if self._idle_s >= seconds:
            clock_mhz = law.min_frequency_ratio * law.max_clock_mhz
        self._idle_s = 0.0
        for gpu in self._gpus:
            gpu.sm_clock_mhz = clock_mhz
            gpu.draw(now_s, seconds, self._even_j + self._die_j * gpu.die_ratio)


class _Pace(dict[tuple[int, int], Phases]):
    """Phases under one limit and one lock, see ``work.PhaseTable``.

    The GPU of ``die_ratio`` paces all. Where its limit does not regulate, the others' draw
    differs by their dies; where it does, they draw as much as it does and no more than
    ``least_limit_w``: each is at its own limit, and those of better dies wait for it. (In the
    A100 table's cells at 150 W the mean of four GPUs is 0.6 % below the limit, so none of them
    is far below it.)
    """

    def __init__(
        self,
        model: EngineModel,
        limit_w: float,
        die_ratio: float,
        lock_mhz: float | None,
        least_limit_w: float,
    ) -> None:
        super().__init__()
        self._model = model
        self._setting = (limit_w, die_ratio, lock_mhz)
        self._least_limit_w = least_limit_w

    def __missing__(self, key: tuple[int, int]) -> Phases:
        decoding, chunk = key
        mix = self._model.phase_mix(decoding, *self._setting, chunk or None)
        phases = self[key] = Phases(
            prefill_token_s=mix.prefill_token_s,
            decode_step_s=mix.decode_step_s,
            decode_bin=latency_bin(mix.decode_step_s) if decoding else 0,
            clock_mhz=mix.frequency_ratio * self._model.power.max_clock_mhz,
            prefill=self._draw(mix.prefill_w),
            decode=self._draw(mix.decode_w),
        )
        return phases

    def _draw(self, nominal_w: float) -> Draw:
        limit_w, die_ratio, _ = self._setting
        static_w = self._model.power.static_w
        most_w = max(0.0, limit_w * LIMIT_RATIO - static_w)
        dynamic_w = min(nominal_w - static_w, most_w / die_ratio)
        pace_w = static_w + dynamic_w * die_ratio
        share, noisy = regulated(pace_w, limit_w)
        even_w = share * min(pace_w, self._least_limit_w) + (1 - share) * static_w
        die_w = (1 - share) * dynamic_w
        return Draw(even_w, die_w, noisy * even_w, noisy * die_w)
