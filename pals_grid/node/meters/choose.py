"""Which node meter an agent has: named by its settings, or the first that answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError
from pals_grid.node.node_meter import LinearNodeMeter

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.core.ports import NodeMeter
    from pals_grid.node.meters.source import PowerSource
    from pals_grid.powermodel.overhead import NodeOverhead

METERS = ("auto", "redfish", "ipmi", "rapl", "linear")
REST_RATIO = 0.5
"""ASSUMED: the share of a node's base power that is neither CPUs nor memory (fans, network,
boards), where RAPL is read and no ``rest_w`` is given. Not measured."""


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """Settings of the node meter.

    ``kind`` is one of ``METERS``; ``auto`` asks Redfish where there is a ``url``, then IPMI, then
    RAPL, and keeps the first that answers. ``base_w`` and ``per_gpu_w_ratio`` take the place of
    the linear model's assumed coefficients; ``rest_w`` is what a node draws at rest beside GPUs,
    CPUs and memory.
    """

    kind: str = "auto"
    url: str | None = None
    auth_file: Path | None = None
    ca_file: Path | None = None
    chassis: str | None = None
    base_w: float | None = None
    per_gpu_w_ratio: float | None = None
    rest_w: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in METERS:
            known = ", ".join(METERS)
            raise ConfigurationError(f"node_meter: must be one of {known}, got {self.kind!r}")
        if self.kind == "redfish" and self.url is None:
            raise ConfigurationError("node_meter_url: must be given with redfish")
        for name in ("auth_file", "ca_file", "chassis"):
            if getattr(self, name) is not None and self.url is None:
                raise ConfigurationError(f"node_meter_{name}: needs node_meter_url")
        if self.url is not None and self.kind not in {"auto", "redfish"}:
            raise ConfigurationError(f"node_meter_url: must be left out with {self.kind}")


def make_meter(config: MeterConfig, overhead: NodeOverhead) -> NodeMeter:
    """Make the meter and start it; ``overhead`` is the model that stands in for it.

    Nothing is read here: a baseboard that is slow delays no start.

    Raises:
        ConfigurationError: for a setting that cannot be used.
    """
    sources = make_sources(config)
    if not sources:
        return LinearNodeMeter(overhead)
    from pals_grid.node.meters.polled import PolledNodeMeter  # noqa: PLC0415 - only with a meter

    rest_w = REST_RATIO * overhead.base_w if config.rest_w is None else config.rest_w
    return PolledNodeMeter(sources, overhead, rest_w).start()


def make_sources(config: MeterConfig) -> list[PowerSource]:
    """Make what can be asked for the node's power, in order; empty where there is nothing.

    Raises:
        ConfigurationError: for a setting that cannot be used.
    """
    found: list[PowerSource] = []
    if config.url is not None:
        from pals_grid.node.meters.redfish import RedfishSource, read_auth  # noqa: PLC0415

        auth = read_auth(config.auth_file) if config.auth_file is not None else None
        if config.ca_file is not None and not config.ca_file.is_file():
            raise ConfigurationError(f"node_meter_ca_file: must be a file, got {config.ca_file}")
        found.append(
            RedfishSource(config.url, auth, ca_file=config.ca_file, chassis=config.chassis)
        )
    if config.kind in {"auto", "ipmi"}:
        from pals_grid.node.meters.ipmi import IpmiSource, find_ipmi  # noqa: PLC0415

        ipmi = find_ipmi()
        if ipmi is not None or config.kind == "ipmi":
            found.append(ipmi or IpmiSource())
    if config.kind in {"auto", "rapl"}:
        from pals_grid.node.meters.rapl import ROOT, RaplSource  # noqa: PLC0415

        if config.kind == "rapl" or any(ROOT.glob("intel-rapl:*")):
            found.append(RaplSource())
    return found
