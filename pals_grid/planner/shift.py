"""Move deferrable work to where it costs least: the arithmetic, without units of money or time.

The work of slot ``i`` may be served in slots ``i`` to ``last[i]``. Which amounts per slot can be
served at all is a polymatroid (work matched to slots, whose windows are intervals), so taking
the cheapest piece of capacity first, each as far as it stays servable, is exactly optimal for
costs that are convex in each slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """Room for ``tokens`` in ``slot`` at ``cost`` per token."""

    cost: float
    slot: int
    tokens: float


def fill_cheapest(
    work: Sequence[float], last: Sequence[int], pieces: Iterable[Piece]
) -> list[float]:
    """Tokens of movable work served in each slot: as much as fits, as cheaply as can be.

    Args:
        work: movable tokens that arrive in each slot.
        last: the last slot that each slot's work may be served in; ``i <= last[i]``, not falling.
        pieces: the slots' room. Within a slot, dearer pieces come later (convex cost).
    """
    # Hall: any slots a..b together serve at most late[b] - early[a].
    late = list(accumulate(work))
    early = _expired(work, last)
    served = [0.0] * len(work)
    left = late[-1] if late else 0.0
    tolerance = _EPSILON * max(1.0, left)
    closed = [False] * len(work)
    for piece in sorted(pieces):
        j = piece.slot
        if closed[j]:
            continue
        room = min(late[j:]) - max(early[: j + 1])
        taken = min(piece.tokens, room)
        if room - taken <= tolerance:
            closed[j] = True
        if taken <= 0:
            continue
        served[j] += taken
        left -= taken
        late[j:] = [value - taken for value in late[j:]]
        early[j + 1 :] = [value - taken for value in early[j + 1 :]]
        if left <= tolerance:
            break
    return served


def _expired(work: Sequence[float], last: Sequence[int]) -> list[float]:
    """Work whose window ends before each slot."""
    arrived = [0.0, *accumulate(work)]
    expired = []
    source = 0
    for slot in range(len(work)):
        while last[source] < slot:
            source += 1
        expired.append(arrived[source])
    return expired


def unserved_work(
    work: Sequence[float], last: Sequence[int], served: Sequence[float]
) -> list[float]:
    """Tokens of each slot's work that ``served`` leaves out, oldest work first."""
    left = list(work)
    source = 0
    for slot, amount in enumerate(served):
        rest = amount
        source = next((i for i in range(source, slot + 1) if last[i] >= slot), slot)
        cursor = source
        while rest > 0 and cursor <= slot:
            taken = min(rest, left[cursor])
            left[cursor] -= taken
            rest -= taken
            cursor += 1
    tolerance = _EPSILON * max(1.0, sum(work))
    return [amount if amount > tolerance else 0.0 for amount in left]
