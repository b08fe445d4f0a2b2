"""``pals-grid profile run``: measure the operating points of an engine, on a node or simulated."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import require_folder_of
from pals_grid.cli.profile_cells import list_cells, show_cell
from pals_grid.cli.profile_options import ProfileOptions, profile_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from click._termui_impl import ProgressBar

    from pals_grid.cli.profile_bench import Bench
    from pals_grid.node.profile_log import ProfileLog
    from pals_grid.node.restore import RestoreFile
    from pals_grid.powermodel.sampling import Cell


@click.command("run")
@profile_options
def command(**given: Any) -> None:  # noqa: ANN401 - the options of `profile_options`
    """Set limit, batch and clock by turns under a saturating load; write a row for each.

    The load has to come from outside: as many requests as keep a queue at the engine. Original
    limits, clocks and batch are put back at the end, at Ctrl-C, and after a kill at the next start.
    """
    from pals_grid.cli.environment import pick_state_dir  # noqa: PLC0415
    from pals_grid.cli.profile_bench import StopSignal, open_bench  # noqa: PLC0415
    from pals_grid.node.profile_log import ProfileLog  # noqa: PLC0415

    asked = ProfileOptions(**given)
    require_folder_of("out", asked.out)
    stop = StopSignal()
    with ExitStack() as stack:
        stack.enter_context(stop.installed())
        bench = stack.enter_context(open_bench(asked, stop))
        log = ProfileLog(asked.out, bench.unit, bench.input_per_output)
        queue = _queue(asked, bench, log)
        if asked.dry_run:
            for cell in queue.foreseen():
                click.echo(show_cell(cell))
            return
        folder = asked.state_dir or pick_state_dir(os.uname().nodename)
        originals = stack.enter_context(bench.originals(folder, _say))
        finished = _measure(asked, bench, queue, log, originals)
    _say(f"{asked.out}: {len(log.rows)} rows, {bench.unit.origin.value}")
    if originals.pending or originals.pending_clocks:
        raise click.exceptions.Exit(1)
    if not finished:
        _say("stopped; the same command goes on from here")
        raise click.exceptions.Exit(128 + stop.number)


def _queue(asked: ProfileOptions, bench: Bench, log: ProfileLog) -> _Queue:
    """What is left to measure of the cells that were asked for."""
    wanted = list_cells(
        bench.unit, asked.limits, asked.batches, asked.clocks, asked.engine_max_num_seqs
    )
    queue = _Queue(log, wanted, asked.cells)
    if queue.known:
        _say(f"{asked.out}: {queue.known} of {len(wanted)} cells are there already")
    return queue


def _measure(
    asked: ProfileOptions, bench: Bench, queue: _Queue, log: ProfileLog, originals: RestoreFile
) -> bool:
    """Measure and keep row by row, under a bar; False when a signal ended it before."""
    from pals_grid.cli.profile_bench import ProfileStopped  # noqa: PLC0415
    from pals_grid.node.profiling import profile_unit  # noqa: PLC0415

    with click.progressbar(
        length=queue.count,
        label=f"Measuring {queue.count} cells",
        file=sys.stderr,
        item_show_func=lambda cell: "" if cell is None else show_cell(cell),
    ) as bar:
        rows = profile_unit(
            bench.unit,
            queue.cells(bar),
            clock=bench.clock,
            wait=bench.wait,
            input_per_output=bench.input_per_output,
            slo=asked.slo,
            settle_s=asked.settle_s,
            measure_s=asked.measure_s,
            restore=originals,
            tell=_say,
            fixed_batch=asked.engine_max_num_seqs,
            max_temperature_c=asked.max_temperature_c,
        )
        try:
            with closing(rows):
                for row in rows:
                    log.append(row)
        except ProfileStopped:
            return False
    return True


class _Queue:
    """Which cells are next: all in order, or each time the most informative one."""

    def __init__(self, log: ProfileLog, wanted: Sequence[Cell], count: int | None) -> None:
        self._log = log
        self._left = [cell for cell in wanted if not log.has(cell)]
        self._adaptive = count is not None
        self.known = len(wanted) - len(self._left)
        self.count = len(self._left) if count is None else min(count, len(self._left))

    def foreseen(self) -> list[Cell]:
        """Cells as far as they are known before anything is measured."""
        return self._pick(self.count) if self._adaptive else self._left

    def cells(self, bar: ProgressBar[Cell]) -> Iterator[Cell]:
        """Give one cell after the other, shown in ``bar``."""
        for _ in range(self.count):
            cell = self._pick(1)[0] if self._adaptive else self._left[0]
            self._left.remove(cell)
            bar.current_item = cell
            bar.render_progress()
            yield cell
            bar.update(1)

    def _pick(self, count: int) -> list[Cell]:
        from pals_grid.powermodel.sampling import choose_cells  # noqa: PLC0415

        return choose_cells(self._log.rows, self._left, count)


def _say(text: str) -> None:
    """One line on stderr, beside a progress bar that may stand there."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    click.echo(clear + text, err=True)
