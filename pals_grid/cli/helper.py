"""``pals-grid helper``: the privileged helper, what restores after it, and its unit files."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pals_grid.cli.arguments import Finite
from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

state_dir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/pals-grid/helper"),
    show_default=True,
    help="Where original limits and holds are kept; for root alone.",
)
log_level = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="Least level to log.",
)


@click.group("helper")
def command() -> None:
    """Set power limits and SM clocks for an agent that may not, and nothing else."""


@command.command("run")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/run/pals-grid/helper.sock"),
    show_default=True,
    help="Where to listen; unused where systemd hands over a socket.",
)
@state_dir
@click.option("--allow-user", multiple=True, metavar="USER", help="May connect; may be repeated.")
@click.option("--allow-group", multiple=True, metavar="GROUP", help="Primary group; likewise.")
@click.option("--gpu", "gpus", multiple=True, metavar="UUID", help="May be written. Default: all.")
@click.option("--max-power-w", type=Finite(0, 1e6), default=1e6, help="Highest limit of a GPU, W.")
@click.option("--min-power-w", type=Finite(0, 1e6), default=0.0, help="Lowest limit of a GPU, W.")
@click.option(
    "--max-writes-per-s",
    type=Finite(0.01, 1000),
    default=4.0,
    show_default=True,
    help="Writes per second to one GPU, for limit and clock each.",
)
@click.option(
    "--grace-s",
    type=Finite(0, 3600),
    default=10.0,
    show_default=True,
    help="Time in seconds that an agent has to come back before limits are restored.",
)
@click.option(
    "--audit-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a line for each write to this file too; renewed at 10 MiB, three old ones kept.",
)
@log_level
def run(  # noqa: PLR0913 - each is one option
    *,
    socket_path: Path,
    state_dir: Path,
    allow_user: tuple[str, ...],
    allow_group: tuple[str, ...],
    gpus: tuple[str, ...],
    max_power_w: float,
    min_power_w: float,
    max_writes_per_s: float,
    grace_s: float,
    audit_file: Path | None,
    log_level: str,
) -> None:
    """Serve one agent at a time; hold or restore the limits when it is gone."""
    from pals_grid.cli.logs import open_audit, open_logs  # noqa: PLC0415
    from pals_grid.node.helper.bounds import Bounds  # noqa: PLC0415
    from pals_grid.node.helper.daemon import HelperConfig, run_helper  # noqa: PLC0415
    from pals_grid.node.helper.devices import open_devices  # noqa: PLC0415
    from pals_grid.node.helper.server import Allowed  # noqa: PLC0415

    open_logs(log_level)
    open_audit(audit_file)
    groups = [
        _number("allow-group", name, lambda n: grp.getgrnam(n).gr_gid) for name in allow_group
    ]
    users = [_number("allow-user", name, lambda n: pwd.getpwnam(n).pw_uid) for name in allow_user]
    config = HelperConfig(
        allowed=Allowed(frozenset(users), frozenset(groups)),
        state_dir=state_dir,
        socket_path=socket_path,
        socket_gid=groups[0] if len(groups) == 1 and not users else None,
        uuids=frozenset(gpus),
        bounds=Bounds(min_power_w, max_power_w, max_writes_per_s, max(1.0, 2 * max_writes_per_s)),
        grace_s=grace_s,
    )
    code = run_helper(config, open_gpus=open_devices, environment=os.environ)
    raise click.exceptions.Exit(code)


@command.command("restore")
@state_dir
@click.option("--now", "now_whatever", is_flag=True, help="Also in an event that is active.")
@click.option("--after-stop", is_flag=True, help="For ExecStopPost: heed $SERVICE_RESULT.")
@log_level
def restore(*, state_dir: Path, now_whatever: bool, after_stop: bool, log_level: str) -> None:
    """Restore the original limits that a stopped helper left behind."""
    from pals_grid.cli.logs import open_audit, open_logs  # noqa: PLC0415
    from pals_grid.node.helper.daemon import HelperConfig, restore_offline  # noqa: PLC0415
    from pals_grid.node.helper.devices import open_devices  # noqa: PLC0415
    from pals_grid.node.helper.server import Allowed  # noqa: PLC0415

    open_logs(log_level)
    open_audit(None)
    code = restore_offline(
        HelperConfig(allowed=Allowed(), state_dir=state_dir),
        open_gpus=open_devices,
        now_whatever=now_whatever,
        service_result=os.environ.get("SERVICE_RESULT") if after_stop else None,
    )
    raise click.exceptions.Exit(code)


@command.command("units")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--url", required=True, help="Address of the service.")
@click.option("--token-file", default="/etc/pals-grid/token", show_default=True)
@click.option("--group", default="pals-grid", show_default=True, help="The agent's user and group.")
@click.option(
    "--vendor", type=click.Choice(["nvidia", "amd", "intel"]), default="nvidia", show_default=True
)
@click.option("--helper-option", multiple=True, metavar="OPTION", help="For `helper run`.")
@click.option("--agent-option", multiple=True, metavar="OPTION", help="For `agent`.")
def units(
    *,
    out: Path,
    url: str,
    token_file: str,
    group: str,
    vendor: str,
    helper_option: tuple[str, ...],
    agent_option: tuple[str, ...],
) -> None:
    """Write systemd units for helper and agent into a folder."""
    from pals_grid.node.helper.units import Installation, systemd_units  # noqa: PLC0415

    installation = Installation(
        bin_dir=str(Path(sys.executable).parent),
        url=url,
        token_file=token_file,
        group=group,
        vendor=vendor,
        helper_options=helper_option,
        agent_options=agent_option,
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, text in systemd_units(installation).items():
        (out / name).write_text(text)
        click.echo(out / name)


@command.command("manifest")
@click.option("--image", required=True, help="An image in which pals-grid[node] is installed.")
@click.option("--url", required=True, help="Address of the service.")
@click.option("--namespace", default="pals-grid", show_default=True)
def manifest(*, image: str, url: str, namespace: str) -> None:
    """Print a Kubernetes DaemonSet: the agent, and the helper beside it."""
    from pals_grid.node.helper.units import kubernetes_manifest  # noqa: PLC0415

    click.echo(kubernetes_manifest(image, url, namespace), nl=False)


def _number(field: str, name: str, look_up: Callable[[str], int]) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return look_up(name)
    except KeyError as error:
        raise InvalidValue(field, name, "must exist on this machine") from error
