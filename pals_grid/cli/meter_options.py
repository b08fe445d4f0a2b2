"""Options that say where the whole node's power comes from; several commands take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Finite, options
from pals_grid.node.meters.choose import METERS, MeterConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE = click.Path(path_type=Path, dir_okay=False)
meter_options = options(
    click.option(
        "--node-meter",
        type=click.Choice(METERS),
        default="auto",
        show_default=True,
        help="Where the whole node's power comes from; auto: the first of redfish (with "
        "--node-meter-url), ipmi and rapl that answers, else the linear model.",
    ),
    click.option("--node-meter-url", help="Address of the baseboard controller, https://... ."),
    click.option(
        "--node-meter-auth-file",
        type=_FILE,
        help="File with user:password for the baseboard controller, mode 0600.",
    ),
    click.option(
        "--node-meter-ca-file",
        type=_FILE,
        help="Certificates (PEM) that the baseboard controller's own is checked by.",
    ),
    click.option(
        "--node-meter-chassis", help="Id of the node's chassis, where several give their power."
    ),
    click.option(
        "--node-base-w",
        type=Finite(0, 1e6),
        help="Linear model: power in W of the node around its GPUs at rest.",
    ),
    click.option(
        "--node-per-gpu-w-ratio",
        type=Finite(0, 10),
        help="Linear model: power on top of each W that the GPUs draw, such as 0.15.",
    ),
    click.option(
        "--node-rest-w",
        type=Finite(0, 1e6),
        help="With rapl: power in W beside GPUs, CPUs and memory. Default: half of the base.",
    ),
)
"""Their values go to ``read_meter`` under their own names."""


def read_meter(values: Mapping[str, Any]) -> MeterConfig:
    """Make the settings.

    Raises:
        ConfigurationError: where they do not go together.
    """
    return MeterConfig(
        kind=values["node_meter"],
        url=values["node_meter_url"],
        auth_file=values["node_meter_auth_file"],
        ca_file=values["node_meter_ca_file"],
        chassis=values["node_meter_chassis"],
        base_w=values["node_base_w"],
        per_gpu_w_ratio=values["node_per_gpu_w_ratio"],
        rest_w=values["node_rest_w"],
    )
