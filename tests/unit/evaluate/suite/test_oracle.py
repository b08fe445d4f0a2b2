from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.budget import Reason
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import NodePower
from pals_grid.evaluate.suite import engines, oracle
from pals_grid.evaluate.suite.metrics import Energy
from pals_grid.evaluate.suite.tables import TableKey
from pals_grid.node.observation import UnitObservation
from pals_grid.node.report import ActiveEnvelope
from pals_grid.sim.arrivals import Request
from tests.unit.evaluate.suite.conftest import POINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.commands import NodeCommand
    from pals_grid.core.fleet import OperatingPoint
    from pals_grid.node.hardware import EngineUnit

    Replay = Callable[[NodeCommand], Energy]


def setting(found: OperatingPoint | None) -> tuple[float, int, float | None] | None:
    return (found.power_limit_w, found.max_num_seqs, found.sm_clock_mhz) if found else None


def test_the_best_of_a_tiny_table_is_found_by_hand() -> None:
    # tokens/J: 960/950 = 1.01 at 1000 MHz is the most; 980/1100 = 0.89 beats 1000/1400.
    assert setting(oracle.best_point(POINTS, 800.0)) == (400.0, 16, 1000.0)
    assert setting(oracle.best_point(POINTS, 970.0)) == (400.0, 16, 1200.0)
    assert setting(oracle.best_point(POINTS, 990.0)) == (400.0, 16, None)
    assert oracle.best_point(POINTS, 1001.0) is None


def plant(key: TableKey, loss_ratio: float) -> tuple[list[NodeCommand], Replay]:
    """A plant that serves less than its equations say, as one with slow dies does."""
    asked: list[NodeCommand] = []

    def replay(command: NodeCommand) -> Energy:
        asked.append(command)
        found = key.point(command.power_limit_w, command.max_num_seqs, command.sm_clock_mhz)
        served = found.tokens_per_s * (1 - loss_ratio)
        return Energy(10.0, 10 * served, 10 * found.gpu_power_w, 20 * found.gpu_power_w)

    return asked, replay


def test_the_saturated_oracle_meets_the_target_on_the_plant_and_not_much_more() -> None:
    key = TableKey(engines.named("deepseek"), 64, 200.0, 5.0, (1000.0,))
    most = key.point(400.0, 64).tokens_per_s
    asked, replay = plant(key, 0.03)
    command, found = oracle.saturated(key, 0.9 * most, replay)
    assert 0.9 * most <= found.tokens_per_s <= 0.92 * most
    assert command.max_num_seqs == 64
    full = key.point(400.0, 64)
    assert found.tokens / found.gpu_j > 1.1 * full.tokens_per_s * 0.97 / full.gpu_power_w
    assert len(asked) < 100


def test_an_impossible_target_gives_the_most_there_is() -> None:
    key = TableKey(engines.named("deepseek"), 8, 200.0, 5.0)
    most = key.point(400.0, 8).tokens_per_s
    _, replay = plant(key, 0.0)
    assert oracle.saturated(key, 2 * most, replay)[1].tokens_per_s >= 0.999 * most


def test_the_clairvoyant_raises_before_the_work_is_there(unit: EngineUnit) -> None:
    arrivals = [Request(10.0, 100, 4000), Request(11.0, 100, 4000)]
    strategy = oracle.Clairvoyant(POINTS, arrivals, 1.0)
    view = UnitObservation(tuple(g.observe() for g in unit.gpus), unit.engine.observe())
    envelope = ActiveEnvelope(1, 0.0, 1e6, 0.0, Reason.DEMAND)
    powers = []
    for _ in range(40):
        (decision,) = strategy.decide([view], envelope, NodePower(1.0, Origin.SIMULATED), 0.5)
        assert decision.command is not None
        powers.append((decision.command.power_limit_w, decision.command.sm_clock_mhz))
    idle, ready = (200.0, None), (400.0, None)
    # 8000 tokens come within 12 s of the start: a second before the first, all speed is needed.
    assert ready in powers[15:20]
    assert powers[-1] == idle
