"""``docs/evaluation.md``, written from an evaluation."""

# ruff: noqa: E501 - a row of a Markdown table is one line

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.evaluate.suite import strategies as names
from pals_grid.evaluate.suite.show import bars_table, markdown_table

if TYPE_CHECKING:
    from pals_grid.evaluate.suite.job import Bar
    from pals_grid.evaluate.suite.suite import Evaluation, Part

_HEAD = """\
# Evaluation

Written by `pals-grid evaluate --markdown docs/evaluation.md` (`make evaluate`); do not edit by hand.

**Everything on this page is simulated.** The plant is calibrated on published measurements
([plant.md](plant.md) has its errors); the response of H100 and B200 to a power limit or a clock is
modelled; node overhead is assumed. What runs on the plant is the production control loop behind the
node's own ports: strategies, rivals and all. The controllers' tables are not the plant's equations:
a node of the same kind, with other dies and noise, is profiled once an engine and workload, and the
tables are fitted to that. The rivals are calibrated by the same tables.
"""

_METRICS = """\
## Metrics

Nothing counts before the warm-up is over. Figures are means over seeds with half the width of their
95 % confidence interval (Student's t). A seed draws arrivals, dies and noise; the same seed gives
every strategy the same ones. The interval does not hold the plant's own error.

| metric | definition |
|---|---|
| tokens/J, GPU | output tokens over the energy of all GPUs, by their energy counters |
| tokens/J, node | output tokens over the energy of the whole node: GPUs and overhead |
| gain | tokens/J over the static maximum's under the same seed, less 1 |
| headroom | (ours - static maximum) / (oracle - static maximum), in tokens/J at the GPUs |
| request outside | first token later than the TTFT objective, or mean time between its tokens over the ITL objective, or not finished at the end of the run; of the requests that arrive in the measured time |
| 5-s window outside | output tokens of the window's arrivals that are served inside the objectives are less than 95 % of those of all its arrivals |
| tracking MAE | mean of abs(draw - budget) / budget over the ticks (0.5 s) at which the budget binds: requests wait for a place in the batch at both ends of the tick; draw is the mean over the tick |
| overshoot | share of those ticks whose draw is more than 2 % above the budget |
| settling | ticks from a step of the budget to the first of three in a row within 2 % of it; 1 is the tick that follows the step at once |
| TTFT, e2e p50, p99 | over requests that finished |
| ITL p50, p99 | over tokens: the gap before each |
| turns | how often the power limit changes direction by more than 5 % |

## The oracle

It is no controller, but a search on the true plant for what could be had at most.

- Saturated load: every (limit in 5-W steps, batch, clock in thirtieths of the highest) by the
  plant's equations; the best tokens/J that meets the target is replayed on the seed's own plant,
  moved until the plant meets the target too, and improved by replaying its neighbours in limit and
  clock until none is better.
- Open loop: constant settings (13 limits, clocks in tenths, then neighbours in limit, clock and batch
  while one is better) replayed over the true arrivals, and beside them a clairvoyant schedule that
  knows the true table and every arrival of the next 30 s, at six margins. The best tokens/J with at
  most 1 % of the requests outside counts. It is a strong reference, not a proven bound: a controller
  that changes its setting with the load may pass it.
- Burst: the constant setting of least p99 TTFT.
"""

_REPRODUCE = """\
## Reproduce

```sh
make evaluate                                    # this page and its pictures
pals-grid evaluate --data ../shared/data --out results       # tables, evaluation.json, PNGs
pals-grid evaluate --scenario fleet --strategy pals-grid --seeds 10 --json
```

`--data DIR` is where `llm-traces/AzureLLMInferenceTrace_conv_2023.csv` lies (Azure 2023
conversation trace, github.com/Azure/AzurePublicDataset, CC-BY); `--trace FILE` takes another trace
of that form. Without either the load is synthetic and says so.

`evaluation.json` (format 1): `load`, `seeds`, `quick`, `strategies` (name: summary), and a list of
`scenarios`, each with `setting`, `boundary`, `columns` (key, head, meaning), `results` (case,
strategy, and by metric `mean`, `half_width`, `by_seed`) and `bars` (`name`, `sense`, `bound`,
`value`, `met`, `distance`, `mean`, `half_width`, `worst`, `worst_seed`, `limit`: the oracle's
figure). Ratios are from 0 to 1, units are in the names.
"""


def render_markdown(evaluation: Evaluation, image_prefix: str) -> str:
    """The whole document."""
    request = evaluation.request
    parts = [_HEAD]
    parts.append(
        f"Load, where a scenario does not say that its own is synthetic: {evaluation.load}. "
        f"Seeds: 1 to {request.seeds}."
    )
    if request.quick:
        parts.append("**Quick run: short and few cases. These figures prove nothing.**")
    parts.append("## Bars\n\n" + _bars(evaluation))
    parts.append(_METRICS)
    parts.append("## Strategies\n\n" + _strategies(evaluation))
    parts += [_scenario(part, image_prefix) for part in evaluation.parts]
    parts.append(_REPRODUCE)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _bars(evaluation: Evaluation) -> str:
    met = sum(bar.met is True for bar in evaluation.bars)
    told = (
        f"{met} of {len(evaluation.bars)} are met. The value is the mean over seeds, or the worst "
        "seed where the bar says so. `oracle` is what the plant allows, where that was searched for."
    )
    body = markdown_table(bars_table(evaluation.bars)).split("\n\n", 1)[1]
    missed = [bar for bar in evaluation.bars if bar.met is False]
    lines = [f"- {missed_line(bar)}" for bar in missed]
    return "\n\n".join([told, body, *(["Not met:\n\n" + "\n".join(lines)] if lines else [])])


def _distance(distance: float | None, unit: str) -> str:
    if distance is None:
        return "-"
    return f"{-distance:.2f} {unit}" if unit else f"{-100 * distance:.1f} points"


def missed_line(bar: Bar) -> str:
    """The distance to a bar; where what the plant allows misses it too, that and ours to it."""
    told = f"{bar.scenario}: {bar.name}: {_distance(bar.distance, bar.unit)} short of the bar"
    if bar.limit is None or bar.value is None:
        return told
    over = bar.limit - bar.bound if bar.sense == ">=" else bar.bound - bar.limit
    if over >= 0:
        return told
    ours = bar.value - bar.limit if bar.sense == ">=" else bar.limit - bar.value
    return (
        f"{told}; the plant forbids it, for the oracle is {_distance(over, bar.unit)} short too, and "
        f"{_distance(ours, bar.unit)} ahead of ours"
    )


def _strategies(evaluation: Evaluation) -> str:
    used = dict.fromkeys(s for part in evaluation.parts for s in part.results.strategies())
    lines = ["| name | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {names.SUMMARIES[name]} |" for name in used]
    return "\n".join(lines)


def _scenario(part: Part, image_prefix: str) -> str:
    scenario = part.scenario
    blocks = [
        f"## {scenario.title} (`{scenario.name}`)",
        scenario.setting,
        f"Power boundary: {scenario.boundary}. Simulated.",
        *(markdown_table(table) for table in scenario.summary(part.results)),
        f"![{scenario.title}]({image_prefix}{scenario.name}.png)",
    ]
    notes = _notes(part)
    return "\n\n".join([*blocks, *([notes] if notes else [])])


def _notes(part: Part) -> str:
    found = {
        note
        for case in part.results.cases
        for strategy in part.results.strategies(case)
        for outcome in part.results.outcomes(case, strategy)
        for note in outcome.notes
    }
    return "\n".join(f"- {note}" for note in sorted(found))
