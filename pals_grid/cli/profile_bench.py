"""What ``profile run`` measures on: this machine's GPUs, or a simulated node in its own time."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import ConfigurationError, InvalidValue, NotFound
from pals_grid.core.fleet import Origin
from pals_grid.core.site import Slo
from pals_grid.node.files import hold_state_dir
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.restore import RestoreFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from pals_grid.cli.profile_options import ProfileOptions
    from pals_grid.core.ports import Clock

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIMULATED_BATCH = 256
SIMULATED_TOKENS_OUT = 211.0
"""Mean answer of the Azure LLM inference trace 2023, conversation."""


class ProfileStopped(Exception):
    """A signal asked for the end; everything is put back on the way out."""


class StopSignal:
    """Takes SIGINT, SIGTERM and SIGHUP; ``number`` is the first that came."""

    def __init__(self) -> None:
        # Not an event: a handler that sets one waits for ever where it interrupts the wait itself.
        self._came: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.number = 0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Own the signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wait(self, seconds: float) -> None:
        """Wait; a signal that came, or comes, ends it.

        Raises:
            ProfileStopped: then.
        """
        if not self.number:
            with contextlib.suppress(queue.Empty):
                self.number = self._came.get(timeout=max(0.0, seconds))
        if self.number:
            raise ProfileStopped

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._came.put(number)


@dataclass(frozen=True, slots=True)
class Bench:
    """A unit, its time, and the mix of its load (None: as found)."""

    unit: EngineUnit
    clock: Clock
    wait: Callable[[float], None]
    input_per_output: float | None

    @contextlib.contextmanager
    def originals(self, state_dir: Path, say: Callable[[str], None]) -> Iterator[RestoreFile]:
        """Original limits on the disk, no agent beside us; what a crash left is put back first."""
        if self.unit.origin is Origin.SIMULATED:
            yield RestoreFile(None)
            return
        with hold_state_dir(state_dir):
            restore = RestoreFile(state_dir / "original-limits.json")
            for failure in restore.restore(self.unit.gpus):
                say(f"left over from an earlier run: {failure}")
            yield restore


@contextlib.contextmanager
def open_bench(asked: ProfileOptions, stop: StopSignal) -> Iterator[Bench]:
    """Open what is to be measured.

    Raises:
        ConfigurationError: when an option is missing, or is for the other kind of hardware.
        DeviceError: when GPUs or engine do not answer.
        InvalidValue: for an engine that cannot be simulated.
    """
    metrics_url, channel, model = asked.engine_metrics_url, asked.engine_channel, asked.engine_model
    if asked.hardware == "sim" or (asked.hardware == "auto" and not _gpus_answer()):
        for name, given in (("engine-metrics-url", metrics_url), ("engine-channel", channel)):
            if given is not None:
                raise ConfigurationError(f"{name}: must be left out, nothing real is here")
        yield _simulated(asked, stop)
        return
    if asked.gpu_model is not None or asked.gpu_count is not None:
        raise ConfigurationError("gpu-model, gpu-count: must be left out with real GPUs")
    if (metrics_url is None and channel is None) or model is None:
        raise ConfigurationError(
            "engine-metrics-url or engine-channel, engine-model: must be given with real GPUs"
        )
    from pals_grid.node.real import ServerConfig, build_real_node  # noqa: PLC0415
    from pals_grid.node.vllm.engine import VllmChannelEngine  # noqa: PLC0415
    from pals_grid.node.vllm.metrics import VllmMetricsEngine  # noqa: PLC0415

    server = ServerConfig(metrics_url, model, channel)
    slo = asked.slo or Slo()
    (unit,) = build_real_node(server, slo, look_up_table=False, hardware=asked.hardware).units
    engine = unit.engine
    assert isinstance(engine, VllmMetricsEngine | VllmChannelEngine)
    try:
        if isinstance(engine, VllmMetricsEngine):
            engine.refresh()
        else:
            engine.observe()
        yield Bench(unit, SystemClock(), stop.wait, asked.input_per_output)
    finally:
        engine.close()


def _gpus_answer() -> bool:
    from pals_grid.node.real import can_open_gpus  # noqa: PLC0415

    return can_open_gpus()


def _simulated(asked: ProfileOptions, stop: StopSignal) -> Bench:
    from pals_grid.powermodel.coefficients import engine_model, known_engines  # noqa: PLC0415
    from pals_grid.sim.arrivals import saturating  # noqa: PLC0415
    from pals_grid.sim.clock import SimClock  # noqa: PLC0415
    from pals_grid.sim.demo import DEMO_INPUT_PER_OUTPUT, DEMO_SPEC  # noqa: PLC0415
    from pals_grid.sim.plant import NodeSpec, SimNode  # noqa: PLC0415

    spec = NodeSpec(
        name="profile",
        gpu_model=asked.gpu_model or DEMO_SPEC.gpu_model,
        model=asked.engine_model or DEMO_SPEC.model,
        gpu_count=asked.gpu_count or DEMO_SPEC.gpu_count,
        overhead=DEMO_SPEC.overhead,
        max_num_seqs=SIMULATED_BATCH,
    )
    try:
        engine_model(spec.gpu_model, spec.model, spec.gpu_count)
    except NotFound as error:
        known = "; ".join(f"{e.model} on {e.gpu_count} x {e.gpu_model}" for e in known_engines())
        wanted = f"{spec.model} on {spec.gpu_count} x {spec.gpu_model}"
        raise InvalidValue("engine-model", wanted, f"must be one of: {known}") from error
    mix = DEMO_INPUT_PER_OUTPUT if asked.input_per_output is None else asked.input_per_output
    clock = SimClock(datetime.now(UTC))
    load = saturating(mix * SIMULATED_TOKENS_OUT, SIMULATED_TOKENS_OUT, seed=asked.seed)
    node = SimNode(clock, spec, load, asked.seed)

    def wait(seconds: float) -> None:
        stop.wait(0.0)
        clock.advance(seconds)

    return Bench(
        EngineUnit("engine", node.engine, node.gpus, None, Origin.SIMULATED), clock, wait, mix
    )
