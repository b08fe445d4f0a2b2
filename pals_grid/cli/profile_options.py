"""Options of ``pals-grid profile run``, and the values that they give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from pals_grid.cli.arguments import Finite, hardware_option, options
from pals_grid.core.site import Slo


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """What was asked for, under the options' own names."""

    out: Path
    hardware: str
    engine_metrics_url: str | None
    engine_channel: Path | None
    engine_model: str | None
    engine_max_num_seqs: int | None
    gpu_model: str | None
    gpu_count: int | None
    limits: str
    batches: str
    clocks: str
    cells: int | None
    settle_s: float
    measure_s: float
    slo_itl_ms: float | None
    max_temperature_c: float
    input_per_output: float | None
    state_dir: Path | None
    seed: int
    dry_run: bool

    @property
    def slo(self) -> Slo | None:
        """The objective that cells are left out for; None without one."""
        return None if self.slo_itl_ms is None else Slo(itl_s=self.slo_itl_ms / 1000)


profile_options = options(
    click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        required=True,
        help="CSV to write; a second start on the same file goes on where the first one ended.",
    ),
    hardware_option,
    click.option("--engine-metrics-url", help="Address of the vLLM server that runs on the GPUs."),
    click.option(
        "--engine-channel",
        type=click.Path(path_type=Path, file_okay=False),
        help="Directory of its shared-memory channel, through which its batch size is set.",
    ),
    click.option(
        "--engine-model", help="The model that it serves; with sim, the model to simulate."
    ),
    click.option(
        "--engine-max-num-seqs",
        type=click.IntRange(1),
        help="The batch size that it was started with, where it cannot be set from outside.",
    ),
    click.option("--gpu-model", help="Kind of GPU to simulate.", metavar="NAME"),
    click.option("--gpu-count", type=click.IntRange(1), help="GPUs to simulate."),
    click.option(
        "--limits", default="auto", show_default=True, help="Power limits in W: 150,200,..."
    ),
    click.option("--batches", default="auto", show_default=True, help="Batch sizes: 1,8,64,..."),
    click.option(
        "--clocks",
        default="free",
        show_default=True,
        help="SM clocks in MHz: free,1200,...; or auto.",
    ),
    click.option(
        "--cells",
        type=click.IntRange(1),
        help="Measure so many cells only, each time the most informative one.",
    ),
    click.option("--settle", "settle_s", type=Finite(0, 600), default=2.0, show_default=True),
    click.option(
        "--measure",
        "measure_s",
        type=Finite(2, 600),
        default=8.0,
        show_default=True,
        help="Seconds of steady state per cell; up to eight times that until it is steady.",
    ),
    click.option(
        "--slo-itl-ms",
        type=Finite(0.001, 1e6),
        help="Leave out what is slower than a cell that broke this time between tokens.",
    ),
    click.option(
        "--max-temperature-c",
        type=Finite(30, 120),
        default=85.0,
        show_default=True,
        help="Leave out what is hotter than a cell at which a GPU got this warm.",
    ),
    click.option(
        "--input-per-output",
        type=Finite(0.001, 1e5),
        help="Prompt tokens per output token of the load. Default: as found; simulated: 5.5.",
    ),
    click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the original limits are kept; the default is the node agent's.",
    ),
    click.option("--seed", type=int, default=1, show_default=True, help="Of the simulation."),
    click.option("--dry-run", is_flag=True, help="Print the cells, write nothing."),
)
"""Their values make a ``ProfileOptions``."""
