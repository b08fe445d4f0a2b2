"""The table between allocators and replicas, as the database holds it: a row a node, fenced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.allocator.outlook import Issued
    from pals_grid.core.grant import Grant


class GrantTable:
    """What allocators write and any replica hands out. Times are the database's clock, in s.

    Only the allocator of the epoch in force writes: ``fenced`` False is for showing that it must.
    """

    def __init__(self, *, fenced: bool = True) -> None:
        self.epoch = 1
        self.refused = 0
        self._fenced = fenced
        self._rows: dict[int, Issued] = {}

    def take_over(self) -> int:
        """Begin the next epoch."""
        self.epoch += 1
        return self.epoch

    def write(self, epoch: int, issued: Mapping[int, Issued]) -> None:
        """Store the grants of an allocator, unless another has taken over meanwhile."""
        if self._fenced and epoch != self.epoch:
            self.refused += 1
            return
        self._rows.update(issued)

    def read(self, node_id: int, now_s: float) -> Grant | None:
        """Return a node's grant with the lease that is left; None without one."""
        row = self._rows.get(node_id)
        return None if row is None else row.handed_out_at(now_s)
