"""``pals-grid agent``: the node agent; needs the node's packages alone."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pals_grid.cli.arguments import Finite, hardware_option, read_pairs
from pals_grid.cli.meter_options import meter_options, read_meter
from pals_grid.core.errors import ConfigurationError, InvalidValue

if TYPE_CHECKING:
    from pals_grid.core.ports import Clock
    from pals_grid.node.agent import AgentConfig
    from pals_grid.node.hardware import NodeHardware

MAX_TOKEN_BYTES = 4096


@click.command("agent")
@click.option(
    "--url",
    envvar="PALS_GRID_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Address of the service (PALS_GRID_URL).",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    required=True,
    help="File with the site's enrolment token.",
)
@click.option(
    "--name",
    default=lambda: os.uname().nodename,
    help="The node's name at its site. Default: the host's name.",
)
@hardware_option
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where schedule, spool and original limits are kept. Default: /var/lib/pals-grid/node "
    "for root, else $XDG_STATE_HOME/pals-grid/NAME (~/.local/state/pals-grid/NAME).",
)
@click.option("--dry-run", is_flag=True, help="Observe and decide, write nothing to any device.")
@click.option("--observe-gpus", is_flag=True, help="--dry-run where the GPUs are real.")
@click.option(
    "--safe-power-w",
    type=Finite(0, 1e9),
    help="Limit in W of the whole node while there never was a schedule. Default: its least power.",
)
@click.option("--engine-url", help="Address of a vLLM server, whose /metrics is read.")
@click.option("--engine-model", help="The model that it serves; needed with either of the others.")
@click.option(
    "--engine-channel",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the server's shared-memory channel, through which its batch size is set "
    "live; see docs/howto/vllm.md.",
)
@click.option(
    "--engine-batch-mode",
    type=click.Choice(["drain", "park", "preempt"]),
    default="drain",
    show_default=True,
    help="How a running batch shrinks: let requests end, let them take turns, or put them out.",
)
@click.option(
    "--engine-gpu",
    "engine_gpus",
    multiple=True,
    metavar="UUID",
    help="A GPU (or MIG instance) that the engine runs on; may be repeated. Default: all GPUs.",
)
@click.option(
    "--strategy",
    metavar="NAME",
    help="Control law: pals-grid (default), or pals, the published algorithm.",
)
@click.option(
    "--strategy-option",
    "strategy_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the control law, such as forecast=off; may be repeated.",
)
@click.option(
    "--frontier-table",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Table of the engine's operating points, written by `pals-grid profile fit`.",
)
@click.option(
    "--priority-tier",
    type=click.Choice(["0", "10", "25", "50"]),
    default="0",
    show_default=True,
    help="Per cent of its throughput target that the engine may lose while power is short.",
)
@meter_options
@click.option(
    "--helper",
    "helper_socket",
    type=click.Path(path_type=Path),
    metavar="SOCKET",
    help="Socket of `pals-grid helper run`, which sets limits in the place of this agent.",
)
@click.option(
    "--log-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the log to this file too; renewed at 10 MiB, three old ones kept.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="Least level to log.",
)
@click.option("--parent-fd", type=click.IntRange(3), hidden=True)
def command(  # noqa: PLR0913 - each is one option
    *,
    url: str,
    token_file: Path,
    name: str,
    hardware: str,
    state_dir: Path | None,
    dry_run: bool,
    observe_gpus: bool,
    safe_power_w: float | None,
    engine_url: str | None,
    engine_model: str | None,
    engine_gpus: tuple[str, ...],
    engine_channel: Path | None,
    engine_batch_mode: str,
    strategy: str | None,
    strategy_options: tuple[str, ...],
    frontier_table: Path | None,
    priority_tier: str,
    helper_socket: Path | None,
    log_file: Path | None,
    log_level: str,
    parent_fd: int | None,
    **meter: Any,  # noqa: ANN401 - the options of `meter_options`
) -> None:
    """Run the node agent: follow the site's envelopes, measure energy per token."""
    from pals_grid.cli.environment import pick_state_dir  # noqa: PLC0415
    from pals_grid.cli.logs import open_logs  # noqa: PLC0415
    from pals_grid.node.agent import AgentConfig, run_agent  # noqa: PLC0415
    from pals_grid.node.real import can_open_gpus  # noqa: PLC0415
    from pals_grid.node.strategies.registry import DEFAULT_STRATEGY  # noqa: PLC0415

    _require_url(url)
    open_logs(log_level, log_file)
    if observe_gpus and hardware != "sim" and can_open_gpus():
        dry_run = True
        click.echo(
            "GPUs found: this demo node only observes them; PALS_GRID_DEMO_ACTUATE=1 lets it set "
            "their power limits",
            err=True,
        )
    config = AgentConfig(
        url=url,
        enrolment_token=read_token(token_file),
        name=name,
        state_dir=state_dir or pick_state_dir(name),
        hardware=hardware,
        safe_power_w=safe_power_w,
        engine_metrics_url=engine_url,
        engine_model=engine_model,
        engine_channel=engine_channel,
        engine_batch_mode=engine_batch_mode,
        dry_run=dry_run,
        parent_fd=parent_fd,
        strategy=DEFAULT_STRATEGY if strategy is None else strategy,
        strategy_options=read_pairs("strategy-option", strategy_options),
        frontier_table=frontier_table,
        max_loss_ratio=int(priority_tier) / 100,
        helper_socket=helper_socket,
        engine_gpus=engine_gpus,
        meter=read_meter(meter),
    )
    raise click.exceptions.Exit(run_agent(config, build_units=build_simulated))


def read_token(path: Path) -> str:
    """Read the enrolment token.

    Raises:
        ConfigurationError: when the file cannot be read or holds no token; never quotes it.
    """
    try:
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ConfigurationError(f"token-file: must be readable, got {path}: {reason}") from error
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigurationError(f"token-file: must hold one token, got {path} without one")
    return token


def _require_url(url: str) -> None:
    if not re.match(r"https?://[^/]", url):
        raise InvalidValue("url", url, "must begin with http:// or https://")


def build_simulated(config: AgentConfig, clock: Clock) -> NodeHardware:
    """Make the simulated node behind the node's own ports."""
    from pals_grid.core.fleet import Origin  # noqa: PLC0415
    from pals_grid.node.hardware import EngineUnit, NodeHardware  # noqa: PLC0415
    from pals_grid.powermodel.table import BATCHES, build_frontier_table  # noqa: PLC0415
    from pals_grid.sim.demo import DEMO_INPUT_PER_OUTPUT, demo_node  # noqa: PLC0415

    node = demo_node(clock, name=config.name)
    spec = node.spec
    table = build_frontier_table(
        spec.gpu_model,
        spec.model,
        spec.gpu_count,
        DEMO_INPUT_PER_OUTPUT,
        max_num_seqs=[batch for batch in BATCHES if batch <= spec.max_num_seqs],
    )
    return NodeHardware(
        description=f"{spec.gpu_count} x {spec.gpu_model} (simulated)",
        origin=Origin.SIMULATED,
        units=(EngineUnit("engine", node.engine, node.gpus, table, Origin.SIMULATED),),
        meter=node.meter,
        overhead=spec.overhead,
    )
