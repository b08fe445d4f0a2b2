"""A backtest's tables: sums by policy, months, bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.evaluate.backtest import names
from pals_grid.evaluate.suite.job import Table

if TYPE_CHECKING:
    from pals_grid.evaluate.backtest.result import Month, SiteResult


def policies_table(result: SiteResult) -> Table:
    """Sums over the months by policy, and what each saves against no control."""
    start = result.total(names.NO_CONTROL, "worth") if result.runs(names.NO_CONTROL) else None
    has_carbon = all(run.carbon_kg is not None for month in result.months for run in month.runs)
    rows = []
    for name in result.policies:
        runs = result.runs(name)
        tokens = result.total(name, "tokens")
        late = result.total(name, "late_at_once_tokens") + result.total(name, "late_waiting_tokens")
        worth = result.total(name, "worth")
        rows.append(
            (
                name,
                f"{result.total(name, 'energy_kwh') / 1000:.1f}",
                f"{result.total(name, 'cost'):.0f}",
                f"{result.total(name, 'carbon_kg') / 1000:.2f}" if has_carbon else "-",
                "-" if start is None else _percent(start - worth, start),
                f"{tokens / 1e9:.3f}",
                f"{100 * late / tokens:.4f}" if tokens > 0 else "-",
                f"{max(run.peak_w for run in runs) / 1000:.1f}",
            )
        )
    head = (
        "policy",
        "MWh",
        f"{result.currency}",
        "tCO2",
        "saved %",
        "Gtokens",
        "late %",
        "peak kW",
    )
    return Table(f"{result.name}: {_span(result)}", head, tuple(rows))


def months_table(result: SiteResult) -> Table:
    """By month: what the planner and the foresight save, and the margin to the rivals."""
    rows = [
        (
            month.name,
            _saved(month, names.NO_CONTROL, names.PLANNER),
            _saved(month, names.NO_CONTROL, names.FORESIGHT),
            _share(result.share(names.NO_CONTROL, [month])),
            _share(result.share(names.AS_IT_COMES, [month])),
            _saved(month, names.PRICE_THRESHOLD, names.PLANNER),
            _saved(month, names.CARBON_THRESHOLD, names.PLANNER),
        )
        for month in result.months
    ]
    head = (
        "month",
        "planner %",
        "foresight %",
        "share %",
        "by shifting %",
        "below price-t. %",
        "below carbon-t. %",
    )
    title = "Saved by month, the planner's share, and how far it is below the thresholds' cost"
    return Table(title, head, tuple(rows))


def checks_table(results: list[SiteResult]) -> Table:
    """The slot model's energy beside the simulated node's."""
    rows = tuple(
        (
            check.site,
            check.policy,
            f"{check.hours:g}",
            f"{check.modelled_kwh:.3f}",
            f"{check.simulated_kwh:.3f}",
            f"{100 * check.error_ratio:+.2f}",
            f"{100 * check.tokens_ratio:.2f}",
        )
        for result in results
        for check in result.checks
    )
    head = ("site", "policy", "h", "modelled kWh", "simulated kWh", "error %", "tokens %")
    return Table("Slots on a simulated node (one node, node boundary)", head, rows)


def bars_table(results: list[SiteResult]) -> Table:
    """Every bar of every site."""
    rows = tuple(
        (
            result.name,
            bar.name,
            f">= {_figure(bar.bound)}",
            _figure(bar.value),
            bar.month or "-",
            "met" if bar.met else "NOT met",
        )
        for result in results
        for bar in result.bars
    )
    return Table("Bars", ("site", "bar", "bound", "value", "month", ""), rows)


def _figure(ratio: float) -> str:
    digits = 4 if 0.99 < ratio < 1 and ratio > 0.9999 else 2
    return f"{100 * ratio:.{digits}f} %"


def _span(result: SiteResult) -> str:
    first, last = result.months[0].interval, result.months[-1].interval
    return f"{first.start_at:%Y-%m-%d} to {last.end_at:%Y-%m-%d}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / abs(whole):.2f}" if whole else "-"


def _share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f}"


def _saved(month: Month, base: str, policy: str) -> str:
    start, run = month.run(base), month.run(policy)
    if start is None or run is None:
        return "-"
    return _percent(start.worth - run.worth, start.worth)
