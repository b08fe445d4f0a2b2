"""What one tick saw, decided and did: the record that rows, status and log are made from."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct  # ten records a tick: quicker to make than frozen dataclasses

from pals_grid.core.budget import Reason
from pals_grid.core.commands import ActuationResult, NodeCommand
from pals_grid.core.fleet import Origin
from pals_grid.core.grant import Grant, Held
from pals_grid.core.ports import EngineSample, GpuSample, NodePower


class Mode(StrEnum):
    """What the node goes by: its schedule, its safe limit, or nothing (dry run)."""

    FOLLOWING = "following"
    SAFE = "safe"
    OBSERVING = "observing"


class ActiveEnvelope(Struct, frozen=True):
    """What the node may draw now, at its boundary; ``reason`` None means the safe limit.

    ``held`` is the newest live grant, also where it has ended: what it asks is in the power.
    """

    version: int
    power_min_w: float
    power_max_w: float
    target_tokens_per_s: float
    reason: Reason | None
    held: Held | None = None

    @property
    def mode(self) -> Mode:
        """Whether an interval of the schedule holds."""
        return Mode.SAFE if self.reason is None else Mode.FOLLOWING


class GpuTick(Struct, frozen=True):
    """One GPU at a tick; ``sample`` None when it could not be read, actuations without a write."""

    uuid: str
    sample: GpuSample | None
    actuation: ActuationResult | None = None
    clock_actuation: ActuationResult | None = None


class EngineTick(Struct, frozen=True):
    """One engine at a tick.

    ``sample`` is None when the engine did not answer, ``command`` None when nothing was decided.
    ``tokens_deferred`` is the estimated output of the requests that may wait and do.
    ``power_draw_w`` and ``power_limit_w`` sum over its GPUs; ``target_tokens_per_s`` is what it
    should be able to serve, ``tokens_out_per_s`` what it served since the last tick. The SM clock
    that was decided is the command's, the actual ones are the GPUs' samples'.
    """

    name: str
    model: str
    origin: Origin
    gpus: tuple[GpuTick, ...]
    sample: EngineSample | None
    power_draw_w: float
    power_limit_w: float
    target_tokens_per_s: float
    tokens_out_per_s: float
    command: NodeCommand | None
    actuation: ActuationResult | None = None
    tokens_deferred: float = 0.0


class TickReport(Struct, frozen=True):
    """One tick. ``lag_s`` is how late it began; ``skipped`` how many ticks before it were lost.

    ``notes`` are things worth a line in the log: a lost GPU, a limit changed by someone else.
    ``obeyed`` is the newest live grant that the devices took.
    """

    at: datetime
    monotonic_s: float
    lag_s: float
    skipped: int
    mode: Mode
    envelope: ActiveEnvelope
    node_power: NodePower
    gpu_power_w: float
    engines: tuple[EngineTick, ...]
    notes: tuple[str, ...]
    obeyed: Grant | None = None
