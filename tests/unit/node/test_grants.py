from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.grant import Grant
from pals_grid.node import files, grants
from pals_grid.node.grants import GrantFile, LiveGrants
from tests.unit.node.conftest import StepClock

if TYPE_CHECKING:
    from pathlib import Path

SCHEDULED_W = 1000.0


def grant(sequence: int, power_w: float = 700.0, lease_s: float = 60.0) -> Grant:
    return Grant(1, sequence, power_w, lease_s)


class Disk:
    """What reaches the disk: ``writes`` are counted, ``error`` fails them, ``slow_s`` passes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "grant.json"
        self.clock = StepClock()
        self.writes = 0
        self.error: OSError | None = None
        self.slow_s = 0.0
        monkeypatch.setattr(grants, "write_durably", self._write)

    def live(self) -> LiveGrants:
        """As an agent that has just started."""
        return LiveGrants(GrantFile(self.path), self.clock)

    def _write(self, path: Path, content: bytes) -> None:
        self.writes += 1
        self.clock.step(self.slow_s)
        if self.error is not None:
            raise self.error
        files.write_durably(path, content)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


def power_w(live: LiveGrants, disk: Disk) -> float:
    held = live.held
    now_s = disk.clock.monotonic_s()
    return held.power_w_at(now_s, SCHEDULED_W) if held is not None else SCHEDULED_W


def test_a_grant_counts_once_content_and_name_are_on_the_disk(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = disk.live()
    seen: list[object] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((live.held, disk.path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert live.take(grant(1), disk.clock.monotonic_s())
    assert seen == [(None, False), (None, True)]  # the file, then its folder
    assert power_w(live, disk) == 700.0
    assert [path.name for path in disk.path.parent.iterdir()] == ["grant.json"]


def test_a_disk_that_fails_takes_no_grant_says_so_once_and_serving_goes_on(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    live = disk.live()
    assert live.take(grant(1), disk.clock.monotonic_s())
    disk.error = OSError("No space left on device")
    for sequence in (2, 3, 3):
        assert not live.take(grant(sequence, 1500.0), disk.clock.monotonic_s())
    assert live.held is not None
    assert live.held.grant.sequence == 1
    assert power_w(live, disk) == 700.0
    assert caplog.text.count("No space left") == 1
    disk.error = None
    assert live.take(grant(3, 1500.0), disk.clock.monotonic_s())
    assert live.take(grant(4, 1500.0), disk.clock.monotonic_s())
    assert caplog.text.count("stored and taken again") == 1
    assert disk.live().held is not None


def test_the_same_grant_again_is_not_written_again_but_for_a_longer_lease(disk: Disk) -> None:
    live = disk.live()
    asked_s = disk.clock.monotonic_s()
    for lease_s in (60.0, 59.0, 58.5):
        assert live.take(grant(1, lease_s=lease_s), disk.clock.monotonic_s())
        disk.clock.step(1.0)
    assert disk.writes == 1
    assert live.held is not None
    assert live.held.end_s == pytest.approx(asked_s + 60.5)
    assert live.take(grant(1, lease_s=61.0), disk.clock.monotonic_s())
    assert disk.writes == 2
    assert not live.take(grant(0), disk.clock.monotonic_s())
    assert disk.writes == 2


def test_after_a_restart_what_was_stored_lowers_for_no_less_than_its_lease(disk: Disk) -> None:
    live = disk.live()
    for lease_s in (60.0, 50.0, 40.0):  # handed out again and again while it runs out
        live.take(grant(1, lease_s=lease_s), disk.clock.monotonic_s())
        disk.clock.step(10.0)
    assert live.held is not None
    again = disk.live()
    assert again.held is not None
    assert again.held.grant == grant(1)
    assert again.held.end_s >= live.held.end_s
    assert power_w(again, disk) == 700.0
    disk.clock.step(60.0)
    assert power_w(again, disk) == SCHEDULED_W


def test_after_a_restart_a_raise_is_the_schedule(disk: Disk) -> None:
    disk.live().take(grant(1, 1500.0), disk.clock.monotonic_s())
    again = disk.live()
    assert power_w(again, disk) == SCHEDULED_W
    assert again.take(grant(1, 1500.0, 20.0), disk.clock.monotonic_s())
    assert power_w(again, disk) == SCHEDULED_W
    assert again.take(grant(2, 1500.0, 20.0), disk.clock.monotonic_s())
    assert power_w(again, disk) == 1500.0


def test_an_answer_that_is_too_old_is_not_stored(disk: Disk) -> None:
    live = disk.live()
    assert not live.take(grant(1), disk.clock.monotonic_s() - 5.1)
    assert (live.held, disk.writes) == (None, 0)


def test_a_slow_disk_lengthens_no_lease(disk: Disk) -> None:
    live = disk.live()
    asked_s = disk.clock.monotonic_s()
    disk.slow_s = 30.0
    assert live.take(grant(1, 1500.0, 20.0), asked_s)
    assert live.held is not None
    assert live.held.end_s == asked_s + 20.0
    assert power_w(live, disk) == SCHEDULED_W


def test_the_wall_clock_does_not_matter(disk: Disk) -> None:
    live = disk.live()
    live.take(grant(1), disk.clock.monotonic_s())
    for days in (400, -800):
        disk.clock.at = disk.clock.at.replace(year=disk.clock.at.year + days // 365)
        assert power_w(live, disk) == 700.0
    disk.clock.step(60.0)
    assert power_w(live, disk) == SCHEDULED_W


@pytest.mark.parametrize("content", [b"", b'{"epoch":1,"sequ', b'{"epoch":-1}', b"[]"])
def test_a_file_that_cannot_be_read_is_kept_and_told(
    disk: Disk, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    disk.path.write_bytes(content)
    live = disk.live()
    assert live.held is None
    assert disk.path.with_name("grant.json.corrupt-1").read_bytes() == content
    assert "cannot be read" in caplog.text
    assert live.take(grant(1), disk.clock.monotonic_s())


def test_in_memory_it_is_the_same() -> None:
    clock, file = StepClock(), GrantFile(None)
    assert LiveGrants(file, clock).take(grant(5), clock.monotonic_s())
    again = LiveGrants(file, clock)
    assert again.held is not None
    assert again.held.only_lowers
