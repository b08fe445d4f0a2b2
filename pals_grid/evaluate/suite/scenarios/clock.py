"""``clock``: MoE decode on H100 and B200, where a power limit does not reach."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING

from pals_grid.core.commands import NodeCommand
from pals_grid.core.site import Slo
from pals_grid.evaluate.suite import baselines, engines, loads
from pals_grid.evaluate.suite.drive import START_AT, EngineSetup
from pals_grid.evaluate.suite.job import Column, Outcome
from pals_grid.evaluate.suite.measured import Window, measure
from pals_grid.evaluate.suite.plots import BOUNDARY_NOTE, bars_by_case
from pals_grid.evaluate.suite.results import judge, over_cases, worst_of_cases
from pals_grid.evaluate.suite.scenario import Scenario
from pals_grid.evaluate.suite.statistics import mean_of
from pals_grid.evaluate.suite.strategies import (
    CLOCK_LOCK,
    MAX_Q,
    ORACLE,
    OURS,
    PALS,
    STATIC_LIMIT,
    STATIC_MAX,
    maker,
)
from pals_grid.evaluate.suite.tables import TableKey, controller_table
from pals_grid.sim.arrivals import poisson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from pals_grid.evaluate.suite.drive import MakeStrategy
    from pals_grid.evaluate.suite.job import Bar, Job, SuiteOptions
    from pals_grid.evaluate.suite.results import Results
    from pals_grid.powermodel.physics import EngineModel
    from pals_grid.sim.arrivals import Request

NAME = "clock"
SEQS = 128
TOKENS_IN, TOKENS_OUT = 512.0, 1024.0
LOAD = 0.5
CLOCK_RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TTFT_S = 5.0
ITL_ROOM_RATIO = 0.1
"""The objective is the static maximum's own p99 and so much more."""
CALIBRATION_SEEDS = (901, 902, 903)
GAIN_BAR, E2E_BAR = 0.388, 0.066
SLOWDOWN_RATIO = 0.06
"""Ours may be so much slower than full power: it is told the bar's bound, less a margin."""
ORACLE_STEPS = 6
LEAST_CLOCK_RATIO = 0.35

Metrics = dict[str, float | None]


def _engines(options: SuiteOptions) -> dict[str, EngineModel]:
    found = {f"{engines.short_name(e)}, {e.gpu_model}": e for e in engines.clock_engines()}
    return dict(itertools.islice(found.items(), 1)) if options.quick else found


def _key(engine: EngineModel) -> TableKey:
    high_mhz = engine.power.max_clock_mhz
    clocks = tuple(round(ratio * high_mhz / 15.0) * 15.0 for ratio in CLOCK_RATIOS)
    return TableKey(engine, SEQS, TOKENS_IN, TOKENS_OUT, clocks)


def _window(options: SuiteOptions) -> Window:
    return Window(30.0, 60.0, 90.0) if options.quick else Window(120.0, 720.0, 820.0)


def _arrivals(rate_per_s: float, seed: int, until_s: float) -> Iterator[Request]:
    endless = poisson(
        rate_per_s,
        START_AT.replace(hour=21),
        seed=seed,
        tokens_in=TOKENS_IN,
        tokens_out=TOKENS_OUT,
    )
    return loads.until(until_s, endless)


def _make(strategy: str) -> MakeStrategy:
    return maker(strategy, itl_tail=True, max_slowdown_ratio=SLOWDOWN_RATIO)


def _measure(
    engine: EngineModel, options: SuiteOptions, seed: int, make: MakeStrategy, slo: Slo
) -> Metrics:
    key, window = _key(engine), _window(options)
    table = controller_table(key, options.scratch)
    arrivals = _arrivals(loads.rate_of(LOAD, table, TOKENS_OUT), seed, window.drain_s)
    setup = EngineSetup("engine", engine, SEQS, arrivals, table, slo)
    done = measure([setup], engines.overhead_of(engine), seed, make, window)
    shown = [tick for tick in done.run.ticks if tick.at_s > window.start_s]
    clocks = [gpu.observe().sm_clock_mhz or 0.0 for gpu in done.run.engines[0].sim.gpus]
    return done.metrics | {
        "limit_w": sum(tick.limit_w for tick in shown) / len(shown),
        "last_clock_mhz": sum(clocks) / len(clocks),
    }


@lru_cache(maxsize=16)
def _slo(case: str, options: SuiteOptions) -> Slo:
    """Objectives from the static maximum on other nodes of this kind, mean of three runs."""
    open_slo = Slo(TTFT_S, 10.0)
    engine = _engines(options)[case]
    found = [
        _measure(engine, options, seed, _make(STATIC_MAX), open_slo)["itl_p99_s"] or 0.0
        for seed in CALIBRATION_SEEDS
    ]
    return replace(open_slo, itl_s=(1 + ITL_ROOM_RATIO) * fmean(found))


def _best_constant(
    engine: EngineModel, options: SuiteOptions, seed: int, slo: Slo
) -> tuple[NodeCommand, Metrics]:
    """Most tokens/J of the constant clocks and limits that hold the objectives and the bar.

    Both latencies rise as a clock or a limit falls: each knob is halved down to its lowest
    setting that holds them, on the true plant with the true arrivals.
    """

    def run(command: NodeCommand) -> Metrics:
        fixed = baselines.FixedSettings([command])
        return _measure(engine, options, seed, lambda _u, _o, _s: fixed, slo)

    high_w, high_mhz = engine.limit_range.max_w, engine.power.max_clock_mhz
    top = NodeCommand(high_w, SEQS, "oracle")
    best = (top, run(top))
    e2e_s = (1 + E2E_BAR) * (best[1]["e2e_mean_s"] or 0.0)
    for knob in ("clock", "limit"):
        low = LEAST_CLOCK_RATIO if knob == "clock" else engine.limit_range.min_w / high_w
        high = 1.0
        for _ in range(ORACLE_STEPS):
            ratio = (low + high) / 2
            command = (
                replace(top, sm_clock_mhz=ratio * high_mhz)
                if knob == "clock"
                else replace(top, power_limit_w=ratio * high_w)
            )
            found = run(command)
            holds = (found["itl_p99_s"] or 0.0) <= slo.itl_s
            holds = holds and (found["e2e_mean_s"] or 0.0) <= e2e_s
            low, high = (low, ratio) if holds else (ratio, high)
            if holds and (found["tokens_per_j_gpu"] or 0.0) > (best[1]["tokens_per_j_gpu"] or 0.0):
                best = (command, found)
    return best


def _run(job: Job, options: SuiteOptions) -> Outcome:
    slo, engine = _slo(job.case, options), _engines(options)[job.case]
    if job.strategy == ORACLE:
        _, metrics = _best_constant(engine, options, job.seed, slo)
    else:
        metrics = _measure(engine, options, job.seed, _make(job.strategy), slo)
    metrics["itl_objective_s"] = slo.itl_s
    metrics["itl_held"] = float((metrics["itl_p99_s"] or 0.0) <= slo.itl_s)
    return Outcome(job, metrics)


def _tables(options: SuiteOptions) -> list[TableKey]:
    return [_key(engine) for engine in _engines(options).values()]


def _derive(results: Results) -> None:
    for boundary in ("gpu", "node"):
        results.relative(f"tokens_per_j_{boundary}", STATIC_MAX, f"gain_{boundary}")
    results.relative("e2e_mean_s", STATIC_MAX, "e2e_increase")


def _bars(results: Results) -> list[Bar]:
    found = []
    for gpu in dict.fromkeys(case.rpartition(", ")[2] for case in results.cases):
        cases = [case for case in results.cases if case.endswith(f", {gpu}")]
        gain = over_cases(results, OURS, "gain_gpu", cases)
        e2e = over_cases(results, OURS, "e2e_increase", cases)
        held = worst_of_cases(results, OURS, "itl_held", ">=", cases)
        best = mean_of(list(over_cases(results, ORACLE, "gain_gpu", cases).values()))
        found += [
            judge(
                NAME,
                f"{gpu}: gain in tokens/J over the static maximum, GPU boundary",
                ">=",
                GAIN_BAR,
                gain,
                limit=best.mean if best else None,
                note="limit: the best constant clock or limit inside the other two bars",
            ),
            judge(NAME, f"{gpu}: increase of the mean end-to-end latency", "<=", E2E_BAR, e2e),
            judge(
                NAME,
                f"{gpu}: ITL p99 inside the objective, every run",
                ">=",
                1.0,
                held,
                every_seed=True,
            ),
        ]
    return found


def _plot(results: Results, picture: Figure) -> None:
    above, below = picture.subplots(2, 1, sharex=True)
    for axes, metric, label in (
        (above, "gain_gpu", f"gain in tokens/J [%],\n{BOUNDARY_NOTE}"),
        (below, "e2e_increase", "increase of the mean\nend-to-end latency [%]"),
    ):
        bars_by_case(axes, results, metric, scale=100, legend=axes is below, without={STATIC_MAX})
        axes.set_ylabel(label)
    above.axhline(100 * GAIN_BAR, color="#222222", lw=0.8, ls="--")
    below.axhline(100 * E2E_BAR, color="#222222", lw=0.8, ls="--")
    above.set_title("MoE decode at half load against the static maximum; modelled GPUs")


SCENARIO = Scenario(
    name=NAME,
    title="The SM clock as a knob",
    setting=(
        "MoE models on H100 and B200 whose response to limit and clock is MODELLED (their "
        "uncapped decode is fitted to measurements, the rest extrapolated). Poisson arrivals "
        "(synthetic, log-normal lengths of 512 prompt and 1024 output tokens on average) at half "
        "of what the node serves, at most 128 sequences. The ITL objective is 10 % above the "
        "static maximum's own p99 over tokens, measured before on other nodes of the kind (mean "
        "of three). `pals-grid` holds it by the tail (`itl_tail`) and may be 6 % slower than full "
        "power at most (`max_slowdown_ratio`). The oracle is the best constant clock or limit, on "
        "the true plant under the true arrivals, that holds the ITL objective at 6.6 % more mean "
        "end-to-end latency at most. 600 s are measured after 120 s."
    ),
    boundary="GPU (node beside it, its overhead assumed)",
    strategies=(STATIC_MAX, STATIC_LIMIT, MAX_Q, CLOCK_LOCK, PALS, OURS, ORACLE),
    columns=(
        Column("gain_gpu", "gain %", "tokens/J (GPU) over the static maximum's, less 1", 1, 100.0),
        Column("gain_node", "node %", "the same for the node", 1, 100.0),
        Column(
            "e2e_increase", "e2e %", "mean end-to-end latency over static max, less 1", 1, 100.0
        ),
        Column("itl_p99_s", "ITL p99 ms", "gap before a token, 99th percentile", 1, 1000.0),
        Column("itl_held", "held", "share of runs with ITL p99 inside the objective", 2),
        Column("gpu_power_w", "GPU W", "mean draw of all GPUs", 0),
    ),
    tables=_tables,
    cases=_engines,
    run=_run,
    derive=_derive,
    table_title="Clock lock on modelled MoE decode",
    bars=_bars,
    plot=_plot,
    is_synthetic=True,
)
