"""The port behind which every control law stands: decide once a tick for all units of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.ports import NodePower
    from pals_grid.core.site import Slo
    from pals_grid.node.decision import Decision
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope


class Strategy(Protocol):
    """Turns what was seen and what is allowed into one decision per unit; it never actuates."""

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Decide for every unit, in order; ``dt_s`` is the time since the last tick."""
        ...

    def set_slo(self, slo: Slo) -> None:
        """Use these latency objectives from now on."""
        ...

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        """Take notice of the batch that unit ``index``'s engine lets be set, after each command.

        ``max_num_seqs`` is the most that it takes, None while unknown; while ``refused``, the
        batch that it has and keeps, None where it does not tell.
        """
        ...
