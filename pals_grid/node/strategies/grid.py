"""``pals-grid``: this project's control law for all units of a node.

Each tick: every unit forecasts its load and states its need; the node's budget is shared by
need and tier; every unit takes the level of least energy inside its share that holds the
latency objectives at the load; measured power then moves the limits while the budget binds.
``docs/control-loop.md`` has the formulas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.fleet import DRAW_NOISE_RATIO
from pals_grid.node.decision import Decision
from pals_grid.node.report import Mode
from pals_grid.node.strategies.options import ControlOptions
from pals_grid.node.strategies.tiers import Need, Share, share_budget
from pals_grid.node.strategies.tracking import Backoff, DrawMeter
from pals_grid.node.strategies.unit import UnitControl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pals_grid.core.ports import NodePower
    from pals_grid.core.site import Slo
    from pals_grid.node.hardware import EngineUnit
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope
    from pals_grid.powermodel.overhead import NodeOverhead

BEYOND_WEIGHT = 0.2
EXCESS_TICKS = 2
RELEASE_RATIO = 1.05


class GridStrategy:
    """Decides for all units of a node, inside the one envelope that they share."""

    def __init__(
        self,
        units: Sequence[EngineUnit],
        overhead: NodeOverhead,
        slo: Slo,
        options: ControlOptions | None = None,
    ) -> None:
        self._options = options or ControlOptions()
        self._units = [
            UnitControl(unit, slo, self._options)
            if unit.table is not None
            else DrawMeter(len(unit.gpus))
            for unit in units
        ]
        self._overhead = overhead
        self._backoff = Backoff()
        self._beyond_w = 0.0
        self._excess = 0
        self._held_ratio = 1.0

    def set_slo(self, slo: Slo) -> None:
        """Use the site's latency objectives from now on."""
        for unit in self._units:
            if isinstance(unit, UnitControl):
                unit.set_slo(slo)

    def hold_batch(self, index: int, max_num_seqs: int | None, *, refused: bool) -> None:
        """Plan unit ``index`` with the batch that its engine lets be set."""
        unit = self._units[index]
        if isinstance(unit, UnitControl):
            unit.hold_batch(max_num_seqs, refused=refused)

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        """Decide for every unit, in order."""
        planned = envelope.mode is Mode.FOLLOWING
        controlled: list[UnitControl] = []
        draw_w = others_w = 0.0
        for unit, view in zip(self._units, seen, strict=True):
            if isinstance(unit, DrawMeter):
                others_w += unit.update(view.gpus, dt_s)
            elif unit.observe(view, dt_s, planned=planned):
                controlled.append(unit)
                draw_w += unit.power_draw_w
            else:
                others_w += unit.power_draw_w
        reading_w = sum(view.power_draw_w for view in seen)
        allowed_w = self._allowed_w(envelope.power_max_w, node_power.power_w, reading_w)
        over = draw_w + others_w > allowed_w * (1 + DRAW_NOISE_RATIO)
        held_ratio = self._hold(draw_w, allowed_w - others_w, over=over)
        margin = self._options.budget_margin_ratio
        if self._options.tracking:
            margin += self._backoff.update(draw_w + others_w, allowed_w)
        self._set_targets(controlled, envelope)
        shares = self._share(controlled, allowed_w * (1 - margin) - others_w)
        decided = {
            id(unit): unit.decide(share.power_w, held_ratio, share.note, over=over)
            for unit, share in zip(controlled, shares, strict=True)
        }
        nothing = Decision(0.0, None)
        return [decided.get(id(unit), nothing) for unit in self._units]

    def _allowed_w(self, power_max_w: float, node_power_w: float, reading_w: float) -> float:
        """GPU power inside the envelope: what the meter shows beyond the model is there anyway."""
        beyond_w = node_power_w - self._overhead.node_power_w(reading_w)
        self._beyond_w += (beyond_w - self._beyond_w) * BEYOND_WEIGHT
        return self._overhead.gpu_power_w(max(0.0, power_max_w - self._beyond_w))

    def _hold(self, draw_w: float, allowed_w: float, *, over: bool) -> float:
        """Scale of the limits while power stays above the envelope whatever the model says."""
        self._excess = self._excess + 1 if over else 0
        if self._excess >= EXCESS_TICKS and draw_w > 0:
            self._held_ratio = max(0.0, allowed_w) / draw_w
        elif not over:
            self._held_ratio = min(1.0, self._held_ratio * RELEASE_RATIO)
        return self._held_ratio

    @staticmethod
    def _set_targets(units: Sequence[UnitControl], envelope: ActiveEnvelope) -> None:
        most = sum(unit.max_tokens_per_s for unit in units)
        for unit in units:
            part = unit.max_tokens_per_s / most if most > 0 else 0.0
            granted = envelope.target_tokens_per_s * part
            unit.set_target(None if envelope.mode is Mode.SAFE else granted)

    def _share(self, units: Sequence[UnitControl], budget_w: float) -> list[Share]:
        if len(units) <= 1:
            return [Share(max(0.0, budget_w)) for _ in units]
        full_w = [unit.need_w() for unit in units]
        if sum(full_w) <= budget_w:
            return share_budget(budget_w, [Need(need_w, need_w, 0.0) for need_w in full_w])
        needs = [unit.need(need_w) for unit, need_w in zip(units, full_w, strict=True)]
        return share_budget(budget_w, needs, tiers=self._options.tiers)
