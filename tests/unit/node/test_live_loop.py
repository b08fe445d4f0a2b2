"""Live grants in the loop: followed at the next tick, acknowledged once the devices took them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import NodeCommand
from pals_grid.core.grant import Grant
from pals_grid.core.site import Slo
from pals_grid.node import restore
from pals_grid.node.course import Course
from pals_grid.node.decision import Decision
from pals_grid.node.grants import GrantFile, LiveGrants
from pals_grid.node.loop import ControlLoop
from pals_grid.node.meter import RowMeter
from pals_grid.node.report import Mode
from pals_grid.node.restore import RestoreFile
from pals_grid.node.status import StatusBoard
from pals_grid.powermodel.overhead import NodeOverhead
from tests.unit.node.conftest import TargetLaw, make_rig, make_schedule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from pals_grid.core.ports import NodePower
    from pals_grid.node.observation import UnitObservation
    from pals_grid.node.report import ActiveEnvelope, TickReport
    from pals_grid.node.strategy import Strategy
    from pals_grid.wire.messages import EngineRow
    from tests.unit.node.conftest import Rig


@dataclass
class Live:
    """A rig whose loop follows grants; ``told`` is what was announced, and the limits then."""

    rig: Rig
    grants: LiveGrants
    board: StatusBoard
    told: list[tuple[ActiveEnvelope, float]]

    def give(self, sequence: int, power_w: float, lease_s: float = 20.0) -> None:
        grant = Grant(1, sequence, power_w, lease_s)
        assert self.grants.take(grant, self.rig.clock.monotonic_s())

    def tick(self) -> TickReport:
        return self.rig.run(tokens_per_s=1500.0)

    def acknowledged(self) -> tuple[int, int]:
        status = self.board.add(self.tick())
        return status.grant_epoch, status.grant_sequence


class Filling(TargetLaw):
    """All GPUs at the limit that fills the envelope."""

    def decide(
        self,
        seen: Sequence[UnitObservation],
        envelope: ActiveEnvelope,
        node_power: NodePower,
        dt_s: float,
    ) -> list[Decision]:
        del node_power, dt_s
        limit_w = NodeOverhead(100.0, 0.1).gpu_power_w(envelope.power_max_w) / 2
        return [Decision(0.0, NodeCommand(limit_w, 8, "filling")) for _ in seen]


def make_live(
    restore_path: Path | None = None, *, engines: int = 1, strategy: Strategy | None = None
) -> Live:
    rig = make_rig(engines=engines, envelope_w=(700.0,), tokens=1500.0)
    for gpu in rig.gpus:
        gpu.demand_w = 390.0
    grants = LiveGrants(GrantFile(None), rig.clock)
    told: list[tuple[ActiveEnvelope, float]] = []

    def announce(envelope: ActiveEnvelope, at: datetime) -> None:
        assert at == rig.clock.now()
        told.append((envelope, sum(gpu.limit_w for gpu in rig.gpus)))

    rig.loop = ControlLoop(
        rig.hardware,
        Course(rig.lease, rig.clock, grants, 960.0),
        rig.clock,
        Slo(),
        RestoreFile(restore_path),
        strategy=strategy,
        announce=announce,
    )
    return Live(rig, grants, StatusBoard(takes_grants=True), told)


def drawn_w(live: Live) -> float:
    for _ in range(8):
        live.tick()
    return live.tick().node_power.power_w


def test_a_grant_moves_what_the_node_draws_and_its_end_moves_it_back() -> None:
    live = make_live(strategy=Filling())
    assert drawn_w(live) == pytest.approx(700.0)
    live.give(1, 900.0)
    assert drawn_w(live) == pytest.approx(900.0)
    live.give(2, 400.0)
    assert drawn_w(live) == pytest.approx(400.0)
    live.rig.clock.step(20.0)
    live.rig.lease.store(make_schedule(700.0, 700.0))
    assert drawn_w(live) == pytest.approx(700.0)


def test_the_default_strategy_stays_inside_a_cut() -> None:
    live = make_live()
    assert drawn_w(live) > 400.0
    live.give(1, 360.0)
    assert drawn_w(live) <= 360.0


def test_rows_and_status_show_what_is_followed() -> None:
    live, meter = make_live(), RowMeter()
    live.give(1, 900.0, 60.0)
    rows: list[EngineRow] = []
    for _ in range(24):
        report = live.tick()
        rows += meter.add(report).engine_rows
        status = live.board.add(report)
    assert rows[-1].power_envelope_w == pytest.approx(900.0)
    assert rows[-1].ticks_over_envelope == 0
    assert (status.power_envelope_w, status.mode, status.envelope_version) == (
        900.0,
        Mode.FOLLOWING.value,
        1,
    )
    assert status.takes_grants


def test_a_grant_is_announced_before_it_is_written_and_acknowledged_after() -> None:
    live = make_live()
    assert live.acknowledged() == (0, 0)
    live.give(4, 400.0)
    limits_w = sum(gpu.limit_w for gpu in live.rig.gpus)
    assert live.acknowledged() == (1, 4)
    envelope, before_w = live.told[-1]
    assert (envelope.power_max_w, before_w) == (400.0, limits_w)
    assert sum(gpu.limit_w for gpu in live.rig.gpus) < limits_w
    live.rig.clock.step(60.0)
    assert live.acknowledged() == (1, 4)  # what the node has, also when it has ended


def test_what_a_device_refuses_is_not_acknowledged_until_it_takes_it() -> None:
    live = make_live()
    live.give(1, 690.0, 600.0)
    assert live.acknowledged() == (1, 1)
    live.rig.gpus[1].refuses = True
    live.give(2, 400.0, 600.0)
    assert [live.acknowledged() for _ in range(5)] == [(1, 1)] * 5
    live.rig.gpus[1].refuses = False
    live.rig.clock.step(60.0)
    assert live.acknowledged() == (1, 2)


def test_a_silent_engine_acknowledges_nothing_for_its_limits_stay() -> None:
    live = make_live(engines=2)
    live.acknowledged()
    live.rig.engines[0].dead = True
    for _ in range(12):
        live.tick()
    live.give(1, 1200.0, 600.0)
    assert live.acknowledged() == (0, 0)
    live.rig.engines[0].dead = False
    for _ in range(4):
        live.tick()
    assert live.acknowledged() == (1, 1)


def test_without_stored_originals_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    live = make_live(tmp_path / "original-limits.json")
    live.give(1, 400.0)
    with monkeypatch.context() as patch:
        patch.setattr(restore, "write_durably", full)
        assert live.acknowledged() == (0, 0)
    assert live.acknowledged() == (1, 1)


def test_a_node_without_grants_says_so() -> None:
    rig = make_rig()
    status = StatusBoard().add(rig.run())
    assert (status.takes_grants, status.grant_epoch, status.grant_sequence) == (False, 0, 0)
