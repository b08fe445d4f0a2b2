"""``tiers``: engines of different priority share an envelope that is too small for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.site import Slo
from pals_grid.evaluate.suite import engines, loads
from pals_grid.evaluate.suite.drive import EngineSetup, NodeRun, Slot
from pals_grid.evaluate.suite.job import Column, Outcome
from pals_grid.evaluate.suite.measured import Window, follow
from pals_grid.evaluate.suite.metrics import OVERSHOOT_RATIO
from pals_grid.evaluate.suite.plots import bars_by_group
from pals_grid.evaluate.suite.results import judge, over_cases
from pals_grid.evaluate.suite.scenario import Scenario
from pals_grid.evaluate.suite.statistics import mean_of
from pals_grid.evaluate.suite.strategies import OURS, PALS, STATIC_MAX, STATIC_SHARE, maker
from pals_grid.evaluate.suite.tables import controller_table
from pals_grid.powermodel.overhead import NodeOverhead

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pals_grid.evaluate.suite.job import Bar, Job, SuiteOptions
    from pals_grid.evaluate.suite.results import Results
    from pals_grid.evaluate.suite.tables import TableKey

NAME = "tiers"
TIERS = (0.0, 0.1, 0.25, 0.5)
LOAD = 0.8
SLO = Slo(ttft_s=30.0, itl_s=0.5)
#: Of what the four engines draw under their load at full power.
SHORT = {"enough": 1.02, "short": 0.8, "very short": 0.72}
TOLERANCE_RATIO = 0.02


def _key(options: SuiteOptions) -> TableKey:
    return loads.profile_for("deepseek", options)


def _overhead(key: TableKey) -> NodeOverhead:
    """Four times the four-A100 node's base: a chassis of sixteen GPUs."""
    one = engines.overhead_of(key.engine)
    return NodeOverhead(len(TIERS) * one.base_w, one.per_gpu_w_ratio)


def _window(options: SuiteOptions) -> Window:
    return Window(20.0, 40.0, 40.0) if options.quick else Window(120.0, 420.0, 420.0)


def _tier_name(tier: float) -> str:
    return f"may lose {tier:.0%}"


def _run(job: Job, options: SuiteOptions) -> Outcome:
    key, window = _key(options), _window(options)
    table = controller_table(key, options.scratch)
    trace = loads.trace_of(options)
    full = max(table.points, key=lambda point: point.tokens_per_s)
    rate_per_s = loads.rate_of(LOAD, table, key.tokens_out)
    setups = [
        EngineSetup(
            _tier_name(tier),
            key.engine,
            key.max_num_seqs,
            loads.until(window.drain_s, loads.requests_at(trace, rate_per_s, 100 * job.seed + i)),
            table,
            SLO,
            max_loss_ratio=tier,
        )
        for i, tier in enumerate(TIERS)
    ]
    overhead = _overhead(key)
    # The load at full power draws about what a saturated engine does.
    need_w = overhead.node_power_w(len(TIERS) * full.gpu_power_w)
    run = NodeRun(setups, overhead, job.seed, maker(job.strategy))
    run.grant([Slot(0.0, 1e6, SHORT[job.case] * need_w)])
    done = follow([run], window, run.run_until)[0]
    metrics = done.metrics
    binding = [t for t in run.ticks if t.at_s > window.start_s]
    over = sum(t.node_w > t.envelope_w * (1 + OVERSHOOT_RATIO) for t in binding)
    metrics["overshoot_ratio"] = over / len(binding)
    excess = []
    for i, tier in enumerate(TIERS):
        loss = _loss(run, i, window)
        metrics[f"loss_{tier:g}"] = loss
        excess.append(loss - tier)
    metrics["excess_ratio"] = max(excess)
    metrics["loss_all"] = sum(metrics[f"loss_{tier:g}"] or 0.0 for tier in TIERS) / len(TIERS)
    return Outcome(job, metrics)


def _loss(run: NodeRun, index: int, window: Window) -> float:
    """Share of the tokens that were asked for in the window and not served in it."""
    asked = sum(
        request.tokens_out
        for request in run.engines[index].arrived
        if window.start_s <= request.arrival_s < window.end_s
    )
    marks = [
        tokens
        for tick, tokens in zip(run.ticks, run.engine_tokens[index], strict=True)
        if window.start_s - 1e-9 <= tick.at_s <= window.end_s + 1e-9
    ]
    return max(0.0, 1 - (marks[-1] - marks[0]) / asked)


def _tables(options: SuiteOptions) -> list[TableKey]:
    return [_key(options)]


def _bars(results: Results) -> list[Bar]:
    excess = over_cases(results, OURS, "excess_ratio")
    name = "worst loss beyond what a tier may lose, mean over envelopes"
    over = over_cases(results, OURS, "overshoot_ratio")
    return [
        judge(NAME, name, "<=", TOLERANCE_RATIO, excess),
        judge(NAME, "ticks more than 2 % over the shared envelope", "<=", 0.01, over),
    ]


def _plot(results: Results, picture: Figure) -> None:
    grid = picture.subplots(1, len(results.cases), sharey=True, squeeze=False)
    for axes, case in zip(grid[0], results.cases, strict=True):
        groups = {
            strategy: [
                mean_of([100 * v for v in results.values(case, strategy, f"loss_{t:g}").values()])
                for t in TIERS
            ]
            for strategy in results.strategies(case)
        }
        bars_by_group(axes, [f"{t:.0%}" for t in TIERS], groups, legend=False)
        for i, tier in enumerate(TIERS):
            axes.plot([i - 0.45, i + 0.45], [100 * tier] * 2, color="#222222", lw=1.2)
        axes.set_title(f"envelope: {case}", fontsize="medium")
    grid[0][0].set_ylabel("tokens not served [% of the demand]")
    handles, labels = grid[0][0].get_legend_handles_labels()
    picture.legend(handles, labels, ncols=4, fontsize="small", loc="outside upper left")
    grid[0][0].set_xlabel("what the tier may lose (black line)")


SCENARIO = Scenario(
    name=NAME,
    title="Priority tiers",
    setting=(
        "Four DeepSeek-MoE 16B engines on four A100 each, in one node that they share, every one "
        "under the request trace at 80 % of what it serves at full power. They may lose 0, 10, 25 "
        "and 50 % of their throughput. The node's envelope is 102, 80 and 72 % of the saturated "
        "node's draw at full power. The loss is the share of the window's output tokens (300 s, "
        "after 120 s) that is not served in it."
    ),
    boundary="node",
    strategies=(STATIC_MAX, STATIC_SHARE, PALS, OURS),
    columns=(
        *(
            Column(f"loss_{tier:g}", f"tier {tier:.0%}", "tokens not served", 1, 100.0)
            for tier in TIERS
        ),
        Column("loss_all", "all", "tokens not served, mean of the tiers", 1, 100.0),
        Column("excess_ratio", "excess", "worst loss less what the tier may lose", 1, 100.0),
        Column("overshoot_ratio", "over %", "ticks 2 % over the envelope", 2, 100.0),
        Column("node_power_w", "node W", "mean draw of the node", 0),
    ),
    tables=_tables,
    cases=lambda options: ("short",) if options.quick else SHORT,
    run=_run,
    table_title="Loss of throughput by tier, %",
    bars=_bars,
    plot=_plot,
)
