"""Unit files and a manifest for the helper and the agent, filled in for one installation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS = (
    "pals-grid-helper.socket",
    "pals-grid-helper.service",
    "pals-grid-agent.service",
    "pals-grid-sysusers.conf",
)
MANIFEST = "pals-grid-node.yaml"
VENDORS = ("nvidia", "amd", "intel")


@dataclass(frozen=True, slots=True)
class Installation:
    """Where and how the programs run. ``vendor`` is that of the GPUs, ``group`` also the user.

    ``helper_options`` and ``agent_options`` are added to the commands, each a word.
    """

    bin_dir: str
    url: str
    token_file: str = "/etc/pals-grid/token"  # noqa: S105 - a path
    group: str = "pals-grid"
    vendor: str = "nvidia"
    helper_options: tuple[str, ...] = ()
    agent_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("bin_dir", "token_file"):
            _require_word(name, getattr(self, name), r"/[\w./+@-]*")
        _require_word("group", self.group, r"[a-z_][a-z0-9_-]{0,30}")
        _require_word("url", self.url, r"https?://[\w.:/@\[\]-]+")
        if self.vendor not in VENDORS:
            raise InvalidValue("vendor", self.vendor, f"must be one of {', '.join(VENDORS)}")
        for option in (*self.helper_options, *self.agent_options):
            _require_word("option", option, r"[\w.:/=,@+-]+")


def systemd_units(installation: Installation) -> dict[str, str]:
    """Return the text of each unit file by name."""
    # AMD and Intel take limits through files under /sys, NVIDIA through its device.
    tunables = "yes" if installation.vendor == "nvidia" else "no"
    values = {
        "BIN": installation.bin_dir,
        "URL": installation.url,
        "TOKEN_FILE": installation.token_file,
        "GROUP": installation.group,
        "TUNABLES": tunables,
        "OPTIONS": "".join(f" {option}" for option in installation.helper_options),
        "AGENT_OPTIONS": "".join(f" {option}" for option in installation.agent_options),
    }
    return {name: _filled(name, values) for name in UNITS}


def kubernetes_manifest(image: str, url: str, namespace: str = "pals-grid") -> str:
    """Return the DaemonSet.

    Raises:
        InvalidValue: for what is no image, address or namespace.
    """
    _require_word("image", image, r"[\w.:/@-]+")
    _require_word("url", url, r"https?://[\w.:/@\[\]-]+")
    _require_word("namespace", namespace, r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
    return _filled(MANIFEST, {"IMAGE": image, "URL": url, "NAMESPACE": namespace})


def _filled(name: str, values: Mapping[str, str]) -> str:
    text = files("pals_grid.node.helper").joinpath("deploy", name).read_text("utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found.group(1)], text)


def _require_word(field: str, value: str, pattern: str) -> None:
    if not re.fullmatch(pattern, value, re.ASCII):
        raise InvalidValue(field, value, f"must match {pattern}")
