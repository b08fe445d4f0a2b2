"""The GPUs that the helper may write: those of this machine, of whatever maker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import DeviceUnsupported
from pals_grid.node.devices import MAKERS, open_gpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.ports import Gpu


def open_devices() -> Sequence[Gpu]:
    """Open this machine's GPUs.

    Raises:
        DeviceUnsupported: when no maker's driver answers with a GPU; the log says why.
    """
    gpus = open_gpus("auto")
    if not gpus:
        raise DeviceUnsupported(f"no GPU answers through {', '.join(MAKERS)}")
    return gpus
