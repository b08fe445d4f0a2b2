"""The page of a backtest, written from its results."""

# ruff: noqa: E501 - a row of a Markdown table is one line

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.evaluate.backtest import names
from pals_grid.evaluate.backtest.tables import (
    bars_table,
    checks_table,
    months_table,
    policies_table,
)
from pals_grid.evaluate.suite.show import markdown_table

if TYPE_CHECKING:
    from pals_grid.evaluate.backtest.result import SiteResult

_HEAD = """\
# Backtest

Written from the results of `pals-grid backtest --markdown`, a run a site; do not edit by hand.

```sh
pals-grid backtest --site docs/backtest/nl-day-ahead.json --data DIR --from 2022-01-01 --to 2023-01-01 \\
    --jobs 2 --out results --markdown page.md
```

`DIR` holds the series that the site files under `docs/backtest/` name. Months run in processes of
their own; the figures are the same for the same files and seed, however many there are.

## What is real and what is not

| | |
|---|---|
| price, carbon | **real**: published values; carbon is the average intensity |
| when each was known | **assumed** by the site file's rule, or recorded in the file where it says so; the planner never sees a value earlier |
| load | **synthetic** where its shape is `daily`: the replay's daily envelope, weekends, log-normal noise with a seed; the share that may wait, and how long, are assumed |
| power | **modelled**, at **node boundary**: the fitted plant's frontier ([plant.md](plant.md) has its errors) and an **assumed** node overhead. Cooling and the grid connection's losses are not in it |
| latency | not simulated: a slot's work counts as late when it is served after its slot, or after its deadline. Operating points all meet the ITL objective |

A slot's power is that of its mean throughput: swings within a slot are left out. On the replayed day
of [replay.md](replay.md), whose load is burstier, the slot model gives 962 W a node at the day's mean
throughput with control (the simulated node: 997 W) and 1437 W without (1437 W): there the saving by
operating points would be told 2.4 points too high (33.1 against 30.6 %). `--validate HOURS` serves a
month's first hours on a simulated node under the production loop. What shifting saves is a difference
of two figures on the same curve.

## Rules

- **Equal tokens.** Every policy serves all that arrives in the month. What waits at its end is served
  and paid in settling slots, as long as the longest deferral, in which nothing arrives that can wait.
- **Same objectives.** What cannot wait is served in its slot, work that can wait at the latest in its
  last slot, where it has the rank of work that cannot. What does not fit is late and served first.
- **Planner.** `plan_power_budget` of the service, asked every two hours for 36 h (`replan_s`; the service asks every slot), with the signals known by
  then. What is not known is forecast from the signal's own past (`evaluate/backtest/foretell.py`), demand
  by the service's own forecast. The allocator splits the limits that could bind; the nodes serve inside their envelopes.
  Backlog goes to the planner with its deadlines. In its slot a node fills up to the planned throughput
  with work that waits where the plan serves some, else serves none of it.
- **Late.** The planner's limits hold the policy's reserve (80 % unless stated) over what it expects, as in
  service. A surge beyond that is served late, and counted; the rivals have no limit that could bind.
- **Foresight.** The same planner with price, carbon and load as they will be, over six days, of which
  four are carried out. It is a reference, not a proven bound.
- **Thresholds.** They have PALS Grid's nodes and operating points; only when work is served differs. The
  quantile of the last 28 days (20 to 90 %) and the pace at which the queue is emptied (at once to 12 h)
  are those that would have cost least over the four weeks before each month. They see the slot's own
  load. Where a slot's own value is not known they go by the last one that is.
- **Static limit.** The lowest limit of the table that serves the month's true peak: hindsight.
- **As it comes.** No bar; it parts what the operating point saves from what shifting saves.
- *Saved* is against no control. *Share* is the planner's saving over the foresight's, *by shifting* the
  same share of what is saved against as-it-comes: the second is the harder one, and what forecasts decide. Where it falls short
  `--policy planner-known-load` tells the load's error from the signals'.
"""


def render_markdown(results: list[SiteResult], image_prefix: str) -> str:
    """The whole page."""
    parts = [_HEAD, "## Bars\n\n" + _bars(results), "## Policies\n\n" + _policies()]
    if any(result.checks for result in results):
        parts.append("## " + markdown_table(checks_table(results)))
    parts += [_site(result, image_prefix) for result in results]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _bars(results: list[SiteResult]) -> str:
    bars = [bar for result in results for bar in result.bars]
    met = sum(bar.met for bar in bars)
    told = (
        f"{met} of {len(bars)} are met. The bound of the share is 95 % where prices are known the day "
        "before, 80 % where values are known after their interval."
    )
    return told + "\n\n" + markdown_table(bars_table(results)).split("\n\n", 1)[1]


def _policies() -> str:
    lines = ["| name | what it does |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| `{name}` | {text} |" for name, text in names.SUMMARIES.items())]
    )


def _site(result: SiteResult, image_prefix: str) -> str:
    first, last = result.months[0].interval.start_at, result.months[-1].interval.end_at
    return "\n\n".join(
        [
            f"## {result.name}",
            _setting(result),
            f"`--from {first:%Y-%m-%d} --to {last:%Y-%m-%d}`, the months that the table lists.",
            markdown_table(policies_table(result)),
            markdown_table(months_table(result)),
            f"![{result.name}]({image_prefix}{result.slug}.png)",
        ]
    )


def _setting(result: SiteResult) -> str:
    nodes = "; ".join(result.nodes)
    return f"{nodes}. {result.signals}. What is saved: {result.objective}. Power boundary: node. Modelled."
