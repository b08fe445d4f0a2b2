from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pals_grid.core.budget import Reason
from pals_grid.node.lease import Lease
from pals_grid.node.report import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from pals_grid.wire.messages import EnvelopeSchedule

START_AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START_AT + timedelta(minutes=minutes)


def test_without_any_schedule_the_configured_limit_holds() -> None:
    envelope = Lease(None, 777.0).envelope_at(START_AT)
    assert (envelope.power_max_w, envelope.mode, envelope.version) == (777.0, Mode.SAFE, 0)


def test_intervals_are_half_open_and_end_in_the_schedules_safe_limit(
    schedule_of: Callable[..., EnvelopeSchedule],
) -> None:
    lease = Lease(None, 777.0)
    lease.store(schedule_of(2000.0, 1500.0))
    instants = (-0.01, 0, 0.999, 1, 1.999, 2)
    found = [lease.envelope_at(at(m)).power_max_w for m in instants]
    assert found == [900.0, 2000.0, 2000.0, 1500.0, 1500.0, 900.0]
    assert lease.envelope_at(at(1)).reason is Reason.DEMAND
    assert lease.envelope_at(at(2)).mode is Mode.SAFE


def test_a_restart_without_the_service_follows_the_schedule(
    tmp_path: Path, schedule_of: Callable[..., EnvelopeSchedule]
) -> None:
    path = tmp_path / "schedule.json"
    Lease(path, 777.0).store(schedule_of(2000.0, 1500.0, version=9))
    again = Lease(path, 777.0)
    assert again.version == 9
    assert again.envelope_at(at(1)).power_max_w == 1500.0
    assert [p.name for p in tmp_path.iterdir()] == ["schedule.json"]


def test_a_corrupt_file_is_kept_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "schedule.json"
    path.write_bytes(b'{"node_id": 1, "ver')
    assert Lease(path, 777.0).envelope_at(START_AT).power_max_w == 777.0
    assert (tmp_path / "schedule.json.corrupt-1").read_bytes() == b'{"node_id": 1, "ver'
    assert "cannot be read" in caplog.text
