"""The node now, from the ticks of the last five seconds."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from pals_grid.wire.messages import EngineStatus, GpuStatus, NodeStatus

if TYPE_CHECKING:
    from pals_grid.core.ports import GpuSample
    from pals_grid.node.report import EngineTick, TickReport

WINDOW_S = 5.0


class StatusBoard:
    """Keeps the last ticks. ``add`` and ``status`` belong to one thread.

    A grant is acknowledged once a tick has carried it out: the helper was told of it, too.
    """

    def __init__(self, *, takes_grants: bool = False) -> None:
        self._takes_grants = takes_grants
        self._recent: deque[TickReport] = deque()

    def add(self, report: TickReport) -> NodeStatus:
        """Take a tick; returns the status to show."""
        self._recent.append(report)
        while report.monotonic_s - self._recent[0].monotonic_s > WINDOW_S:
            self._recent.popleft()
        epoch, sequence = report.obeyed.key if report.obeyed is not None else (0, 0)
        return NodeStatus(
            at=report.at,
            mode=report.mode.value,
            envelope_version=report.envelope.version,
            power_envelope_w=report.envelope.power_max_w,
            node_power_w=report.node_power.power_w,
            node_power_origin=report.node_power.origin,
            gpu_power_w=report.gpu_power_w,
            tick_lag_ms=report.lag_s * 1000,
            engines=[self._engine(index, tick) for index, tick in enumerate(report.engines)],
            gpus=[
                GpuStatus(
                    gpu_uuid=gpu.uuid,
                    power_draw_w=gpu.sample.power_draw_w,
                    power_limit_w=gpu.sample.power_limit_w,
                    temperature_c=gpu.sample.temperature_c,
                    sm_clock_mhz=gpu.sample.sm_clock_mhz,
                    clock_reasons=_clock_reasons(gpu.sample),
                )
                for tick in report.engines
                for gpu in tick.gpus
                if gpu.sample is not None
            ],
            node_power_source=report.node_power.source,
            takes_grants=self._takes_grants,
            grant_epoch=epoch,
            grant_sequence=sequence,
        )

    def _engine(self, index: int, tick: EngineTick) -> EngineStatus:
        first = self._recent[0]
        seconds = self._recent[-1].monotonic_s - first.monotonic_s
        tokens, energy_j = _since(first.engines[index], tick)
        sample = tick.sample
        return EngineStatus(
            engine=tick.name,
            model=tick.model,
            power_limit_w=tick.power_limit_w,
            power_draw_w=tick.power_draw_w,
            max_num_seqs=(sample.max_num_seqs or 0) if sample else 0,
            requests_running=sample.requests_running if sample else 0,
            requests_waiting=sample.requests_waiting if sample else 0,
            tokens_out_per_s=tokens / seconds if seconds > 0 else 0.0,
            gpu_energy_j_per_token=energy_j / tokens if tokens > 0 else None,
            reason=_reason(tick),
            requests_deferred=sample.requests_deferred if sample else 0,
            tokens_deferred=tick.tokens_deferred,
            sm_clock_limit_mhz=tick.command.sm_clock_mhz if tick.command is not None else None,
        )


def _since(first: EngineTick, last: EngineTick) -> tuple[float, float]:
    """Output tokens and GPU energy in joules between two ticks; 0 where a counter fell."""
    tokens = 0.0
    if first.sample is not None and last.sample is not None:
        tokens = last.sample.tokens_out_total - first.sample.tokens_out_total
    energy_j = sum(
        now.sample.energy_j - then.sample.energy_j
        for then, now in zip(first.gpus, last.gpus, strict=True)
        if then.sample is not None and now.sample is not None
    )
    return max(0.0, tokens), max(0.0, energy_j)


def _clock_reasons(sample: GpuSample) -> list[str] | None:
    return None if sample.clock_reasons is None else list(sample.clock_reasons.labels)


def _reason(tick: EngineTick) -> str:
    if tick.sample is None:
        return "the engine does not answer"
    return tick.command.reason if tick.command is not None else "observed only"
