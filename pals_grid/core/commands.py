"""What a controller decided, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """One tick's decision for one engine: a power limit per GPU and a batch size.

    ``deferrable_seqs`` is how many requests that may wait shall run; None leaves it to the engine.
    ``sm_clock_mhz`` is the highest SM clock of each GPU; None leaves the clock to the device.
    """

    power_limit_w: float
    max_num_seqs: int
    reason: str
    deferrable_seqs: int | None = None
    sm_clock_mhz: float | None = None


class Outcome(StrEnum):
    """What a device did with a command, judged by reading back."""

    APPLIED = "applied"
    CLAMPED = "clamped"
    PARTIAL = "partial"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ActuationResult:
    """The answer to one actuation; ``read_back`` is in the unit of ``requested``.

    ``retry_after_s`` says of a refusal that it is temporary, and when to ask again.
    """

    outcome: Outcome
    requested: float
    read_back: float | None
    detail: str = ""
    retry_after_s: float | None = None


def judge(
    requested: float, read_back: float, detail: str, tolerance: float = 0.0
) -> ActuationResult:
    """APPLIED where what reads back is what was requested, else CLAMPED for ``detail``."""
    if abs(read_back - requested) <= tolerance:
        return ActuationResult(Outcome.APPLIED, requested, read_back)
    return ActuationResult(Outcome.CLAMPED, requested, read_back, detail)
