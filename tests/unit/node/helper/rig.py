"""A helper in a test's hands: fake GPUs whose limits live in files, a clock that is set."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.node.fake import FakeClockGpu, FakeGpu
from pals_grid.node.helper.bounds import Bounds
from pals_grid.node.helper.keeper import Keeper, KeeperOptions
from pals_grid.node.helper.leases import LeaseFile
from pals_grid.node.helper.messages import Beat, Hold
from pals_grid.node.restore import RestoreFile
from tests.unit.node.conftest import START_AT, StepClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

ORIGINALS = {"a": 350.0, "b": 300.0}


def hold(start_s: float, end_s: float, limit_w: float = 200.0) -> Hold:
    return Hold(
        start_at=START_AT + timedelta(seconds=start_s),
        end_at=START_AT + timedelta(seconds=end_s),
        limit_w=limit_w,
    )


def beat(*holds: Hold, safe_w: float | None = None, lease_s: float | None = None) -> Beat:
    until = None if lease_s is None else START_AT + timedelta(seconds=lease_s)
    return Beat(uuids=["a", "b"], holds=list(holds), safe_limit_w=safe_w, lease_until=until)


class HelperRig:
    """GPUs ``a`` (its clock can be locked) and ``b``; found at 350 and 300 W, of 100 to 400."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = StepClock()
        self.boot_id = "first"
        self.bounds = Bounds()
        self.a = FakeClockGpu("a", path=folder / "a.limit")
        self.b = FakeGpu("b", path=folder / "b.limit")
        self.a.limit_w, self.b.limit_w = 350.0, 300.0
        self.keeper = self.start()

    def start(self) -> Keeper:
        """Start a helper, as after a crash of the one before: only the disk is left of that."""
        self.keeper = Keeper(
            [self.a, self.b],
            RestoreFile(self.folder / "original-limits.json"),
            LeaseFile(self.folder / "leases.json"),
            self.clock,
            KeeperOptions(self.boot_id, self.bounds, grace_s=10.0, silent_s=10.0),
        )
        return self.keeper

    def reboot(self) -> Keeper:
        """Lose the driver's limits, then start."""
        self.boot_id += "+"
        self.a.limit_w, self.b.limit_w = 400.0, 400.0
        self.a.lock_mhz = None
        return self.start()

    def steer(self, *limits_w: float, beat: Beat) -> None:
        self.keeper.take("agent")
        self.keeper.beat(beat)
        for gpu, limit_w in zip((self.a, self.b), limits_w, strict=True):
            self.keeper.set_power_limit(gpu.uuid, limit_w)
        self.keeper.beat(beat)

    def wait(self, seconds: float) -> tuple[float, float]:
        """Let time pass, looking every half second; returns the limits after it."""
        for _ in range(round(seconds / 0.5)):
            self.clock.step(0.5)
            self.keeper.look()
        return self.limits_w

    @property
    def limits_w(self) -> tuple[float, float]:
        return self.a.limit_w, self.b.limit_w

    @property
    def journal(self) -> dict[str, float]:
        path = self.folder / "original-limits.json"
        found: dict[str, float] = (
            json.loads(path.read_bytes())["power_limit_w"] if path.exists() else {}
        )
        return found


def audit_lines(caplog: pytest.LogCaptureFixture) -> Sequence[dict[str, object]]:
    return [json.loads(r.getMessage()) for r in caplog.records if r.name == "pals_grid.audit"]


def record_audit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pals_grid.audit")
