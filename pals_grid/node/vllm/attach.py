"""Ties vLLM's side to the channel. Any failure here leaves vLLM as if we were not there."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from pals_grid.node.vllm.batch_control import BatchControl
from pals_grid.node.vllm.channel import (
    DEFAULT_DIRECTORY,
    DIRECTORY_VARIABLE,
    GROUP_VARIABLE,
    FrontFile,
    RankFile,
)
from pals_grid.node.vllm.latency import LatencyMeter

log = logging.getLogger("vllm.pals_grid")


def attach_scheduler(scheduler: Any) -> BatchControl | None:  # noqa: ANN401 - vLLM's
    """Make the rank's file; None, and a line in vLLM's log, where that fails."""
    try:
        parallel = scheduler.vllm_config.parallel_config
        rank = getattr(parallel, "data_parallel_index", None)
        rank = parallel.data_parallel_rank if rank is None else rank
        channel = RankFile.create_rank(channel_directory(), rank, _group())
        control = BatchControl(channel)
        control.announce(scheduler)
    except Exception as error:  # noqa: BLE001 - serving matters more
        log.warning("PALS Grid: no batch control: %s", error)
        return None
    log.info("PALS Grid: batch control through %s", channel.path)
    return control


def attach_front(rank: int) -> LatencyMeter | None:
    """Make this API process's file for a rank; None, and a line in the log, where that fails."""
    try:
        return LatencyMeter(FrontFile.create_front(channel_directory(), rank, _group()))
    except Exception as error:  # noqa: BLE001 - serving matters more
        log.warning("PALS Grid: latencies are not told: %s", error)
        return None


def channel_directory() -> Path:
    """Return the directory from the environment (``PALS_GRID_CHANNEL_DIR``), or the default."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY)


def _group() -> int | None:
    name = os.environ.get(GROUP_VARIABLE)
    if not name:
        return None
    if name.isdecimal():
        return int(name)
    import grp  # noqa: PLC0415 - rarely needed

    return grp.getgrnam(name).gr_gid
