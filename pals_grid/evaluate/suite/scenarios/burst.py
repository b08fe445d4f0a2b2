"""``burst``: arrivals x5 within a second."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from pals_grid.core.commands import NodeCommand
from pals_grid.core.site import Slo
from pals_grid.evaluate.suite import engines, loads
from pals_grid.evaluate.suite.drive import EngineSetup
from pals_grid.evaluate.suite.job import Column, Outcome
from pals_grid.evaluate.suite.measured import Window, measure
from pals_grid.evaluate.suite.metrics import direction_changes, request_metrics
from pals_grid.evaluate.suite.oracle import OpenLoop
from pals_grid.evaluate.suite.plots import limit_lines
from pals_grid.evaluate.suite.results import judge
from pals_grid.evaluate.suite.scenario import Scenario
from pals_grid.evaluate.suite.strategies import (
    MAX_Q,
    ORACLE,
    OURS,
    PALS,
    STATIC_LIMIT,
    STATIC_MAX,
    maker,
)
from pals_grid.evaluate.suite.tables import controller_table
from pals_grid.sim.arrivals import AZURE_TOKENS_IN, AZURE_TOKENS_OUT, step_burst

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pals_grid.evaluate.suite.job import Bar, Job, SuiteOptions
    from pals_grid.evaluate.suite.results import Results
    from pals_grid.evaluate.suite.tables import TableKey
    from pals_grid.sim.arrivals import Request

NAME = "burst"
CASE = "x5 in 1 s"
SLO = Slo(ttft_s=2.0, itl_s=0.1)
BASE_LOAD, FACTOR = 0.16, 5.0
START_S, DURATION_S, AFTER_S = 120.0, 60.0, 60.0
TTFT_BAR = 1.3
TURNS_BAR = 2.0


def _key() -> TableKey:
    return engines.a100_key("deepseek", AZURE_TOKENS_IN, AZURE_TOKENS_OUT)


def _start_s(options: SuiteOptions) -> float:
    return 20.0 if options.quick else START_S


def _window(options: SuiteOptions) -> Window:
    """From the first second of the burst to a minute after it."""
    start_s = _start_s(options)
    end_s = start_s + DURATION_S + AFTER_S
    return Window(start_s, end_s, end_s + 20.0)


def _arrivals(options: SuiteOptions, seed: int, rate_per_s: float) -> tuple[Request, ...]:
    endless = step_burst(
        rate_per_s, start_s=_start_s(options), duration_s=DURATION_S, seed=seed, factor=FACTOR
    )
    return tuple(loads.until(_window(options).drain_s, endless))


def _run(job: Job, options: SuiteOptions) -> Outcome:
    key, window = _key(), _window(options)
    table = controller_table(key, options.scratch)
    overhead = engines.overhead_of(key.engine)
    arrivals = _arrivals(options, job.seed, loads.rate_of(BASE_LOAD, table, key.tokens_out))
    setup = EngineSetup("engine", key.engine, key.max_num_seqs, arrivals, table, SLO)
    if job.strategy == ORACLE:
        case = OpenLoop(setup, key, arrivals, overhead, job.seed, window)
        high_w = key.engine.limit_range.max_w
        found = [case.constant(NodeCommand(high_w, batch, "oracle")) for batch in key.batches]
        return Outcome(job, min(found, key=lambda metrics: metrics["ttft_p99_s"] or 1e9))
    done = measure([setup], overhead, job.seed, maker(job.strategy), window)
    metrics = done.metrics
    burst_end_s = window.start_s + DURATION_S
    within = [f for f in done.fates[0] if f.arrival_s < burst_end_s]
    metrics["burst_outside_ratio"] = request_metrics(within, SLO)["outside_ratio"]
    shown = [tick for tick in done.run.ticks if tick.at_s >= window.start_s - 20.0]
    limits_w = [tick.limit_w for tick in shown]
    since = [t.limit_w for t in shown if window.start_s <= t.at_s <= window.end_s]
    metrics["turns"] = float(direction_changes(since))
    metrics["limit_w"] = fmean(limits_w)
    series = {
        "at_s": [tick.at_s - window.start_s for tick in shown],
        "limit_w": limits_w,
        "waiting": [float(tick.waiting) for tick in shown],
    }
    return Outcome(job, metrics, series if job.seed == 1 else {})


def _derive(results: Results) -> None:
    results.ratio("ttft_p99_s", ORACLE, "ttft_of_oracle")
    results.relative("tokens_per_j_gpu", STATIC_MAX, "gain_gpu")


def _bars(results: Results) -> list[Bar]:
    ttft = results.values(CASE, OURS, "ttft_of_oracle")
    turns = results.values(CASE, OURS, "turns")
    return [
        judge(NAME, "p99 TTFT over the oracle's", "<=", TTFT_BAR, ttft, limit=1.0, unit="x"),
        judge(
            NAME,
            "turns of the limit by more than 5 %, from the burst to a minute after it",
            "<=",
            TURNS_BAR,
            turns,
            every_seed=True,
            unit="turns",
        ),
    ]


def _plot(results: Results, picture: Figure) -> None:
    above, below = picture.subplots(2, 1, sharex=True)
    lines = results.series(CASE)
    limit_lines(above, lines, "limit_w", "power limit per GPU [W]")
    limit_lines(below, lines, "waiting", "requests waiting")
    above.legend(ncols=5, fontsize="small")
    above.set_title("Arrivals x5 within 1 s at 0 s, back at 60 s; seed 1")
    below.set_xlabel("time from the burst [s]")


SCENARIO = Scenario(
    name=NAME,
    title="A burst",
    setting=(
        "DeepSeek-MoE 16B on one node of four A100 under Poisson arrivals (synthetic; the Azure "
        "trace's mean lengths, log-normal) at 16 % of what the node serves. Within 1 s the rate "
        "rises to five times that, holds for a minute, and falls back. Requests count from the "
        "burst's first second to a minute after it. The oracle is the constant setting of least "
        "p99 TTFT: full power, whatever it costs."
    ),
    boundary="GPU (node beside it)",
    strategies=(STATIC_MAX, STATIC_LIMIT, MAX_Q, PALS, OURS, ORACLE),
    columns=(
        Column("ttft_p99_s", "TTFT p99 s", "time to first token, 99th percentile", 3),
        Column("ttft_of_oracle", "of oracle", "p99 TTFT over the oracle's", 2),
        Column("outside_ratio", "outside %", "share of requests outside the objectives", 2, 100.0),
        Column("itl_p99_s", "ITL p99 ms", "gap before a token, 99th percentile", 0, 1000.0),
        Column("turns", "turns", "changes of the limit's direction by more than 5 %", 1),
        Column("tokens_per_j_gpu", "tok/J GPU", "output tokens per joule of the GPUs", 3),
        Column("gain_gpu", "gain %", "tokens/J (GPU) over the static maximum's, less 1", 1, 100.0),
    ),
    tables=lambda _: [_key()],
    cases=lambda _: [CASE],
    run=_run,
    derive=_derive,
    table_title="A burst",
    bars=_bars,
    plot=_plot,
    is_synthetic=True,
)
