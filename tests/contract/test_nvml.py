"""NVML through the real binding, down to a shim of the library."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission, DeviceUnsupported
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import PowerLimitRange

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
nvml = pytest.importorskip("pals_grid.node.nvml")

if TYPE_CHECKING:
    import ctypes
    from pathlib import Path

FIRST = "GPU-11111111-0000-0000-0000-000000000000"


def codes() -> dict[str, int]:
    return {name: getattr(pynvml, name) for name in dir(pynvml) if name.startswith("NVML_ERROR_")}


@pytest.mark.parametrize("name", sorted(codes()))
def test_every_nvml_error_has_one_typed_error(name: str) -> None:
    code = codes()[name]
    assert code in nvml.ERROR_TYPES, f"{name} is not mapped"
    translated = nvml.translate(pynvml.NVMLError(code), "call")
    assert type(translated) is nvml.ERROR_TYPES[code]
    assert f"code {code}" in str(translated)


def test_every_error_class_of_the_binding_is_an_nvml_error_that_translates() -> None:
    classes = [item for name, item in vars(pynvml).items() if name.startswith("NVMLError_")]
    assert len(classes) == len(codes())
    for kind in classes:
        assert isinstance(nvml.translate(kind(), "call"), DeviceError)


def test_groups_do_not_overlap() -> None:
    groups = [nvml._UNSUPPORTED, nvml._LOST, nvml._OTHER, {pynvml.NVML_ERROR_NO_PERMISSION}]
    assert sum(len(group) for group in groups) == len(nvml.ERROR_TYPES) == len(codes())


def test_a_code_from_the_future_is_a_device_error() -> None:
    assert type(nvml.translate(pynvml.NVMLError(777), "call")) is DeviceError


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


@pytest.mark.parametrize("switch", ["no_instant", "no_instant_value"])
def test_boards_without_instant_power_give_the_average(shim: ctypes.CDLL, switch: str) -> None:
    getattr(shim, f"shim_{switch}")(0, 1)
    assert nvml.open_gpus()[0].observe().power_draw_w == 300.0


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


@pytest.mark.parametrize(
    ("code", "kind"),
    [(15, DeviceLost), (4, DevicePermission), (3, DeviceUnsupported), (999, DeviceError)],
)
def test_errors_come_out_typed(shim: ctypes.CDLL, code: int, kind: type[DeviceError]) -> None:
    gpu = nvml.open_gpus()[0]
    shim.shim_fails_with(0, code)
    with pytest.raises(kind) as caught:
        gpu.observe()
    assert type(caught.value) is kind


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
