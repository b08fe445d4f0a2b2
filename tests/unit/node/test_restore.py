from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pals_grid.node import restore
from pals_grid.node.fake import FakeClockGpu, FakeGpu
from pals_grid.node.restore import RestoreFile

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_restored_limits_are_forgotten_only_when_proven(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    gpus = [FakeGpu("a", limit_w=350.0), FakeGpu("b", limit_w=300.0)]
    originals = RestoreFile(path)
    originals.remember({"a": 350.0, "b": 300.0})
    for gpu in gpus:
        gpu.apply_power_limit(150.0)
    gpus[1].refuses = True
    failures = RestoreFile(path).restore(gpus)
    assert gpus[0].limit_w == 350.0
    assert len(failures) == 1
    assert "GPU b" in failures[0]
    assert json.loads(path.read_bytes())["power_limit_w"] == {"b": 300.0}
    gpus[1].refuses = False
    assert RestoreFile(path).restore(gpus) == ()
    assert gpus[1].limit_w == 300.0
    assert not path.exists()


def test_what_a_crash_left_is_not_overwritten_by_the_limit_found_later(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    RestoreFile(path).remember({"a": 400.0})
    RestoreFile(path).remember({"a": 150.0, "b": 300.0})
    assert RestoreFile(path).pending == {"a": 400.0, "b": 300.0}


def test_a_disk_that_fails_stops_no_gpu_from_being_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "limits.json"
    originals = RestoreFile(path)
    originals.remember({"a": 350.0, "b": 300.0})
    gpus = [FakeGpu("a", limit_w=150.0), FakeGpu("b", limit_w=150.0)]

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(restore, "write_durably", full)
        failures = originals.restore(gpus)
    assert [gpu.limit_w for gpu in gpus] == [350.0, 300.0]
    assert [line.partition(": is restored")[0] for line in failures] == [
        "GPU a: original limit 350 W",
        "GPU b: original limit 300 W",
    ]
    assert RestoreFile(path).pending == {"a": 350.0, "b": 300.0}


def test_a_gpu_that_is_gone_keeps_its_entry(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    RestoreFile(path).remember({"a": 400.0})
    assert RestoreFile(path).restore([]) == ("GPU a: original limit 400 W: the GPU is not there",)
    lost = FakeGpu("a")
    lost.lost = True
    assert "cannot be read back" in RestoreFile(path).restore([lost])[0]
    assert path.exists()


def test_a_refused_write_of_a_limit_that_never_changed_is_no_failure_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "limits.json"
    RestoreFile(path).remember({"a": 350.0})
    gpu = FakeGpu("a", limit_w=350.0)
    gpu.refuses = True
    with caplog.at_level("INFO"):
        assert RestoreFile(path).restore([gpu]) == ()
    assert "stands at the original 350 W, nothing has to be restored" in caplog.text
    assert "(the write was refused: refused)" in caplog.text
    assert not path.exists()
    caplog.clear()
    RestoreFile(path).remember({"a": 350.0})
    gpu.refuses = False
    with caplog.at_level("INFO"):
        assert RestoreFile(path).restore([gpu]) == ()
    assert caplog.text == ""


def test_a_limit_that_reads_back_differently_is_not_proven(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    RestoreFile(path).remember({"a": 500.0})  # above what the device takes now
    failures = RestoreFile(path).restore([FakeGpu("a")])
    assert "reads back as 400 W" in failures[0]
    assert path.exists()


def test_a_corrupt_file_is_kept_aside_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "limits.json"
    for number, content in enumerate((b"{", b'{"power_limit_w": {"a": "x"}}'), start=1):
        path.write_bytes(content)
        assert RestoreFile(path).pending == {}
        assert (tmp_path / f"limits.json.corrupt-{number}").read_bytes() == content
    assert caplog.text.count("cannot be read") == 2


def test_a_record_of_version_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text('{"version":1,"power_limit_w":{"a":350.0}}')
    found = RestoreFile(path)
    assert (found.pending, found.pending_clocks) == ({"a": 350.0}, frozenset())
    found.remember({"b": 300.0}, ["b"])
    assert json.loads(path.read_bytes()) == {
        "version": 2,
        "power_limit_w": {"a": 350.0, "b": 300.0},
        "clocks_locked": ["b"],
    }


def test_locked_clocks_are_released_and_forgotten_only_then(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    gpus = [FakeClockGpu("a"), FakeClockGpu("b")]
    RestoreFile(path).remember({"a": 400.0, "b": 400.0}, ["a", "b"])
    for gpu in gpus:
        gpu.apply_clock_limit(900.0)
    gpus[1].clock_refuses = True
    assert RestoreFile(path).restore(gpus) == ("GPU b: SM clock lock: refused: refused",)
    assert [gpu.lock_mhz for gpu in gpus] == [None, 900.0]
    assert RestoreFile(path).pending_clocks == {"b"}
    assert RestoreFile(path).pending == {}
    gpus[1].clock_refuses = False
    assert RestoreFile(path).restore(gpus) == ()
    assert gpus[1].lock_mhz is None
    assert not path.exists()


def test_a_lock_on_a_gpu_that_is_gone_or_changed_keeps_its_entry(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    RestoreFile(path).remember({}, ["a", "b"])
    assert RestoreFile(path).restore([FakeGpu("a")]) == (
        "GPU a: SM clock lock: the GPU no longer offers it",
        "GPU b: SM clock lock: the GPU is not there",
    )
    assert RestoreFile(path).pending_clocks == {"a", "b"}


def test_a_lock_that_no_device_took_is_forgotten_but_not_one_left_over(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    RestoreFile(path).remember({"a": 400.0}, ["a"])
    originals = RestoreFile(path)
    originals.remember({}, ["b", "c"])
    originals.forget_clocks(["a", "b", "x"])
    assert RestoreFile(path).pending_clocks == {"a", "c"}
    assert originals.restore([FakeClockGpu("a"), FakeClockGpu("c")]) == ()
    originals.remember({}, ["a"])
    originals.forget_clocks(["a"])  # released since: what is left over is this run's
    assert not path.exists()


def test_a_disk_that_fails_stops_no_clock_from_being_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "limits.json"
    originals = RestoreFile(path)
    originals.remember({}, ["a"])
    gpu = FakeClockGpu("a")
    gpu.apply_clock_limit(900.0)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(restore, "remove_durably", full)
        assert "its entry stays" in originals.restore([gpu])[0]
    assert gpu.lock_mhz is None
    assert RestoreFile(path).pending_clocks == {"a"}
