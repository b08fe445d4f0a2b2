"""What a controller decided, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """One tick's decision for one engine: a power limit per GPU and a batch size.

    ``deferrable_seqs`` is how many requests that may wait shall run; None leaves it to the engine.
    """

    power_limit_w: float
    max_num_seqs: int
    reason: str
    deferrable_seqs: int | None = None


class Outcome(StrEnum):
    """What a device did with a command, judged by reading back."""

    APPLIED = "applied"
    CLAMPED = "clamped"
    PARTIAL = "partial"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ActuationResult:
    """The answer to one actuation; ``read_back`` is in the unit of ``requested``."""

    outcome: Outcome
    requested: float
    read_back: float | None
    detail: str = ""
