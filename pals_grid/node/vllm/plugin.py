"""The classes that vLLM loads: the one module that imports vLLM.

``--scheduler-cls pals_grid.node.vllm.PalsScheduler``; the stat logger comes by its entry point.
Where the channel cannot be made, both say so in vLLM's log and do nothing else.
"""

from __future__ import annotations

import logging
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.metrics.loggers import StatLoggerBase

from pals_grid.node.vllm.attach import attach_front, attach_scheduler

log = logging.getLogger("vllm.pals_grid")


class _Controlled:
    """Mixin over a vLLM scheduler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.pals_control = attach_scheduler(self)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        control = self.pals_control
        if control is None:
            return super().schedule(*args, **kwargs)  # type: ignore[misc]
        control.before(self)
        output = None
        try:
            output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        finally:
            control.after(self, output)
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:  # noqa: ANN401
        results = super().update_from_output(  # type: ignore[misc]
            scheduler_output, model_runner_output
        )
        if self.pals_control is not None:
            self.pals_control.updated(self, scheduler_output, results)
        return results


class PalsSyncScheduler(_Controlled, Scheduler):  # type: ignore[misc]
    """vLLM's plain scheduler under control: what `PalsScheduler` is without async scheduling."""


class PalsScheduler(_Controlled, AsyncScheduler):  # type: ignore[misc]
    """vLLM's async scheduler under control.

    Where async scheduling is off one gets a `PalsSyncScheduler`, as one would from vLLM. It has
    to be this class that is named on the command line, for another turns async scheduling off.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Choose by the engine's configuration."""
        config = kwargs.get("vllm_config", args[0] if args else None)
        if config is not None and config.scheduler_config.async_scheduling is False:
            return PalsSyncScheduler(*args, **kwargs)
        return super().__new__(cls)


class PalsStatLogger(StatLoggerBase):  # type: ignore[misc]
    """Adds TTFT and token gaps of each iteration to the channel."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:  # noqa: ANN401, ARG002
        self._front = attach_front(engine_index)

    def record(
        self,
        scheduler_stats: Any,  # noqa: ANN401, ARG002
        iteration_stats: Any,  # noqa: ANN401
        *_: Any,  # noqa: ANN401
        **__: Any,  # noqa: ANN401
    ) -> None:
        """Take an iteration's latencies."""
        if self._front is not None and iteration_stats is not None:
            self._front.record(iteration_stats)

    def log_engine_initialized(self) -> None:
        """Say nothing: ``__init__`` did."""
