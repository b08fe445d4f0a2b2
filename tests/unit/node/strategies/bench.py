"""Units under ``pals-grid`` without a plant: engines and GPUs show what the test says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.ports import ClockRange
from pals_grid.core.site import Slo
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.strategies.registry import make_strategy
from pals_grid.powermodel.overhead import NodeOverhead
from tests.unit.node.strategies.world import engine_sample, hand_table, node_power, seen

if TYPE_CHECKING:
    from pals_grid.core.commands import NodeCommand
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.node.report import ActiveEnvelope

OVERHEAD = NodeOverhead(0.0, 0.0)


class LockableGpu(FakeGpu):
    """A GPU whose clock can be locked."""

    clock_range = ClockRange(500.0, 1500.0)

    def apply_clock_limit(self, sm_clock_mhz: float | None) -> ActuationResult:
        asked = sm_clock_mhz or 1500.0
        return ActuationResult(Outcome.APPLIED, asked, asked)


class Bench:
    """Units with two GPUs each whose engines serve 100 tokens a request."""

    def __init__(
        self,
        count: int = 1,
        *,
        loss_ratios: tuple[float, ...] = (),
        table: FrontierTable | None = None,
        gpu: type[FakeGpu] = FakeGpu,
        slo: Slo | None = None,
        **options: object,
    ) -> None:
        units = [
            EngineUnit(
                f"e{i}",
                FakeEngine(),
                (gpu("a"), gpu("b")),
                table or hand_table(),
                max_loss_ratio=loss_ratios[i] if loss_ratios else 0.0,
            )
            for i in range(count)
        ]
        self.strategy = make_strategy("pals-grid", units, OVERHEAD, slo or Slo(), **options)
        self.finished = [0] * count
        self.begun = False

    def run(
        self,
        goal: ActiveEnvelope,
        *,
        rate_per_s: float = 0.0,
        running: int = 8,
        waiting: int = 0,
        power_w: float = 100.0,
        ticks: int = 60,
        gpus: int = 2,
        missed: bool = False,
    ) -> list[NodeCommand]:
        """Requests arrive and finish at ``rate_per_s``; the last commands.

        ``gpus`` of two answer; with ``missed`` every request misses its ITL objective.
        """
        for _ in range(ticks):
            self.finished = [count + round(rate_per_s / 2) for count in self.finished]
            views = [
                seen(
                    replace(
                        engine_sample(
                            running=running, waiting=waiting, tokens=100.0 * done, finished=done
                        ),
                        itl_misses_total=done if missed else 0,
                    ),
                    *[power_w if k < gpus else None for k in range(2)],
                )
                for done in self.finished
            ]
            drawn_w = gpus * power_w * len(views)
            decisions = self.strategy.decide(
                views, goal, node_power(drawn_w), 0.5 if self.begun else 0.0
            )
            self.begun = True
        commands = [decision.command for decision in decisions]
        assert all(command is not None for command in commands)
        return [command for command in commands if command is not None]
