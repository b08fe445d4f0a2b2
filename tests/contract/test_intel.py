"""Intel GPUs through a sysfs tree that the simulated plant drives."""

from __future__ import annotations

import errno
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission, DeviceUnsupported
from pals_grid.core.ports import ClockReason, PowerLimitRange
from pals_grid.node import intel
from pals_grid.node.intel import Sysfs
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import demo_node
from tests.contract.xe_tree import XeTree

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.node.intel import XeGpu


@pytest.fixture
def clock() -> SimClock:
    return SimClock(datetime(2026, 1, 5, 12, 0, tzinfo=UTC), 100.0)


@pytest.fixture
def tree(clock: SimClock, tmp_path: Path) -> XeTree:
    return XeTree(tmp_path, demo_node(clock).gpus)


def open_all(tree: Sysfs, clock: SimClock) -> tuple[XeGpu, ...]:
    return intel.open_gpus(tree, monotonic_s=clock.monotonic_s, wait=clock.advance)


def test_gpus_are_known_by_address_and_power_is_energy_by_time(
    tree: XeTree, clock: SimClock
) -> None:
    gpus = open_all(tree, clock)
    assert [gpu.uuid for gpu in gpus] == [f"XE-0000:{3 + i:02x}:00.0" for i in range(4)]
    assert gpus[0].model == "Intel GPU 8086:e20b"
    assert gpus[0].limit_range == PowerLimitRange(200.0, 400.0, 400.0)
    clock.advance(30.0)
    first = gpus[0].observe()
    clock.advance(0.5)
    second = gpus[0].observe()
    assert second.power_draw_w == pytest.approx((second.energy_j - first.energy_j) / 0.5, rel=1e-4)
    assert second.power_draw_w > 50
    again = gpus[0].observe()  # too soon for another figure
    assert again.power_draw_w == second.power_draw_w
    assert second.sm_clock_mhz is not None
    assert second.temperature_c is not None


def test_power_is_there_at_the_first_look(tree: XeTree, clock: SimClock) -> None:
    clock.advance(30.0)
    gpus = open_all(tree, clock)
    assert gpus[0].observe().power_draw_w > 50


def test_what_reads_back_in_register_steps_is_applied(tree: XeTree, clock: SimClock) -> None:
    gpu = open_all(tree, clock)[0]
    result = gpu.apply_power_limit(251.3)
    assert (result.outcome, result.read_back) == (Outcome.APPLIED, 251.25)


def test_a_limit_at_work_is_told_as_the_reason(tree: XeTree, clock: SimClock) -> None:
    gpu = open_all(tree, clock)[0]
    tree.gpus[0].apply_power_limit(120.0)
    clock.advance(30.0)
    gpu.observe()
    clock.advance(0.5)
    assert gpu.observe().clock_reasons == ClockReason.POWER_LIMIT


def test_a_write_without_the_right_is_refused(tree: XeTree, clock: SimClock) -> None:
    gpu = open_all(tree, clock)[0]
    tree.denied = True
    result = gpu.apply_power_limit(250.0)
    assert (result.outcome, result.read_back) == (Outcome.REFUSED, None)
    assert "power1_max" in result.detail


def test_a_limit_that_is_off_is_the_highest(tree: XeTree, clock: SimClock) -> None:
    class Off(XeTree):
        def refresh(self) -> None:
            super().refresh()
            self.put(0, "power1_max", 0)

    tree.__class__ = Off
    assert open_all(tree, clock)[0].observe().power_limit_w == 400.0


def test_hwmon_numbers_that_move_change_nothing(tree: XeTree, clock: SimClock) -> None:
    gpu = open_all(tree, clock)[1]
    tree.renumber()
    clock.advance(1.0)
    assert gpu.observe().power_draw_w >= 0
    assert gpu.apply_power_limit(300.0).outcome is Outcome.APPLIED
    assert tree.gpus[1].observe().power_limit_w == 300.0


def test_a_gpu_that_is_gone_is_lost(tree: XeTree, clock: SimClock) -> None:
    gpu = open_all(tree, clock)[1]
    shutil.rmtree(tree.hwmon(1))
    tree.gpus = tree.gpus[:1]
    with pytest.raises(DeviceLost, match=r"0000:04:00\.0"):
        gpu.observe()
    assert gpu.apply_power_limit(300.0).outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, DevicePermission),
        (errno.EPERM, DevicePermission),
        (errno.EOPNOTSUPP, DeviceUnsupported),
        (errno.ENODEV, DeviceLost),
        (errno.EIO, DeviceError),
        (errno.EINVAL, DeviceError),
    ],
)
def test_errors_come_out_typed(number: int, kind: type[DeviceError], tmp_path: Path) -> None:
    error = intel._typed(OSError(number, os.strerror(number)), tmp_path / "power1_max")
    assert type(error) is kind
    assert "power1_max" in str(error)


def test_a_file_without_a_number_is_told(tmp_path: Path) -> None:
    (tmp_path / "power1_max").write_text("off\n")
    with pytest.raises(DeviceError, match="must hold a whole number"):
        Sysfs(tmp_path).read(tmp_path / "power1_max")


def test_a_machine_without_such_gpus_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeviceLost, match="no GPU of the xe driver"):
        intel.open_gpus(Sysfs(tmp_path))


def test_a_gpu_without_a_limit_is_left_out(tree: XeTree, clock: SimClock) -> None:
    class Limitless(XeTree):
        def refresh(self) -> None:
            super().refresh()
            (self.hwmon(0) / "power1_max").unlink(missing_ok=True)

    tree.__class__ = Limitless
    tree.refresh()
    assert len(open_all(tree, clock)) == 3
