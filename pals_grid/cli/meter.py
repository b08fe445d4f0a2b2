"""``pals-grid meter``: what a node's power meter says, and the linear model fitted to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Finite
from pals_grid.cli.exits import Commands
from pals_grid.cli.meter_options import meter_options, read_meter
from pals_grid.cli.output import json_option, print_json, print_table
from pals_grid.core.errors import ConfigurationError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pals_grid.core.ports import Gpu
    from pals_grid.node.meters.source import PowerSource

LOOK_S = 0.5


@click.group("meter", cls=Commands)
def command() -> None:
    """The node's power meter."""


@command.command("read")
@meter_options
@json_option
def read(*, as_json: bool, **meter: Any) -> None:  # noqa: ANN401 - as in `agent`
    """Ask every source once; nothing is sent or stored."""
    rows: list[tuple[str, float | None, str]] = []
    for source in _sources(meter):
        try:
            rows.append((source.name, source.read_w(), "" if source.is_whole else "CPUs, memory"))
        except DeviceError as error:
            rows.append((source.name, None, str(error)))
    if as_json:
        print_json([{"source": name, "power_w": w, "note": note} for name, w, note in rows])
    else:
        print_table(("source", "W", "note"), rows)
    if all(power_w is None for _, power_w, _ in rows):
        raise DeviceError("no source of the node's power answers")


@command.command("fit")
@meter_options
@click.option(
    "--hardware",
    type=click.Choice(["auto", "nvml", "amd", "intel"]),
    default="auto",
    show_default=True,
    help="Whose GPUs are read.",
)
@click.option(
    "--seconds", type=Finite(10, 86400), default=600.0, show_default=True, help="How long to look."
)
@json_option
def fit(*, hardware: str, seconds: float, as_json: bool, **meter: Any) -> None:  # noqa: ANN401 - as above
    """Fit the linear model to the meter, over a stretch in which the GPUs' load varies.

    Prints the agent's options for a node like this one that has no meter. Writes nothing.
    """
    from pals_grid.node.devices import open_gpus  # noqa: PLC0415
    from pals_grid.powermodel.overhead_fit import fit_overhead  # noqa: PLC0415

    sources = [source for source in _sources(meter) if source.is_whole]
    if not sources:
        raise ConfigurationError("node_meter: must read the whole node: redfish or ipmi")
    gpus = open_gpus(hardware)
    if not gpus:
        raise ConfigurationError("this machine has no GPU that its driver shows")
    found = fit_overhead(collect_pairs(sources[0], gpus, seconds))
    result = {
        "source": sources[0].name,
        "node_base_w": round(found.overhead.base_w, 1),
        "node_per_gpu_w_ratio": round(found.overhead.per_gpu_w_ratio, 4),
        "rmse_w": round(found.rmse_w, 1),
        "pairs": found.pairs,
        "gpu_power_low_w": round(found.gpu_power_low_w, 1),
        "gpu_power_high_w": round(found.gpu_power_high_w, 1),
    }
    if as_json:
        print_json(result)
        return
    click.echo(
        "--node-base-w {node_base_w} --node-per-gpu-w-ratio {node_per_gpu_w_ratio}\n"
        "from {pairs} readings of {source}, GPUs at {gpu_power_low_w} to {gpu_power_high_w} W, "
        "off by {rmse_w} W (root mean square)".format(**result)
    )


def collect_pairs(
    source: PowerSource,
    gpus: Sequence[Gpu],
    seconds: float,
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> list[tuple[float, float]]:
    """Read the meter every ``poll_s`` beside the GPUs' mean power since the last reading.

    Raises:
        DeviceError: when a GPU or the meter cannot be read.
    """
    pairs: list[tuple[float, float]] = []
    end_s = monotonic_s() + seconds
    while monotonic_s() < end_s:
        looks: list[float] = []
        next_s = monotonic_s() + source.poll_s
        while monotonic_s() < next_s:
            looks.append(sum(gpu.observe().power_draw_w for gpu in gpus))
            wait(LOOK_S)
        pairs.append((sum(looks) / len(looks), source.read_w()))
    return pairs


def _sources(meter: Mapping[str, Any]) -> list[PowerSource]:
    from pals_grid.node.meters.choose import make_sources  # noqa: PLC0415

    sources = make_sources(read_meter(meter))
    if not sources:
        raise ConfigurationError("node_meter: this machine has none; give --node-meter-url")
    return sources
