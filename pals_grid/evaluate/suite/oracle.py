"""The oracle: what the true plant allows, found by search. It is no controller.

Saturated load: every (limit in 5-W steps, batch, clock in thirtieths) by the plant's own
equations; the best tokens/J that meets the target is replayed on the plant, moved until the plant,
whose dies and noise the equations leave out, meets the target too, and then improved by replaying
its neighbours in limit and clock until none is better.

Open loop: constant settings are replayed over the true arrivals, without a control loop: limits,
clocks, then neighbours in limit, clock and batch while one is better. Beside them stands a
clairvoyant schedule, which knows the true table and every arrival to come. The better of the two
that holds the objectives counts.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from pals_grid.core.commands import NodeCommand
from pals_grid.evaluate.suite.baselines import FixedSettings
from pals_grid.evaluate.suite.drive import NodeRun, run_fixed
from pals_grid.evaluate.suite.metrics import energy, merged, request_metrics, served
from pals_grid.evaluate.suite.tables import spread, true_points
from pals_grid.node.decision import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pals_grid.core.fleet import OperatingPoint
    from pals_grid.core.ports import NodePower
    from pals_grid.evaluate.suite.drive import EngineSetup
    from pals_grid.evaluate.suite.measured import Window
    from pals_grid.evaluate.suite.metrics import Energy
    from pals_grid.evaluate.suite.tables import TableKey
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope
    from pals_grid.powermodel.overhead import NodeOverhead
    from pals_grid.sim.arrivals import Request

    Metrics = dict[str, float | None]
    Replay = Callable[[NodeCommand], Energy]

HELD_RATIO = 0.01
"""Objectives are held when at most so many requests are outside: p99 latencies."""
FINE_STEP_W = 5.0
_HORIZONS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_MARGINS = (0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
_TRIES = 6
CLOCK_STEPS = 30
_BETTER_RATIO = 1.0005


def best_point(
    points: Iterable[OperatingPoint], target_tokens_per_s: float
) -> OperatingPoint | None:
    """Highest tokens/J of the points that meet the target; None when none does."""
    return max(
        (point for point in points if point.tokens_per_s >= target_tokens_per_s),
        key=lambda point: point.tokens_per_s / point.gpu_power_w,
        default=None,
    )


def command_of(point: OperatingPoint, reason: str = "oracle") -> NodeCommand:
    """The setting of a point."""
    return NodeCommand(
        point.power_limit_w, point.max_num_seqs, reason, sm_clock_mhz=point.sm_clock_mhz
    )


# --- saturated -----------------------------------------------------------------------------


def saturated(
    key: TableKey,
    target_tokens_per_s: float,
    replay: Replay,
) -> tuple[NodeCommand, Energy]:
    """Best constant setting at a throughput target; ``replay`` runs one on the plant.

    Where no point of the equations meets the target, the one of most throughput is taken.
    """
    steps = round((key.engine.limit_range.max_w - key.engine.limit_range.min_w) / FINE_STEP_W)
    points = true_points(key, spread(key.engine, steps), (None, *_clocks_mhz(key)))
    found = _meeting(key, points, target_tokens_per_s, replay)
    meets = [item for item in found if item[1].tokens_per_s >= target_tokens_per_s]
    if not meets:
        return max(found, key=lambda item: item[1].tokens_per_s)
    best = max(meets, key=_value)
    return _climbed(key, best, target_tokens_per_s, replay)


def _value(item: tuple[NodeCommand, Energy]) -> float:
    return item[1].tokens / item[1].gpu_j


def _meeting(
    key: TableKey,
    points: Sequence[OperatingPoint],
    target_tokens_per_s: float,
    replay: Replay,
) -> list[tuple[NodeCommand, Energy]]:
    """Replays of the best point, asked for more until the plant gives the target."""
    wanted = target_tokens_per_s
    found: list[tuple[NodeCommand, Energy]] = []
    for _ in range(_TRIES):
        point = best_point(points, wanted) or max(points, key=lambda p: p.tokens_per_s)
        command = command_of(_trimmed(key, point, wanted))
        result = replay(command)
        found.append((command, result))
        if target_tokens_per_s <= result.tokens_per_s <= target_tokens_per_s * 1.002:
            break
        if result.tokens_per_s > target_tokens_per_s and point.tokens_per_s > wanted * 1.02:
            break  # more than asked for because that is the better point
        wanted *= target_tokens_per_s * 1.001 / result.tokens_per_s
    return found


def _climbed(
    key: TableKey,
    best: tuple[NodeCommand, Energy],
    target_tokens_per_s: float,
    replay: Replay,
) -> tuple[NodeCommand, Energy]:
    """Neighbours in limit and clock on the plant itself, while one is better."""
    limits = key.engine.limit_range
    high_mhz = key.engine.power.max_clock_mhz
    for step in (4.0, 2.0, 1.0):
        moved = True
        while moved:
            moved = False
            command = best[0]
            clock_mhz = command.sm_clock_mhz or high_mhz
            trials = [
                replace(command, sm_clock_mhz=min(high_mhz, clock_mhz + sign * step * 15.0))
                for sign in (-1, 1)
            ]
            trials += [
                replace(command, power_limit_w=command.power_limit_w + sign * step * FINE_STEP_W)
                for sign in (-1, 1)
            ]
            for trial in trials:
                if trial == command or not limits.min_w <= trial.power_limit_w <= limits.max_w:
                    continue
                item = (trial, replay(trial))
                meets = item[1].tokens_per_s >= target_tokens_per_s
                if meets and _value(item) > _value(best) * _BETTER_RATIO:
                    best, moved = item, True
                    break
    return best


def _trimmed(key: TableKey, point: OperatingPoint, wanted: float) -> OperatingPoint:
    """The point with its limit lowered, by less than a step, to just what is wanted."""
    low_w, high_w = point.power_limit_w - FINE_STEP_W, point.power_limit_w
    if low_w < key.engine.limit_range.min_w or point.tokens_per_s <= 0:
        return point

    def at(limit_w: float) -> OperatingPoint:
        return key.point(limit_w, point.max_num_seqs, point.sm_clock_mhz)

    for _ in range(8):
        middle_w = (low_w + high_w) / 2
        trial = at(middle_w)
        better = trial.tokens_per_s / trial.gpu_power_w >= point.tokens_per_s / point.gpu_power_w
        if trial.tokens_per_s >= wanted and better:
            point, high_w = trial, middle_w
        else:
            low_w = middle_w
    return point


# --- open loop -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """One node under given arrivals, which go on to the window's ``drain_s``."""

    setup: EngineSetup
    key: TableKey
    arrivals: tuple[Request, ...]
    overhead: NodeOverhead
    seed: int
    window: Window

    def constant(self, command: NodeCommand) -> Metrics:
        """Measures under one constant setting."""
        setup = replace(self.setup, arrivals=self.arrivals)
        start_s, end_s = self.window.start_s, self.window.end_s
        marks_s = (start_s, end_s, self.window.drain_s)
        run, samples = run_fixed(setup, self.overhead, self.seed, command, marks_s)
        fates = served(self.arrivals, run.finished, start_s, end_s)
        return merged(
            energy(samples, start_s, end_s).metrics(),
            request_metrics(fates, setup.slo),
            {"limit_w": command.power_limit_w, "max_num_seqs": float(command.max_num_seqs)},
        )

    def clairvoyant(self, margin: float) -> Metrics:
        """Measures under a schedule that knows what comes."""
        points = true_points(self.key, spread(self.key.engine, 30), (None, *_clocks_mhz(self.key)))
        run = NodeRun(
            [replace(self.setup, arrivals=self.arrivals)],
            self.overhead,
            self.seed,
            lambda _units, _overhead, _slo: Clairvoyant(points, self.arrivals, margin),
        )
        start_s, end_s = self.window.start_s, self.window.end_s
        run.run_until(self.window.drain_s)
        fates = served(self.arrivals, run.engines[0].finished, start_s, end_s)
        return merged(
            energy(run.ticks, start_s, end_s).metrics(),
            request_metrics(fates, self.setup.slo),
            {"margin_ratio": margin},
        )


def _clocks_mhz(key: TableKey) -> list[float]:
    """Clocks of the searches, from a third of the highest on."""
    high_mhz = key.engine.power.max_clock_mhz
    return [high_mhz * k / CLOCK_STEPS for k in range(CLOCK_STEPS // 3, CLOCK_STEPS)]


def open_loop(case: OpenLoop) -> Metrics:
    """The better of the best constant setting and the best clairvoyant schedule."""
    constant = min(_search(case), key=_rank)
    foreseeing = min((case.clairvoyant(margin) for margin in _MARGINS), key=_rank)
    best = min((constant, foreseeing), key=_rank)
    return best | {"clairvoyant": float(best is foreseeing)}


def _rank(metrics: Metrics) -> tuple[float, float]:
    """Inside the objectives first, then by tokens/J; outside them the fewest misses first."""
    outside = metrics["outside_ratio"] or 0.0
    return (max(outside, HELD_RATIO), -(metrics["tokens_per_j_gpu"] or 0.0))


def _search(case: OpenLoop) -> list[Metrics]:
    """Constant settings: limits and clocks at the largest batch, then neighbours of the best."""
    key = case.key
    limits, batch = key.engine.limit_range, key.max_num_seqs
    high_mhz = key.engine.power.max_clock_mhz
    coarse = [NodeCommand(limit_w, batch, "oracle") for limit_w in key.limits_w]
    coarse += [
        NodeCommand(limits.max_w, batch, "oracle", sm_clock_mhz=high_mhz * k / 10)
        for k in range(3, 10)
    ]
    tried = {command: case.constant(command) for command in coarse}
    best = min(tried, key=lambda command: _rank(tried[command]))
    for step in (4.0, 2.0, 1.0):
        moved = True
        while moved:
            moved = False
            for trial in _neighbours(best, step, high_mhz, key.max_num_seqs):
                if trial in tried or not limits.min_w <= trial.power_limit_w <= limits.max_w:
                    continue
                tried[trial] = case.constant(trial)
                if _rank(tried[trial]) < _rank(tried[best]):
                    best, moved = trial, True
                    break
    return list(tried.values())


def _neighbours(
    command: NodeCommand, step: float, high_mhz: float, most_seqs: int
) -> list[NodeCommand]:
    clock_mhz = command.sm_clock_mhz or high_mhz
    found = [
        replace(command, sm_clock_mhz=min(high_mhz, clock_mhz * (1 + sign * 0.02 * step)))
        for sign in (-1, 1)
    ]
    found += [
        replace(command, power_limit_w=command.power_limit_w + sign * step * FINE_STEP_W)
        for sign in (-1, 1)
    ]
    batches = (round(command.max_num_seqs * 0.9**step), round(command.max_num_seqs / 0.9**step))
    return found + [
        replace(command, max_num_seqs=batch) for batch in batches if 1 <= batch <= most_seqs
    ]


class Clairvoyant(FixedSettings):
    """Knows the true table and every arrival: the cheapest point that the near future needs.

    What it needs is the most of (tokens that wait and arrive within h) / h over horizons of 1 to
    30 s, times ``margin``. Saturated points are taken for what they give; at part load a batch
    that is not full is slower than it could be, which the margin has to cover.
    """

    def __init__(
        self,
        points: Iterable[OperatingPoint],
        arrivals: Sequence[Request],
        margin: float,
    ) -> None:
        fast = _pareto(points)
        super().__init__([command_of(fast[-1])])
        self._points = fast
        self._rates = [point.tokens_per_s for point in fast]
        self._margin = margin
        self._arrivals_s = [request.arrival_s for request in arrivals]
        self._tokens = [0.0, *accumulate(float(request.tokens_out) for request in arrivals)]
        self._now_s = 0.0

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Choose for what is to come."""
        del envelope, node_power
        self._now_s += dt_s
        engine = seen[0].engine
        known = bisect_right(self._arrivals_s, self._now_s)
        mean = self._tokens[known] / known if known else 0.0
        waiting = (engine.requests_waiting if engine is not None else 0) * mean
        needed = max(
            (waiting + self._until(self._now_s + h) - self._tokens[known]) / h for h in _HORIZONS_S
        )
        i = min(len(self._points) - 1, bisect_right(self._rates, needed * self._margin))
        return [Decision(needed, command_of(self._points[i]))]

    def _until(self, at_s: float) -> float:
        return self._tokens[bisect_right(self._arrivals_s, at_s)]


def _pareto(points: Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """Points by rising throughput, each drawing less than all that follow it."""
    kept: list[OperatingPoint] = []
    least_w = math.inf
    for point in sorted(points, key=lambda p: (-p.tokens_per_s, p.gpu_power_w)):
        if point.gpu_power_w < least_w:
            least_w = point.gpu_power_w
            kept.append(point)
    return kept[::-1]
