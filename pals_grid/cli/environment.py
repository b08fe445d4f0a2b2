"""The process's environment, read in this one place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.settings import load_settings

if TYPE_CHECKING:
    from pals_grid.settings import Settings


def read_settings() -> Settings:
    """Settings of this process.

    Raises:
        ConfigurationError: names the variable, its bound and the value.
    """
    return load_settings(os.environ)


def pick_state_dir(node_name: str) -> Path:
    """Where a node's agent keeps its state unless told otherwise.

    For root, whose agent is the machine's, one place; else XDG's state home, by the node's name.

    Raises:
        InvalidValue: for a name that is no single folder's.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/pals-grid/node")
    if node_name in {"", ".", ".."} or "/" in node_name or "\0" in node_name:
        bound = "must do as a folder's name, or --state-dir be given"
        raise InvalidValue("name", node_name, bound)
    given = os.environ.get("XDG_STATE_HOME", "")
    # A relative path there is invalid, says the XDG Base Directory Specification.
    home = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return home / "pals-grid" / node_name
