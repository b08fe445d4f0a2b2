"""vLLM from both sides: the agent's engines, and the classes that vLLM itself loads.

Importing this package imports no vLLM: `PalsScheduler` and `PalsStatLogger` are looked up when
vLLM asks for them by name.
"""

from __future__ import annotations

import importlib
from typing import Any

_PLUGIN = ("PalsScheduler", "PalsSyncScheduler", "PalsStatLogger")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - classes of vLLM's
    """Import the plug-in, inside vLLM's own process."""
    if name in _PLUGIN:
        return getattr(importlib.import_module("pals_grid.node.vllm.plugin"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
