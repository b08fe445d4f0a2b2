"""How units share a node's GPU budget: by need, and when it is short by priority tier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORT = "; budget short, loses {loss:.0%} of its target inside its tier of {tier:.0%}"
BEYOND = "; budget short beyond all tiers, the rest shared in proportion"


@dataclass(frozen=True, slots=True)
class Need:
    """Of one unit, GPU watts: for its whole target, with its tier's loss, and its least.

    ``max_loss_ratio`` is the part of its target that it may lose.
    """

    full_w: float
    reduced_w: float
    floor_w: float
    max_loss_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """GPU watts of one unit, and what to say of them."""

    power_w: float
    note: str = ""


def share_budget(budget_w: float, needs: Sequence[Need], *, tiers: bool = True) -> list[Share]:
    """Share ``budget_w``; the shares sum to it at most.

    While it is short, the units that may lose most give first, all of a tier alike; then the
    next tier. What is still short then is taken from all in proportion to what they need above
    their floors. A surplus is spread in proportion to the needs.
    """
    budget_w = max(0.0, budget_w)
    full_w = [need.full_w for need in needs]
    floors_w = [need.floor_w for need in needs]
    missing_w = sum(full_w) - budget_w
    if missing_w <= 0 or not tiers:
        return [Share(power_w) for power_w in split_budget(budget_w, full_w, floors_w)]
    shares_w = list(full_w)
    notes = [""] * len(needs)
    for tier in sorted({need.max_loss_ratio for need in needs if need.max_loss_ratio > 0})[::-1]:
        members = [i for i, need in enumerate(needs) if need.max_loss_ratio == tier]
        gain_w = sum(max(0.0, needs[i].full_w - needs[i].reduced_w) for i in members)
        if gain_w <= 0:
            continue
        part = min(1.0, missing_w / gain_w)
        for i in members:
            shares_w[i] -= part * max(0.0, needs[i].full_w - needs[i].reduced_w)
            notes[i] = SHORT.format(loss=part * tier, tier=tier)
        missing_w -= part * gain_w
        if missing_w <= 1e-9:
            break
    if missing_w > 1e-9:
        floors_w = [min(a, b) for a, b in zip(floors_w, shares_w, strict=True)]
        shares_w = split_budget(budget_w, shares_w, floors_w)
        notes = [note + BEYOND for note in notes]
    return [Share(power_w, note) for power_w, note in zip(shares_w, notes, strict=True)]


def split_budget(
    budget_w: float, needs_w: Sequence[float], floors_w: Sequence[float]
) -> list[float]:
    """Share GPU watts; the shares sum to ``budget_w`` at most.

    Where the needs fit, each gets its need and its part of what is left over. Otherwise each
    gets its floor (the power of its cheapest level) and the rest in proportion to what it needs
    above that; a budget below the floors is cut in proportion to them.
    """
    budget_w = max(0.0, budget_w)
    needed_w, floor_w = sum(needs_w), sum(floors_w)
    if needed_w <= budget_w:
        return _scaled(needs_w, budget_w)
    if floor_w >= budget_w:
        return _scaled(floors_w, budget_w)
    ratio = (budget_w - floor_w) / (needed_w - floor_w)
    return [floor + (need - floor) * ratio for need, floor in zip(needs_w, floors_w, strict=True)]


def _scaled(parts_w: Sequence[float], total_w: float) -> list[float]:
    whole_w = sum(parts_w)
    if whole_w <= 0:
        return [total_w / len(parts_w) for _ in parts_w]
    return [part * total_w / whole_w for part in parts_w]
