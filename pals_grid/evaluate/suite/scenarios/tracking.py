"""``tracking``: how a node's draw follows a budget that binds."""

from __future__ import annotations

import itertools
import random
from statistics import fmean
from typing import TYPE_CHECKING

from pals_grid.core.site import Slo
from pals_grid.evaluate.suite import engines, loads
from pals_grid.evaluate.suite.drive import TICK_S, EngineSetup, NodeRun, Slot
from pals_grid.evaluate.suite.job import Column, Outcome
from pals_grid.evaluate.suite.metrics import energy, settling_ticks, tracking_metrics
from pals_grid.evaluate.suite.plots import budget_and_draw
from pals_grid.evaluate.suite.results import judge
from pals_grid.evaluate.suite.scenario import Scenario
from pals_grid.evaluate.suite.strategies import OURS, PALS, STATIC_SHARE, maker
from pals_grid.evaluate.suite.tables import controller_table
from pals_grid.sim.arrivals import AZURE_TOKENS_IN, AZURE_TOKENS_OUT, Request, saturating

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure

    from pals_grid.evaluate.suite.job import Bar, Job, SuiteOptions
    from pals_grid.evaluate.suite.metrics import TickSample
    from pals_grid.evaluate.suite.results import Results
    from pals_grid.evaluate.suite.tables import TableKey

NAME = "tracking"
STEADY, BURSTY = "steady", "bursty"
SLO = Slo(ttft_s=30.0, itl_s=1.0)
STEP_S = 60.0
#: Of the GPUs' draw in decode at full batch and full power, which is the least that a full batch
#: asks for: below it the budget binds whatever the prompts do.
LEVELS = (0.95, 0.75, 0.9, 0.7, 0.85, 0.78, 0.95)
RAMP_S, RAMP_STEP_S = 60.0, 5.0
WARM_UP_S = 30.0
MAE_BARS = {STEADY: 0.017, BURSTY: 0.05}
OVERSHOOT_BAR = 0.01
DOWN_BAR, UP_BAR = 2.0, 4.0
_BURST_S, _QUIET_S = 8.0, 14.0
_BURST_RATIO, _QUIET_RATIO = 1.65, 0.05


def _key() -> TableKey:
    return engines.a100_key("deepseek", AZURE_TOKENS_IN, AZURE_TOKENS_OUT)


def _slots(options: SuiteOptions) -> list[Slot]:
    """Steps, then a ramp down and a ramp up, at the node's boundary."""
    engine = _key().engine
    overhead = engines.overhead_of(engine)
    high_w = engine.limit_range.max_w
    natural_w = engine.gpu_count * engine.phase_mix(engines.A100_SEQS, high_w).decode_w
    levels = LEVELS[:3] if options.quick else LEVELS
    step_s = 15.0 if options.quick else STEP_S
    plan = [(step_s + (WARM_UP_S if i == 0 else 0.0), level) for i, level in enumerate(levels)]
    if not options.quick:
        count = round(RAMP_S / RAMP_STEP_S)
        low, high = min(LEVELS), LEVELS[-1]
        fall = [high + (low - high) * (i + 1) / count for i in range(count)]
        plan += [(RAMP_STEP_S, level) for level in (*fall, *fall[::-1])]
    ends = list(itertools.accumulate(seconds for seconds, _ in plan))
    return [
        Slot(end_s - seconds, end_s, overhead.node_power_w(level * natural_w))
        for (seconds, level), end_s in zip(plan, ends, strict=True)
    ]


def _bursty(seed: int, rate_per_s: float) -> Iterator[Request]:
    """Synthetic: bursts that overrun the node, and lulls in which its queue runs empty."""
    draw = random.Random(seed)  # noqa: S311  # no secret
    parts: list[list[Request]] = []
    start_s = 0.0
    while True:
        length_s = draw.uniform(0.7, 1.3) * (_BURST_S if len(parts) % 2 == 0 else _QUIET_S)
        rate = rate_per_s * (_BURST_RATIO if len(parts) % 2 == 0 else _QUIET_RATIO)
        at_s = start_s + draw.expovariate(rate)
        part = []
        while at_s < start_s + length_s:
            tokens_in = max(1, round(draw.lognormvariate(0.0, 0.6) * AZURE_TOKENS_IN / 1.2))
            tokens_out = max(1, round(draw.lognormvariate(0.0, 0.6) * AZURE_TOKENS_OUT / 1.2))
            part.append(Request(at_s, tokens_in, tokens_out))
            at_s += draw.expovariate(rate)
        parts.append(part)
        yield from part
        start_s += length_s


def _run(job: Job, options: SuiteOptions) -> Outcome:
    key = _key()
    slots = _slots(options)
    table = controller_table(key, options.scratch)
    arrivals = (
        saturating(key.tokens_in, key.tokens_out, seed=job.seed, waiting=8)
        if job.case == STEADY
        else _bursty(job.seed, loads.rate_of(1.0, table, key.tokens_out))
    )
    setup = EngineSetup("engine", key.engine, key.max_num_seqs, arrivals, table, SLO)
    run = NodeRun([setup], engines.overhead_of(key.engine), job.seed, maker(job.strategy))
    run.grant(slots)
    end_s = slots[-1].end_s
    run.run_until(end_s - TICK_S)
    metrics = energy(run.ticks, WARM_UP_S, end_s).metrics()
    bound = _binding(run.ticks)
    metrics |= tracking_metrics(bound) | _gpu_tracking(run, bound)
    metrics["binding_ratio"] = len(bound) / sum(t.at_s > WARM_UP_S for t in run.ticks)
    metrics |= _settling(run.ticks, slots)
    return Outcome(job, metrics, _series(run.ticks) if job.seed == 1 else {})


def _binding(ticks: Sequence[TickSample]) -> list[TickSample]:
    """Ticks after the warm-up at whose both ends requests wait for a place in the batch."""
    return [
        now
        for before, now in itertools.pairwise(ticks)
        if now.at_s > WARM_UP_S and before.waiting > 0 and now.waiting > 0
    ]


def _gpu_tracking(run: NodeRun, ticks: Sequence[TickSample]) -> dict[str, float | None]:
    allowed_w = [run.overhead.gpu_power_w(tick.envelope_w) for tick in ticks]
    errors = [abs(t.draw_w - w) / w for t, w in zip(ticks, allowed_w, strict=True)]
    return {"tracking_mae_gpu_ratio": fmean(errors) if errors else None}


def _settling(ticks: Sequence[TickSample], slots: Sequence[Slot]) -> dict[str, float | None]:
    """Most and mean ticks to settle, over the steps (not the ramps) at which requests wait."""
    found: dict[str, list[float]] = {"down": [], "up": []}
    for before, now in itertools.pairwise(slots):
        if now.end_s - now.start_s <= RAMP_STEP_S:
            break
        after = [t for t in ticks if now.start_s + 1e-9 < t.at_s <= now.end_s]
        if not after or min(tick.waiting for tick in after[:8]) == 0:
            continue
        settled = settling_ticks(after)
        way = "down" if now.power_max_w < before.power_max_w else "up"
        found[way].append(float(len(after) if settled is None else settled))
    return {
        f"settling_{way}_{name}_ticks": measure(values) if values else None
        for way, values in found.items()
        for name, measure in (("most", max), ("mean", fmean))
    }


def _series(ticks: Sequence[TickSample]) -> dict[str, list[float]]:
    shown = [tick for tick in ticks if tick.at_s > TICK_S]
    return {
        "at_s": [tick.at_s for tick in shown],
        "node_w": [tick.node_w for tick in shown],
        "envelope_w": [tick.envelope_w for tick in shown],
    }


def _bars(results: Results) -> list[Bar]:
    found = [
        judge(
            NAME,
            f"relative MAE of draw against budget while it binds, {case}, node boundary",
            "<=",
            bound,
            results.values(case, OURS, "tracking_mae_ratio"),
        )
        for case, bound in MAE_BARS.items()
    ]
    for case in MAE_BARS:
        name = f"ticks more than 2 % over budget, {case}"
        over = results.values(case, OURS, "overshoot_ratio")
        found.append(judge(NAME, name, "<=", OVERSHOOT_BAR, over))
    for way, bound in (("down", DOWN_BAR), ("up", UP_BAR)):
        settled = results.values(STEADY, OURS, f"settling_{way}_most_ticks")
        found.append(
            judge(
                NAME,
                f"slowest step {way} settled to 2 %, steady",
                "<=",
                bound,
                settled,
                every_seed=True,
                unit="ticks",
            )
        )
    return found


def _plot(results: Results, picture: Figure) -> None:
    grid = picture.subplots(len(results.cases), 1, sharex=True, squeeze=False)
    for (axes,), case in zip(grid, results.cases, strict=True):
        budget_and_draw(axes, results.series(case))
        axes.set_title(f"{case} load, node boundary, seed 1")
    grid[-1][0].set_xlabel("time [s]")


SCENARIO = Scenario(
    name=NAME,
    title="Following a budget",
    setting=(
        "DeepSeek-MoE 16B on one node of four A100. The envelope, at the node's boundary, steps "
        "every 60 s between 70 and 95 % of what the GPUs draw in decode at full batch and full "
        "power (plus the node's overhead), then ramps down and up in steps of 5 s. Steady: a "
        "closed loop with requests of the Azure trace's mean lengths, log-normal. Bursty: 8 s at "
        "165 % and 14 s at 5 % of what the node serves at full power, alternating (synthetic). The "
        "budget binds at a tick when requests wait for a place in the batch at both its ends; "
        "every such tick counts, those after a step too. The draw is the mean over the tick, from "
        "the energy counters."
    ),
    boundary="node (GPU beside it)",
    strategies=(STATIC_SHARE, PALS, OURS),
    columns=(
        Column("tracking_mae_ratio", "MAE %", "mean of |draw - budget| / budget", 2, 100.0),
        Column("tracking_mae_gpu_ratio", "MAE GPU %", "the same at the GPUs", 2, 100.0),
        Column("overshoot_ratio", "over %", "ticks more than 2 % over budget", 2, 100.0),
        Column("settling_down_most_ticks", "down", "ticks to settle, slowest step down", 1),
        Column("settling_up_most_ticks", "up", "ticks to settle, slowest step up", 1),
        Column("binding_ratio", "binds %", "ticks at which the budget binds", 0, 100.0),
        Column("tokens_per_s", "tok/s", "output tokens a second", 0),
    ),
    tables=lambda _: [_key()],
    cases=lambda options: (STEADY,) if options.quick else (STEADY, BURSTY),
    run=_run,
    table_title="Following a budget that binds",
    bars=_bars,
    plot=_plot,
    is_synthetic=True,
)
