"""A replay as text: one table, the savings, and what the figures are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.evaluate.result import ReplayResult, ReplayRow

_HEADS = ("kWh", "GPU kWh", "cost", "kgCO2", "Mtok in", "Mtok out", "J/tok", "GPU J/tok")
_COUNTS = ("requests", "TTFT miss", "ITL miss")
_SAVINGS = {
    "node_energy_kwh": "energy (node)",
    "gpu_energy_kwh": "energy (GPU)",
    "cost": "cost",
    "carbon_g": "emissions",
    "node_j_per_token": "J/token (node)",
    "gpu_j_per_token": "J/token (GPU)",
    "cost_per_million_tokens": "cost/token",
    "carbon_g_per_million_tokens": "emissions/token",
}


def render_text(result: ReplayResult) -> str:
    """Return the whole report."""
    start = f"{result.start_at:%Y-%m-%d %H:%M} UTC"
    parts = [
        f"Replay of {result.hours} h from {start}, cost in {result.currency}, seed {result.seed}",
        f"Plant: {result.plant}",
        "",
    ]
    for run in (result.controlled, result.uncontrolled):
        parts += [f"{run.name}: {run.description}", *_table(run.hours, run.total)]
        if run.requests_left:
            parts.append(f"{run.requests_left} requests were still inside at the end.")
        parts.append("")
    parts += ["Saved against the run without PALS Grid:", *_savings(result), ""]
    parts += result.labels
    parts.append(f"{result.plans} plans; {result.cpu_s:.0f} s of CPU for both runs.")
    return "\n".join(parts)


def _table(hours: Sequence[ReplayRow], total: ReplayRow) -> list[str]:
    lines: list[tuple[str, ...]] = [("hour (UTC)", *_HEADS, *_COUNTS)]
    lines += [_cells(f"{row.start_at:%d %H:%M}", row) for row in hours]
    lines.append(_cells("total", total))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(_pad(cell, i, widths[i]) for i, cell in enumerate(line)) for line in lines]
    rule = "-" * len(text[0])
    return [text[0], rule, *text[1:-1], rule, text[-1]]


def _pad(cell: str, column: int, width: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _cells(name: str, row: ReplayRow) -> tuple[str, ...]:
    return (
        name,
        f"{row.node_energy_kwh:.2f}",
        f"{row.gpu_energy_kwh:.2f}",
        _number(row.cost, ".2f"),
        _number(None if row.carbon_g is None else row.carbon_g / 1000, ".2f"),
        f"{row.tokens_in / 1e6:.2f}",
        f"{row.tokens_out / 1e6:.2f}",
        _number(row.node_j_per_token, ".3f"),
        _number(row.gpu_j_per_token, ".3f"),
        f"{row.requests_finished}",
        _count(row.ttft_misses, row.ttft_miss_ratio),
        _count(row.itl_misses, row.itl_miss_ratio),
    )


def _savings(result: ReplayResult) -> list[str]:
    found = [(name, result.saving_ratio(field)) for field, name in _SAVINGS.items()]
    return [f"  {name:<15} {100 * ratio:6.1f} %" for name, ratio in found if ratio is not None]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _count(count: int, ratio: float | None) -> str:
    return f"{count}" if ratio is None else f"{count} ({100 * ratio:.1f} %)"
