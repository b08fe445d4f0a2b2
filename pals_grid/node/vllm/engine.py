"""A vLLM server under control: batch sizes go in, telemetry comes out, through shared memory."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, TypedDict

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import DeviceError, DeviceLost
from pals_grid.core.ports import EngineSample
from pals_grid.node.vllm.channel import hold_agent_lock
from pals_grid.node.vllm.latency import GAP, REQUEST, TTFT, LatencyView
from pals_grid.node.vllm.layout import LEASE_S, BatchMode, Control
from pals_grid.node.vllm.metrics import VllmMetricsEngine
from pals_grid.node.vllm.ranks import ChannelDirectory
from pals_grid.node.vllm.totals import RunningTotals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pals_grid.core.ports import Engine
    from pals_grid.core.site import Slo
    from pals_grid.node.vllm.channel import RankFile
    from pals_grid.node.vllm.layout import StepTelemetry

IDLE_S = 5.0
_WAIT_S = 0.15
_MOST_SEQS = 1_000_000
_POLL_S = 0.002


class VllmChannelEngine:
    """The engine behind a channel directory; all data-parallel ranks together.

    A batch size is the whole engine's; each rank gets its share. It is a lease that each
    ``observe`` renews: without an agent, vLLM is back at its own limits after 3 s. ``metrics`` is
    the same server's /metrics: it tells latencies where the stat logger does not, and stands in
    for everything but the batch size where there is no channel.
    """

    def __init__(
        self,
        directory: Path,
        model: str,
        slo: Slo,
        *,
        mode: BatchMode = BatchMode.DRAIN,
        metrics: Engine | None = None,
        lease_s: float = LEASE_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = ChannelDirectory(directory)
        self._model = model
        self._slo = slo
        self._mode = mode
        self._metrics = metrics
        self._lease_s = lease_s
        self._monotonic_s = monotonic_s
        self._latency = LatencyView()
        self._lock = contextlib.ExitStack()
        self._locked = False
        self._wanted: int | None = None
        self._generation = time.time_ns() // 1000  # above that of any agent before
        self._told: dict[str, int] = {}
        self._steps = RunningTotals(3)
        self._misses = RunningTotals(4)

    @property
    def model(self) -> str:
        """Name of the served model."""
        return self._model

    def telemetry(self) -> dict[str, StepTelemetry]:
        """Return what each living rank said last, by file name; no target is renewed."""
        self._files.refresh()
        return self._read(self._files.ranks)

    def observe(self) -> EngineSample:
        """Read all ranks and renew the lease. An engine without work is silent, and idle.

        Raises:
            DeviceLost: when no scheduler lives and /metrics does not answer either.
            DevicePermission: when this user may not use the channel, and /metrics is silent.
        """
        now_s = self._monotonic_s()
        self._files.refresh()
        scraped = self._scraped()
        if not self._files.ranks and scraped is not None:
            return self._without_channel(scraped)
        ranks = self._files.require_ranks()
        self._renew(ranks, now_s)
        return self._sample(ranks, scraped, now_s)

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        """Tell every rank its share; a busy rank's answer is waited for, 0.15 s at most."""
        if not 1 <= max_num_seqs <= _MOST_SEQS:
            bounds = f"must be from 1 to {_MOST_SEQS}"
            return self._refusal(max_num_seqs, f"max_num_seqs: {bounds}, got {max_num_seqs}")
        self._files.refresh()
        try:
            ranks = self._files.require_ranks()
            self._hold_lock()
        except DeviceLost as error:
            return self._refusal(
                max_num_seqs,
                f"{error}; start vLLM with --scheduler-cls pals_grid.node.vllm.PalsScheduler",
            )
        except DeviceError as error:
            return self._refusal(max_num_seqs, str(error))
        self._wanted = int(max_num_seqs)
        self._generation += 1
        self._renew(ranks, self._monotonic_s())
        silent = self._wait(ranks)
        found = self._in_force(ranks)
        detail = "" if not silent else f"no answer yet from {', '.join(silent)}"
        if found == max_num_seqs:
            outcome = Outcome.PARTIAL if silent else Outcome.APPLIED
        else:
            outcome = Outcome.CLAMPED
            detail = detail or f"{len(ranks)} rank(s) take 1 to {self._own(ranks)} together"
        return ActuationResult(outcome, max_num_seqs, float(found), detail)

    def release(self) -> None:
        """Give vLLM its own limits back now, and let another agent in."""
        self._wanted = None
        for name, rank in self._files.ranks.items():
            if name in self._told:
                self._generation += 1
                rank.control.write(Control(self._generation, 0, 0, 0.0))
        self._told.clear()
        self._locked = False
        self._lock.close()

    def close(self) -> None:
        """Release, and let go of the files and of ``metrics``."""
        self.release()
        self._files.close()
        if isinstance(self._metrics, VllmMetricsEngine):
            self._metrics.close()

    # --- writing -----------------------------------------------------------------------------

    def _hold_lock(self) -> None:
        if not self._locked:
            self._lock.enter_context(hold_agent_lock(self._files.path))
            self._locked = True

    def _renew(self, ranks: dict[str, RankFile], now_s: float) -> None:
        """Write each rank's share with a new deadline; nothing while there is no target."""
        if self._wanted is None:
            return
        for (name, rank), share in zip(ranks.items(), self._shares(ranks), strict=True):
            rank.control.write(Control(self._generation, share, self._mode, now_s + self._lease_s))
            self._told[name] = share

    def _shares(self, ranks: dict[str, RankFile]) -> list[int]:
        """Split the target evenly, at least 1 each."""
        assert self._wanted is not None
        whole, rest = divmod(self._wanted, len(ranks))
        return [max(1, whole + (index < rest)) for index in range(len(ranks))]

    def _wait(self, ranks: dict[str, RankFile]) -> list[str]:
        """Wait for the ranks that step; return those of them that did not answer."""
        until_s = self._monotonic_s() + _WAIT_S
        while True:
            silent = [name for name, rank in ranks.items() if self._is_due(rank)]
            if not silent or self._monotonic_s() >= until_s:
                return silent
            time.sleep(_POLL_S)

    def _is_due(self, rank: RankFile) -> bool:
        told = rank.telemetry.read()
        return (
            told is not None
            and told.running + told.parked > 0
            and told.generation != self._generation
        )

    def _in_force(self, ranks: dict[str, RankFile]) -> int:
        """Return the whole batch size that the ranks follow, or will at their next step."""
        total = 0
        for name, rank in ranks.items():
            told, share = rank.telemetry.read(), self._told[name]
            total += share if told is None else min(share, told.own_max_num_seqs)
        return total

    @staticmethod
    def _own(ranks: dict[str, RankFile]) -> int:
        read = (rank.telemetry.read() for rank in ranks.values())
        return sum(told.own_max_num_seqs for told in read if told is not None)

    @staticmethod
    def _refusal(max_num_seqs: int, why: str) -> ActuationResult:
        return ActuationResult(Outcome.REFUSED, max_num_seqs, None, why)

    # --- reading -----------------------------------------------------------------------------

    def _scraped(self) -> EngineSample | None:
        if self._metrics is None:
            return None
        try:
            return self._metrics.observe()
        except DeviceError:
            return None

    def _without_channel(self, scraped: EngineSample) -> EngineSample:
        """Tell what /metrics tells, its counters going on from ours."""
        tokens_in, tokens_out, finished = self._steps.update({"metrics": _step_counts(scraped)})
        return dataclasses.replace(
            scraped,
            tokens_in_total=tokens_in,
            tokens_out_total=tokens_out,
            requests_finished_total=int(finished),
            **self._latencies(scraped),
        )

    @staticmethod
    def _read(ranks: dict[str, RankFile]) -> dict[str, StepTelemetry]:
        read = ((name, rank.telemetry.read()) for name, rank in ranks.items())
        return {name: told for name, told in read if told is not None}

    def _sample(
        self, ranks: dict[str, RankFile], scraped: EngineSample | None, now_s: float
    ) -> EngineSample:
        told = self._read(ranks)
        tokens_in, tokens_out, finished = self._steps.update(
            {
                f"{name}@{ranks[name].maker.started_ticks}": (
                    step.tokens_in_total,
                    step.tokens_out_total,
                    step.finished_total,
                )
                for name, step in told.items()
            }
        )
        # Who has work steps, and says so: a rank that has long been silent is idle.
        busy = [step for step in told.values() if now_s - step.at_s <= IDLE_S]
        prompts = [step.prompt_tokens_waiting for step in busy]
        return EngineSample(
            requests_running=sum(step.running for step in busy),
            requests_waiting=sum(step.waiting + step.parked for step in busy),
            tokens_in_total=tokens_in,
            tokens_out_total=tokens_out,
            requests_finished_total=int(finished),
            max_num_seqs=self._max_num_seqs(told),
            prompt_tokens_waiting=None if min(prompts, default=0.0) < 0 else sum(prompts),
            **self._latencies(scraped),
        )

    def _max_num_seqs(self, told: dict[str, StepTelemetry]) -> int | None:
        """Return what is in force; for an idle rank, what its next step will follow."""
        if not told:
            return None
        return sum(
            step.max_num_seqs
            if step.running + step.parked > 0
            else min(self._told.get(name, step.own_max_num_seqs), step.own_max_num_seqs)
            for name, step in told.items()
        )

    def _latencies(self, scraped: EngineSample | None) -> _Latencies:
        """Return latencies as the stat logger tells them, else /metrics, else unknown."""
        fronts = self._files.latencies()
        view = self._latency
        view.update(fronts, self._monotonic_s())
        found = _Latencies(
            ttft_misses_total=0,
            itl_misses_total=0,
            ttft_p99_s=None,
            itl_p99_s=None,
            prefills_total=None,
            prefill_s_total=None,
        )
        if fronts:
            found["ttft_p99_s"] = view.quantile_s(TTFT, 0.99)
            found["itl_p99_s"] = view.quantile_s(GAP, 0.99)
            misses = (view.misses(TTFT, self._slo.ttft_s), view.misses(REQUEST, self._slo.itl_s))
            counts = self._misses.update({"fronts": (*misses, *view.prefills)})
        elif scraped is not None:
            found["ttft_p99_s"] = scraped.ttft_p99_s
            found["itl_p99_s"] = scraped.itl_p99_s
            counts = self._misses.update({"metrics": _miss_counts(scraped)})
        else:
            counts = self._misses.update({})
        found["ttft_misses_total"], found["itl_misses_total"] = int(counts[0]), int(counts[1])
        if fronts or (scraped is not None and scraped.prefills_total is not None):
            found["prefills_total"], found["prefill_s_total"] = int(counts[2]), counts[3]
        return found


class _Latencies(TypedDict):
    ttft_misses_total: int
    itl_misses_total: int
    ttft_p99_s: float | None
    itl_p99_s: float | None
    prefills_total: int | None
    prefill_s_total: float | None


def _step_counts(sample: EngineSample) -> tuple[float, ...]:
    return sample.tokens_in_total, sample.tokens_out_total, sample.requests_finished_total


def _miss_counts(sample: EngineSample) -> tuple[float, ...]:
    return (
        sample.ttft_misses_total,
        sample.itl_misses_total,
        sample.prefills_total or 0,
        sample.prefill_s_total or 0.0,
    )
