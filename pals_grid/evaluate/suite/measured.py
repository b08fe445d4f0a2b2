"""One strategy on one simulated node, measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from pals_grid.evaluate.suite.drive import NodeRun
from pals_grid.evaluate.suite.metrics import energy, merged, request_metrics, served

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.evaluate.suite.drive import EngineSetup, MakeStrategy, Slot
    from pals_grid.evaluate.suite.metrics import Served
    from pals_grid.powermodel.overhead import NodeOverhead
    from pals_grid.sim.histogram import LatencyHistogram

    Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Window:
    """``[start_s, end_s)`` is measured; the run goes on to ``drain_s`` for the last requests."""

    start_s: float
    end_s: float
    drain_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A run that is over: the node, its measures, the fate of each engine's requests."""

    run: NodeRun
    metrics: Metrics
    fates: list[list[Served]]


def measure(
    setups: Sequence[EngineSetup],
    overhead: NodeOverhead,
    seed: int,
    strategy: MakeStrategy,
    window: Window,
    slots: Sequence[Slot] = (),
) -> Measured:
    """Run a node by itself. Without ``slots`` its envelope is wide open."""
    run = NodeRun(setups, overhead, seed, strategy)
    if slots:
        run.grant(slots)
    return follow([run], window, run.run_until)[0]


def follow(
    runs: Sequence[NodeRun], window: Window, run_until: Callable[[float], None]
) -> list[Measured]:
    """Measure runs that ``run_until`` moves on together."""
    run_until(window.start_s)
    before = [[engine.sim.itl_histogram for engine in run.engines] for run in runs]
    run_until(window.end_s)
    after = [[engine.sim.itl_histogram for engine in run.engines] for run in runs]
    run_until(window.drain_s)
    return [
        _measured(run, window, _between(a, b))
        for run, a, b in zip(runs, before, after, strict=True)
    ]


def _measured(run: NodeRun, window: Window, itl: LatencyHistogram) -> Measured:
    fates = [
        served(engine.arrived, engine.finished, window.start_s, window.end_s)
        for engine in run.engines
    ]
    slo = run.engines[0].setup.slo
    everyone = [fate for part in fates for fate in part]
    metrics = merged(
        energy(run.ticks, window.start_s, window.end_s).metrics(),
        request_metrics(everyone, slo) if everyone else {},
        {"itl_p50_s": itl.quantile(0.5), "itl_p99_s": itl.quantile(0.99)},
    )
    return Measured(run, metrics, fates)


def _between(
    before: Sequence[LatencyHistogram], after: Sequence[LatencyHistogram]
) -> LatencyHistogram:
    """Tokens by the gap before them, over a stretch of time, all engines together."""
    parts = [new.since(old) for old, new in zip(before, after, strict=True)]
    return reduce(lambda a, b: a.merged(b), parts)
