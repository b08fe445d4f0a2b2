"""NVML through the real binding, down to a shim of the library."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError, DeviceLost
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import ClockLock, ClockRange, ClockReason, PowerLimitRange
from pals_grid.sim.clock import SimClock

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
nvml = pytest.importorskip("pals_grid.node.nvml")
nvml_call = pytest.importorskip("pals_grid.node.nvml_call")

if TYPE_CHECKING:
    from pathlib import Path

FIRST = "GPU-11111111-0000-0000-0000-000000000000"


def codes() -> dict[str, int]:
    return {name: getattr(pynvml, name) for name in dir(pynvml) if name.startswith("NVML_ERROR_")}


@pytest.mark.parametrize("name", sorted(codes()))
def test_every_nvml_error_has_one_typed_error(name: str) -> None:
    code = codes()[name]
    assert code in nvml_call.ERROR_TYPES, f"{name} is not mapped"
    translated = nvml_call.translate(pynvml.NVMLError(code), "call")
    assert type(translated) is nvml_call.ERROR_TYPES[code]
    assert f"code {code}" in str(translated)


def test_every_error_class_of_the_binding_is_an_nvml_error_that_translates() -> None:
    classes = [item for name, item in vars(pynvml).items() if name.startswith("NVMLError_")]
    assert len(classes) == len(codes())
    for kind in classes:
        assert isinstance(nvml_call.translate(kind(), "call"), DeviceError)


def test_groups_do_not_overlap() -> None:
    groups = [
        nvml_call.UNSUPPORTED,
        nvml_call.LOST,
        nvml_call.OTHER,
        {pynvml.NVML_ERROR_NO_PERMISSION},
    ]
    assert sum(len(group) for group in groups) == len(nvml_call.ERROR_TYPES) == len(codes())


def test_a_code_from_the_future_is_a_device_error() -> None:
    assert type(nvml_call.translate(pynvml.NVMLError(777), "call")) is DeviceError


def test_gpus_are_found_and_read(shim: ctypes.CDLL) -> None:
    gpus = nvml.open_gpus()
    assert [gpu.uuid[:12] for gpu in gpus] == ["GPU-11111111", "GPU-22222222"]
    assert gpus[0].model == "NVIDIA Shim 700W"
    assert gpus[0].limit_range == PowerLimitRange(200.0, 700.0, 700.0)
    sample = gpus[0].observe()
    assert (sample.power_draw_w, sample.energy_j, sample.power_limit_w) == (310.0, 5000.0, 700.0)
    assert (sample.temperature_c, sample.sm_clock_mhz) == (61.0, 1410.0)
    assert gpus[0].energy_origin is Origin.MEASURED
    nvml.close()
    assert shim.shim_get_limit(0) == 700000


@pytest.mark.parametrize(
    ("switches", "power_w"),
    [
        (["no_instant"], 300.0),  # no fields at all
        (["no_instant_value"], 305.0),
        (["no_instant_value", "no_average_value"], 300.0),
    ],
)
def test_boards_without_instant_power_give_the_average(
    shim: ctypes.CDLL, switches: list[str], power_w: float
) -> None:
    for switch in switches:
        getattr(shim, f"shim_{switch}")(0, 1)
    gpu = nvml.open_gpus()[0]
    assert [gpu.observe().power_draw_w for _ in range(2)] == [power_w, power_w]


def test_a_field_that_fails_for_once_is_asked_again(shim: ctypes.CDLL) -> None:
    gpu = nvml.open_gpus()[0]
    shim.shim_field_fails_with(0, 999)
    assert gpu.observe().power_draw_w == 300.0
    shim.shim_field_fails_with(0, 0)
    assert gpu.observe().power_draw_w == 310.0


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0, ClockReason(0)),
        (1, ClockReason.IDLE),
        (4, ClockReason.POWER_LIMIT),
        (2 | 32, ClockReason.CLOCK_LIMIT | ClockReason.THERMAL),
        (8 | 64 | 128, ClockReason.HARDWARE | ClockReason.THERMAL | ClockReason.POWER_BRAKE),
        (16, ClockReason.OTHER),
        (1 << 40 | 4, ClockReason.OTHER | ClockReason.POWER_LIMIT),
    ],
)
@pytest.mark.parametrize("old_driver", [0, 1])
def test_why_the_clock_is_low_is_told(
    shim: ctypes.CDLL, bits: int, reasons: ClockReason, old_driver: int
) -> None:
    shim.shim_no_event_reasons(0, old_driver)
    shim.shim_reasons(0, ctypes.c_ulonglong(bits))
    assert nvml.open_gpus()[0].observe().clock_reasons == reasons


def test_a_board_that_tells_no_reasons_is_asked_no_more(shim: ctypes.CDLL) -> None:
    shim.shim_no_event_reasons(0, 1)
    shim.shim_no_throttle_reasons(0, 1)
    gpu = nvml.open_gpus()[0]
    assert gpu.observe().clock_reasons is None
    before = shim.shim_get_calls()
    gpu.observe()
    first = shim.shim_get_calls() - before
    shim.shim_no_throttle_reasons(0, 0)
    assert gpu.observe().clock_reasons is None
    assert shim.shim_get_calls() - before == 2 * first


def test_without_a_counter_power_is_integrated_and_labelled(shim: ctypes.CDLL) -> None:
    shim.shim_no_energy(0, 1)
    nvml.open_gpus()
    seconds = iter([10.0, 12.0, 13.0])
    gpu = nvml.NvmlGpu(FIRST, monotonic_s=lambda: next(seconds))
    assert [gpu.observe().energy_j for _ in range(3)] == [0.0, 620.0, 930.0]
    assert gpu.energy_origin is Origin.MODELLED


def test_optional_readings_may_be_missing(shim: ctypes.CDLL) -> None:
    shim.shim_no_temperature(0, 1)
    assert nvml.open_gpus()[0].observe().temperature_c is None


def test_an_optional_reading_that_fails_for_once_costs_no_sample(shim: ctypes.CDLL) -> None:
    gpu = nvml.open_gpus()[0]
    shim.shim_no_temperature(0, 999)
    assert gpu.observe().temperature_c is None
    shim.shim_no_temperature(0, 0)
    assert gpu.observe().temperature_c == 61.0


def test_a_limit_is_judged_by_the_enforced_one(shim: ctypes.CDLL) -> None:
    gpu = nvml.open_gpus()[0]
    result = gpu.apply_power_limit(450.0)
    assert (result.outcome, result.read_back) == (Outcome.APPLIED, 450.0)
    assert shim.shim_get_limit(0) == 450000
    shim.shim_enforced_cap(0, 400000)  # the baseboard holds it lower
    result = gpu.apply_power_limit(450.0)
    assert (result.outcome, result.read_back) == (Outcome.CLAMPED, 400.0)
    shim.shim_enforced_cap(0, 10000000)
    result = gpu.apply_power_limit(100.0)
    assert (result.outcome, result.read_back) == (Outcome.CLAMPED, 200.0)


def test_a_write_without_the_right_is_refused_with_the_reason(shim: ctypes.CDLL) -> None:
    gpu = nvml.open_gpus()[0]
    shim.shim_denied(0, 1)
    result = gpu.apply_power_limit(450.0)
    assert result.outcome is Outcome.REFUSED
    assert "Insufficient Permissions" in result.detail
    assert shim.shim_get_limit(0) == 700000


def test_a_clock_is_locked_at_one_that_the_board_has(shim: ctypes.CDLL) -> None:
    gpu = nvml.open_gpus()[0]
    assert gpu.clock_range == ClockRange(345.0, 1980.0)
    result = gpu.apply_clock_limit(1207.0)
    assert (result.outcome, result.read_back) == (Outcome.APPLIED, 1200.0)
    assert (shim.shim_get_lock_low(0), shim.shim_get_lock_high(0)) == (345, 1200)
    assert gpu.observe().sm_clock_mhz == 1200.0
    assert (shim.shim_get_lock_high(1), shim.shim_get_limit(0)) == (0, 700000)
    result = gpu.apply_clock_limit(None)
    assert (result.outcome, result.read_back) == (Outcome.APPLIED, 1980.0)
    assert (shim.shim_get_lock_low(0), shim.shim_get_lock_high(0)) == (0, 0)


def test_a_lock_that_is_not_seen_to_hold_is_partial(shim: ctypes.CDLL) -> None:
    gpu = nvml.open_gpus()[0]
    shim.shim_sluggish(0, 1)
    result = gpu.apply_clock_limit(1200.0)
    assert (result.outcome, result.read_back) == (Outcome.PARTIAL, 1410.0)
    assert "still above" in result.detail
    shim.shim_no_clock_reading(0, 1)
    result = gpu.apply_clock_limit(1200.0)
    assert (result.outcome, result.read_back) == (Outcome.PARTIAL, None)
    assert shim.shim_get_lock_high(0) == 1200


@pytest.mark.parametrize("wanted_mhz", [1200.0, None])
def test_a_lock_without_the_right_is_refused_with_the_reason(
    shim: ctypes.CDLL, wanted_mhz: float | None
) -> None:
    gpu = nvml.open_gpus()[0]
    shim.shim_denied(0, 1)
    result = gpu.apply_clock_limit(wanted_mhz)
    assert result.outcome is Outcome.REFUSED
    assert "Insufficient Permissions" in result.detail
    assert shim.shim_get_lock_high(0) == 0


def test_a_board_that_tells_no_clocks_offers_no_lock(shim: ctypes.CDLL) -> None:
    shim.shim_no_clocks(0, 1)
    first, second = nvml.open_gpus()
    assert not isinstance(first, ClockLock)
    assert isinstance(second, ClockLock)


@pytest.mark.parametrize("name", sorted(codes()))
def test_every_code_of_the_library_comes_out_typed(shim: ctypes.CDLL, name: str) -> None:
    """Through the real binding: what the library returns, what the loop's reader catches."""
    gpu = nvml.open_gpus()[0]
    code = codes()[name]
    shim.shim_fails_with(0, code)
    with pytest.raises(DeviceError) as caught:
        gpu.observe()
    assert type(caught.value) is nvml_call.ERROR_TYPES[code]
    assert f"NVML code {code}" in str(caught.value)
    result = gpu.apply_power_limit(450.0)
    assert (result.outcome, result.read_back) == (Outcome.REFUSED, None)
    assert f"NVML code {code}" in result.detail
    assert gpu.apply_clock_limit(900.0).outcome is Outcome.REFUSED


def test_a_gpu_is_followed_by_uuid_when_indices_swap(shim: ctypes.CDLL) -> None:
    first = nvml.open_gpus()[0]
    shim.shim_swap_indices()
    assert [gpu.uuid[:12] for gpu in nvml.open_gpus()] == ["GPU-22222222", "GPU-11111111"]
    first.apply_power_limit(333.0)
    assert shim.shim_get_limit(0) == 333000


def test_a_reloaded_driver_is_found_again(shim: ctypes.CDLL) -> None:
    gpu = nvml.open_gpus()[0]
    shim.shim_drop_driver()
    assert gpu.observe().power_draw_w == 310.0


def test_a_gpu_that_comes_back_is_read_again(shim: ctypes.CDLL) -> None:
    gpu = nvml.open_gpus()[0]
    shim.shim_lost(0, 1)
    with pytest.raises(DeviceLost):
        gpu.observe()
    shim.shim_lost(0, 0)
    assert gpu.observe().power_draw_w == 310.0


@pytest.mark.skipif(sys.platform != "linux", reason="the search path is Linux's")
def test_the_library_is_found_by_the_loader(nvml_library: Path) -> None:
    """In a process of its own: the binding loads libnvidia-ml.so.1 by name."""
    code = (
        "import ctypes; ctypes.CDLL('libnvidia-ml.so.1').shim_reset();"
        "from pals_grid.node.nvml import open_gpus; print(len(open_gpus()))"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml_library.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2\n"


def test_a_gpu_that_cannot_be_opened_is_left_out(
    shim: ctypes.CDLL, caplog: pytest.LogCaptureFixture
) -> None:
    shim.shim_unopened(0, 15)
    assert [gpu.uuid[:12] for gpu in nvml.open_gpus()] == ["GPU-22222222"]
    assert "index 0 is left out" in caplog.text
    shim.shim_unopened(1, 8)
    with pytest.raises(DeviceLost):
        nvml.open_gpus()


def test_a_lost_gpu_is_looked_up_now_and_then_and_nvml_is_not_started_for_it(
    shim: ctypes.CDLL,
) -> None:
    nvml.open_gpus()
    clock = SimClock(datetime(2026, 1, 5, tzinfo=UTC), 100.0)
    gpu = nvml.open_gpu(FIRST, monotonic_s=clock.monotonic_s)
    starts = shim.shim_get_starts()
    shim.shim_lost(0, 1)
    for _ in range(40):
        with pytest.raises(DeviceLost):
            gpu.observe()
        clock.advance(0.5)
    assert shim.shim_get_starts() == starts
    shim.shim_lost(0, 0)
    shim.shim_drop_driver()  # it came back with another driver
    assert gpu.observe().power_draw_w == 310.0
    assert shim.shim_get_starts() == starts + 1
    shim.shim_drop_driver()
    with pytest.raises(DeviceLost):
        gpu.observe()
    clock.advance(5.0)
    assert gpu.observe().power_draw_w == 310.0


def test_mig_instances_belong_to_their_parent(shim: ctypes.CDLL) -> None:
    shim.shim_mig(0, 1)
    shim.shim_instances(0, 3)
    shim.shim_mig(1, -1)  # a board that cannot do it
    first, second = nvml.open_gpus()
    assert (first.is_mig, first.mig_uuids) == (True, ("MIG-0-0", "MIG-0-1", "MIG-0-2"))
    assert (second.is_mig, second.mig_uuids) == (False, ())
    instance = nvml.open_gpu("MIG-0-2")
    assert instance.uuid == first.uuid == FIRST
    assert instance.observe().power_draw_w == 310.0
    assert instance.apply_power_limit(400.0).read_back == 400.0
    assert shim.shim_get_limit(0) == 400000
    with pytest.raises(DeviceLost):
        nvml.open_gpu("MIG-0-3")


def test_a_board_in_mig_mode_without_instances_is_one_all_the_same(shim: ctypes.CDLL) -> None:
    shim.shim_mig(0, 1)
    assert (nvml.open_gpus()[0].is_mig, nvml.open_gpus()[0].mig_uuids) == (True, ())


def test_gpus_of_several_models_stand_side_by_side(shim: ctypes.CDLL) -> None:
    shim.shim_name(1, b"NVIDIA Shim 400W")
    shim.shim_high(1, 400000)
    first, second = nvml.open_gpus()
    assert (first.model, first.limit_range.max_w) == ("NVIDIA Shim 700W", 700.0)
    assert (second.model, second.limit_range.max_w) == ("NVIDIA Shim 400W", 400.0)


def test_reading_writes_nothing(shim: ctypes.CDLL) -> None:
    for gpu in nvml.open_gpus():
        gpu.observe()
    assert shim.shim_get_writes() == 0
