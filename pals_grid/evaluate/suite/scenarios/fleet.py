"""``fleet``: three nodes, an hour, one budget that changes."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from pals_grid.core.site import Slo
from pals_grid.evaluate.suite import engines, loads
from pals_grid.evaluate.suite.drive import START_AT, EngineSetup, NodeRun
from pals_grid.evaluate.suite.fleet import Site, allocated, equal_split
from pals_grid.evaluate.suite.job import Column, Outcome
from pals_grid.evaluate.suite.measured import Window, follow
from pals_grid.evaluate.suite.metrics import OVERSHOOT_RATIO, request_metrics
from pals_grid.evaluate.suite.plots import fleet_lines
from pals_grid.evaluate.suite.results import judge
from pals_grid.evaluate.suite.scenario import Scenario
from pals_grid.evaluate.suite.strategies import (
    ALLOCATED,
    OURS,
    PALS,
    STATIC_LEAST,
    STATIC_MAX,
    STATIC_SHARE,
    maker,
)
from pals_grid.evaluate.suite.tables import controller_table
from pals_grid.sim.clock import SimClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from pals_grid.evaluate.suite.job import Bar, Job, SuiteOptions
    from pals_grid.evaluate.suite.measured import Measured
    from pals_grid.evaluate.suite.results import Results
    from pals_grid.evaluate.suite.tables import TableKey

NAME = "fleet"
CASE = "60 min"
SLO = Slo(ttft_s=2.0, itl_s=0.1)
#: Model of each node, and its load as a share of what it serves at full power.
NODES = (("mixtral", 0.7), ("deepseek", 0.6), ("qwen1.5", 0.35))
SLOT_S = 300.0
MEAN_BUDGET_RATIO = 0.8
#: The site's budget by slots of five minutes, relative to their mean.
SHAPE = (1.1, 1.0, 0.92, 0.86, 0.95, 1.06, 1.12, 0.98, 0.88, 0.9, 1.05, 1.18)
FEWER_BAR, ABSOLUTE_BAR = 7.0, 0.032
STATICS = (STATIC_SHARE, STATIC_LEAST)


def _nodes(options: SuiteOptions) -> tuple[tuple[str, float], ...]:
    return NODES[:2] if options.quick else NODES


def _keys(options: SuiteOptions) -> list[TableKey]:
    return [loads.profile_for(name, options) for name, _ in _nodes(options)]


def _window(options: SuiteOptions) -> Window:
    return Window(30.0, 90.0, 100.0) if options.quick else Window(120.0, 3720.0, 3780.0)


@lru_cache(maxsize=4)
def _full_power_w(options: SuiteOptions) -> float:
    """What the site draws when every node is saturated at full power, by the plant's equations."""
    total_w = 0.0
    for key in _keys(options):
        high_w = key.engine.limit_range.max_w
        point = key.point(high_w, key.max_num_seqs)
        total_w += engines.overhead_of(key.engine).node_power_w(point.gpu_power_w)
    return total_w


def _budget_w(options: SuiteOptions, now_s: float) -> float:
    slot = int(max(0.0, now_s - _window(options).start_s) // SLOT_S)
    return MEAN_BUDGET_RATIO * SHAPE[slot % len(SHAPE)] * _full_power_w(options)


def _setups(options: SuiteOptions, seed: int) -> list[EngineSetup]:
    trace = loads.trace_of(options)
    found = []
    for i, (key, (name, load)) in enumerate(zip(_keys(options), _nodes(options), strict=True)):
        table = controller_table(key, options.scratch)
        rate_per_s = loads.rate_of(load, table, key.tokens_out)
        endless = loads.requests_at(trace, rate_per_s, 100 * seed + i)
        arrivals = loads.until(_window(options).drain_s, endless)
        found.append(EngineSetup(name, key.engine, key.max_num_seqs, arrivals, table, SLO))
    return found


def _run(job: Job, options: SuiteOptions) -> Outcome:
    clock = SimClock(START_AT)
    setups = _setups(options, job.seed)
    overheads = [engines.overhead_of(setup.engine) for setup in setups]
    make = maker(job.strategy)
    runs = [
        NodeRun([setup], overhead, 10 * job.seed + i, make, clock)
        for i, (setup, overhead) in enumerate(zip(setups, overheads, strict=True))
    ]
    budget_w = partial(_budget_w, options)
    if job.strategy == STATIC_LEAST:
        least_w = min(SHAPE) * MEAN_BUDGET_RATIO * _full_power_w(options)
        split = equal_split(runs, lambda _now_s: least_w, SLOT_S)
    elif job.strategy in {STATIC_SHARE, STATIC_MAX}:
        split = equal_split(runs, budget_w, SLOT_S)
    else:
        split = allocated(runs, setups, overheads, budget_w, SLOT_S)
    window = _window(options)
    site = Site(runs, budget_w, split, SLOT_S)
    measured = follow(runs, window, site.run_until)
    metrics = _metrics(measured, window, budget_w)
    return Outcome(job, metrics, _series(runs, budget_w) if job.seed == 1 else {})


def _metrics(
    measured: Sequence[Measured], window: Window, budget_w: partial[float]
) -> dict[str, float | None]:
    fates = [fate for node in measured for fate in node.fates[0]]
    whole = request_metrics(fates, SLO)
    # A window is one node's five seconds.
    parts = [request_metrics(node.fates[0], SLO)["windows_outside_ratio"] for node in measured]
    found = [part for part in parts if part is not None]
    whole["windows_outside_ratio"] = sum(found) / len(found) if found else None
    totals = {
        name: sum((node.metrics[name] or 0.0) for node in measured)
        for name in ("tokens_per_s", "gpu_power_w", "node_power_w")
    }
    whole |= totals
    whole["tokens_per_j_gpu"] = totals["tokens_per_s"] / totals["gpu_power_w"]
    whole["tokens_per_j_node"] = totals["tokens_per_s"] / totals["node_power_w"]
    over = count = 0
    for ticks in zip(*(node.run.ticks for node in measured), strict=True):
        if window.start_s < ticks[0].at_s <= window.end_s:
            count += 1
            # The budget that held when the tick began.
            allowed_w = budget_w(ticks[0].at_s - 0.5)
            over += sum(tick.node_w for tick in ticks) > allowed_w * (1 + OVERSHOOT_RATIO)
    whole["overshoot_ratio"] = over / count
    return whole


def _series(runs: Sequence[NodeRun], budget_w: partial[float]) -> dict[str, list[float]]:
    groups = list(zip(*(run.ticks for run in runs), strict=True))[20::20]
    found = {
        "at_s": [ticks[0].at_s for ticks in groups],
        "budget_w": [budget_w(ticks[0].at_s) for ticks in groups],
        "site_w": [sum(tick.node_w for tick in ticks) for ticks in groups],
    }
    for i, run in enumerate(runs):
        name = run.engines[0].setup.name
        found[f"lease {name}"] = [ticks[i].envelope_w for ticks in groups]
    return found


METRICS = {"outside_ratio": "requests", "windows_outside_ratio": "5-s windows"}


def _derive(results: Results) -> None:
    for metric in METRICS:
        mine = results.values(CASE, OURS, metric)
        for rival in results.strategies(CASE):
            theirs = results.values(CASE, rival, metric)
            # Not one outside is taken as half of one request, so that a ratio exists.
            requests = results.values(CASE, OURS, "requests")
            ratios = {
                seed: theirs[seed] / max(mine[seed], 0.5 / requests[seed])
                for seed in mine
                if seed in theirs and requests.get(seed)
            }
            results.add(CASE, rival, f"{metric}_over_ours", ratios)


def _bars(results: Results) -> list[Bar]:
    found = []
    for metric, what in METRICS.items():
        values = results.values(CASE, OURS, metric)
        name = f"share of {what} outside the objectives, every seed"
        limit = results.mean(CASE, STATIC_MAX, metric)
        found.append(
            judge(
                NAME,
                name,
                "<=",
                ABSOLUTE_BAR,
                values,
                every_seed=True,
                limit=limit.mean if limit else None,
                note="limit: static maximum, which ignores the budget",
            )
        )
        for rival in STATICS:
            ratios = results.values(CASE, rival, f"{metric}_over_ours")
            name = f"{what} outside under {rival} over ours, every seed"
            found.append(judge(NAME, name, ">=", FEWER_BAR, ratios, every_seed=True, unit="x"))
    return found


def _plot(results: Results, picture: Figure) -> None:
    above, below = picture.subplots(2, 1, sharex=True)
    lines = results.series(CASE)
    fleet_lines(above, below, lines, OURS)
    above.set_title("Three nodes of four A100, site budget and draw, node boundary; seed 1")
    below.set_xlabel("time [min]")


SCENARIO = Scenario(
    name=NAME,
    title="Service under a site budget",
    setting=(
        "Three nodes of four A100: Mixtral 8x7B at 70 %, DeepSeek-MoE 16B at 60 % and Qwen1.5-MoE "
        "at 35 % of what each serves at full power, under the request trace laid over itself and "
        "thinned (a seed begins it elsewhere on each node). The site's budget, over the sum of "
        "the whole nodes, changes every five minutes between 69 and 94 % of what the saturated "
        "site draws at full power. The allocator shares it out every 5 s over the nodes' curves "
        "up to a demand forecast by persistence (the last minute), with the same margin for every "
        "node, as large as the budget allows; `allocated` does no more than fill these leases. "
        "The static rivals share the budget equally. static-max ignores it: it shows what the "
        "load itself causes. 60 min are measured after 2 min. A 5-s window of a node is "
        "outside when the tokens of its arrivals that are served inside the objectives are less "
        "than 95 % of all its arrivals' tokens (the target is the demand)."
    ),
    boundary="whole nodes, summed (the site's meter less its buildings)",
    strategies=(STATIC_MAX, STATIC_SHARE, STATIC_LEAST, ALLOCATED, PALS, OURS),
    columns=(
        Column("outside_ratio", "requests %", "requests outside the objectives", 2, 100.0),
        Column("windows_outside_ratio", "windows %", "5-s windows outside", 2, 100.0),
        Column("outside_ratio_over_ours", "over ours", "requests outside, over pals-grid's", 1),
        Column("overshoot_ratio", "over %", "ticks with the site 2 % over budget", 2, 100.0),
        Column("ttft_p99_s", "TTFT p99 s", "time to first token, 99th percentile", 2),
        Column("node_power_w", "site W", "mean draw of all nodes", 0),
        Column("tokens_per_j_node", "tok/J node", "output tokens per joule of the nodes", 3),
    ),
    tables=_keys,
    cases=lambda _: [CASE],
    run=_run,
    derive=_derive,
    table_title="Three nodes, one budget",
    bars=_bars,
    plot=_plot,
)
