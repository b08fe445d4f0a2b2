"""``make bench-grants``: a site of simulated nodes for hours, with everything that goes wrong."""

from __future__ import annotations

import time

import click

from pals_grid.evaluate.grants_nodes import Faults, make_fleet
from pals_grid.evaluate.grants_world import GrantsWorld


@click.command()
@click.option("--nodes", default=200, show_default=True, help="Nodes of the site.")
@click.option("--hours", default=6.0, show_default=True, help="Simulated hours.")
@click.option("--seed", default=1, show_default=True, help="Of all that happens by chance.")
def main(nodes: int, hours: float, seed: int) -> None:
    """Count what was commanded and drawn above the budget. Simulated; nothing is measured."""
    started_s = time.monotonic()
    faults = Faults()
    tally = GrantsWorld(make_fleet(nodes, seed), seed, faults).run(hours * 3600)
    click.echo(f"simulated: {nodes} nodes, {hours:g} h, seed {seed}; {faults}")
    click.echo(", ".join(f"{name}: {count}" for name, count in sorted(tally.counts.items())))
    rows = {
        "changes of the commanded sum looked at": f"{tally.changes}",
        "highest commanded sum less budget, W": f"{tally.commanded_over_w:.6f}",
        "seconds with draw 2 % above the budget": f"{tally.seconds_over} of {tally.seconds}",
        "  as a share": f"{100 * tally.over_ratio:.4f} %",
        "highest draw over budget": f"{tally.worst_draw_ratio:.4f}",
        "tokens served over those under the schedule alone": (
            f"{tally.served_tokens / tally.scheduled_tokens:.4f}"
        ),
        "tokens served over those asked for": f"{tally.served_tokens / tally.demanded_tokens:.4f}",
        "CPU and wall time of this run, s": (
            f"{time.process_time():.0f}, {time.monotonic() - started_s:.0f}"
        ),
    }
    for what, value in rows.items():
        click.echo(f"{what:52} {value:>16}")


if __name__ == "__main__":
    main()
