"""What a strategy decides for one unit at one tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.core.commands import NodeCommand


@dataclass(frozen=True, slots=True)
class Decision:
    """For one unit: what it should be able to serve, and the command (None: left alone).

    ``tokens_deferred`` is the estimated output of the requests that may wait and do.
    """

    target_tokens_per_s: float
    command: NodeCommand | None
    tokens_deferred: float = 0.0
