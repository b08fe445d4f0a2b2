"""The plan of the simulated site: its budget and each node's part of it, slot by slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.allocator.fill import split_power_w

if TYPE_CHECKING:
    from pals_grid.allocator.fleet_arrays import FleetArrays

_PLANNED_RATIO = (0.75, 0.6, 0.5, 0.7, 0.85)


class GrantsPlan:
    """Budgets between the fleet's least and most power, round and round, ``slot_s`` each."""

    def __init__(self, fleet: FleetArrays, slot_s: float) -> None:
        self.fleet = fleet
        self.slot_s = slot_s
        self._floor_w = float(fleet.power_min_w.sum())
        self._room_w = float(fleet.power_max_w.sum()) - self._floor_w
        self._schedules = [
            [
                float(power_w)
                for power_w in split_power_w(fleet, self._floor_w + ratio * self._room_w)
            ]
            for ratio in _PLANNED_RATIO
        ]

    def budget_w_at(self, now_s: float) -> float:
        """The site's budget."""
        return self._floor_w + _PLANNED_RATIO[self._index(now_s)] * self._room_w

    def schedule_at(self, now_s: float) -> list[float]:
        """Each node's part of the budget in W."""
        return self._schedules[self._index(now_s)]

    def slot_at(self, now_s: float) -> int:
        """The number of the slot."""
        return int(now_s // self.slot_s)

    def next_slot_s(self, now_s: float) -> float:
        """When the next slot begins."""
        return (now_s // self.slot_s + 1) * self.slot_s

    def _index(self, now_s: float) -> int:
        return self.slot_at(now_s) % len(_PLANNED_RATIO)
