"""``slo``: open-loop load with latency objectives on one node, at several loads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pals_grid.core.site import Slo
from pals_grid.evaluate.suite import engines, loads
from pals_grid.evaluate.suite.drive import EngineSetup
from pals_grid.evaluate.suite.job import Column, Outcome
from pals_grid.evaluate.suite.measured import Window, measure
from pals_grid.evaluate.suite.oracle import HELD_RATIO, OpenLoop, open_loop
from pals_grid.evaluate.suite.plots import BOUNDARY_NOTE, bars_by_case
from pals_grid.evaluate.suite.results import judge, over_cases, worst_of_cases
from pals_grid.evaluate.suite.scenario import Scenario
from pals_grid.evaluate.suite.strategies import FIXED, ONE_NODE, ORACLE, OURS, STATIC_MAX, maker
from pals_grid.evaluate.suite.tables import controller_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from pals_grid.evaluate.suite.job import Bar, Job, SuiteOptions
    from pals_grid.evaluate.suite.results import Results
    from pals_grid.evaluate.suite.tables import TableKey

NAME = "slo"
LOADS = (0.25, 0.5, 0.75)
SLO = Slo(ttft_s=2.0, itl_s=0.1)
ORACLE_BAR = 0.98


def _cases(options: SuiteOptions) -> dict[str, float]:
    chosen = LOADS[1:2] if options.quick else LOADS
    return {f"load {load:.0%}": load for load in chosen}


def _key(options: SuiteOptions) -> TableKey:
    return loads.profile_for("deepseek", options)


def _window(options: SuiteOptions) -> Window:
    return Window(30.0, 60.0, 75.0) if options.quick else Window(60.0, 660.0, 700.0)


def _case(job: Job, options: SuiteOptions) -> OpenLoop:
    key, window = _key(options), _window(options)
    table = controller_table(key, options.scratch)
    rate_per_s = loads.rate_of(_cases(options)[job.case], table, key.tokens_out)
    endless = loads.requests_at(loads.trace_of(options), rate_per_s, job.seed)
    arrivals = tuple(loads.until(window.drain_s, endless))
    setup = EngineSetup("engine", key.engine, key.max_num_seqs, (), table, SLO)
    return OpenLoop(setup, key, arrivals, engines.overhead_of(key.engine), job.seed, window)


def _run(job: Job, options: SuiteOptions) -> Outcome:
    case = _case(job, options)
    if job.strategy == ORACLE:
        metrics = open_loop(case)
    else:
        setup = replace(case.setup, arrivals=case.arrivals)
        done = measure([setup], case.overhead, job.seed, maker(job.strategy), case.window)
        metrics = done.metrics
        metrics["limit_w"] = sum(tick.limit_w for tick in done.run.ticks) / len(done.run.ticks)
    outside = metrics["outside_ratio"]
    metrics["held"] = None if outside is None else float(outside <= HELD_RATIO)
    return Outcome(job, metrics)


def _tables(options: SuiteOptions) -> list[TableKey]:
    return [_key(options)]


def _derive(results: Results) -> None:
    for boundary in ("gpu", "node"):
        results.relative(f"tokens_per_j_{boundary}", STATIC_MAX, f"gain_{boundary}")
    results.ratio("tokens_per_j_gpu", ORACLE, "of_oracle")


def _over_static(results: Results) -> Mapping[int, float]:
    """Least of our tokens/J over each static baseline's that holds the objectives, by seed."""
    least: dict[int, float] = {}
    for case in results.cases:
        mine = results.values(case, OURS, "tokens_per_j_gpu")
        for rival in (s for s in results.strategies(case) if s in FIXED):
            theirs = results.values(case, rival, "tokens_per_j_gpu")
            held = results.values(case, rival, "held")
            for seed in mine:
                if held.get(seed) and theirs.get(seed):
                    ratio = mine[seed] / theirs[seed]
                    least[seed] = min(least.get(seed, ratio), ratio)
    return least


def _bars(results: Results) -> list[Bar]:
    of_oracle = over_cases(results, OURS, "of_oracle")
    outside = worst_of_cases(results, OURS, "outside_ratio", "<=")
    return [
        judge(
            NAME,
            "tokens/J over the oracle's, mean over loads",
            ">=",
            ORACLE_BAR,
            of_oracle,
            limit=1.0,
        ),
        judge(
            NAME,
            "tokens/J over the best static baseline's that holds the objectives, worst load",
            ">=",
            1.0,
            _over_static(results),
            every_seed=True,
        ),
        judge(
            NAME,
            "share of requests outside the objectives, worst load",
            "<=",
            HELD_RATIO,
            outside,
            every_seed=True,
        ),
    ]


def _plot(results: Results, picture: Figure) -> None:
    above, below = picture.subplots(2, 1)
    for axes, metric, scale, label in (
        (above, "tokens_per_j_gpu", 1.0, f"tokens/J, {BOUNDARY_NOTE}"),
        (below, "outside_ratio", 100.0, "requests outside the\nobjectives [%]"),
    ):
        bars_by_case(axes, results, metric, scale=scale, legend=axes is below)
        axes.set_ylabel(label)
    above.set_title("Open-loop load with latency objectives, one node of four A100")


SCENARIO = Scenario(
    name=NAME,
    title="Latency objectives under an open-loop load",
    setting=(
        "DeepSeek-MoE 16B on one node of four A100 (at most 64 sequences) under the request "
        "trace, laid over itself and thinned to 25, 50 and 75 % of what the node serves at full "
        "power; a seed begins the trace elsewhere. 600 s are measured after 60 s of warm-up. A "
        "request is outside the objectives when its first token comes after 2 s, or its mean "
        "time between tokens exceeds 0.1 s, or it is not finished 40 s after the window. The "
        "objectives are held when at most 1 % are outside. No strategy is told the load."
    ),
    boundary="GPU (node beside it)",
    strategies=ONE_NODE,
    columns=(
        Column("tokens_per_j_gpu", "tok/J GPU", "output tokens per joule of the GPUs", 3),
        Column("tokens_per_j_node", "node", "output tokens per joule of the node", 3),
        Column("of_oracle", "of oracle %", "tokens/J (GPU) over the oracle's", 1, 100.0),
        Column("outside_ratio", "outside %", "share of requests outside the objectives", 2, 100.0),
        Column("ttft_p99_s", "TTFT p99 s", "time to first token, 99th percentile of requests", 2),
        Column(
            "itl_p99_s", "ITL p99 ms", "gap before a token, 99th percentile of tokens", 0, 1000.0
        ),
    ),
    tables=_tables,
    cases=_cases,
    run=_run,
    derive=_derive,
    table_title="Open loop, by load",
    bars=_bars,
    plot=_plot,
)
