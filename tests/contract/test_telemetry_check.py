"""The check that `make test-gpu` makes, over the NVML shim and the simulated plant below it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.node.fake import FakeGpu
from pals_grid.node.telemetry_check import MARKDOWN_HEAD, check_telemetry
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import demo_node
from tests.contract.nvml_plant import NvmlPlant
from tests.gpu.test_telemetry import forbid_writes

nvml = pytest.importorskip("pals_grid.node.nvml", reason="nvidia-ml-py is not installed")
nvml_call = pytest.importorskip("pals_grid.node.nvml_call")

if TYPE_CHECKING:
    import ctypes

    from pals_grid.node.telemetry_check import TelemetryCheck


def check(gpu: FakeGpu, clock: SimClock) -> TelemetryCheck:
    return check_telemetry(
        gpu, 60.0, monotonic_s=clock.monotonic_s, wait=clock.advance, cpu_s=lambda: 0.0
    )


@pytest.fixture
def clock() -> SimClock:
    return SimClock(datetime(2026, 1, 5, 12, 0, tzinfo=UTC), 100.0)


def test_power_adds_up_to_the_counter_and_nothing_is_written(
    shim: ctypes.CDLL, clock: SimClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = NvmlPlant(shim, demo_node(clock).gpus)
    forbid_writes(nvml_call.pynvml, monkeypatch)
    gpu = nvml.open_gpus(monotonic_s=clock.monotonic_s)[0]
    clock.advance(30.0)
    found = check(gpu, clock)
    assert found.ratio == pytest.approx(1.0, abs=0.02)
    assert (found.looks, round(found.seconds)) == (601, 60)
    assert 100 < found.power_mean_w < 400
    assert found.sm_clock_mean_mhz is not None
    assert shim.shim_get_writes() == 0
    assert found.as_json()["uuid"] == gpu.uuid
    cells = [len(line.split("|")) for line in (*MARKDOWN_HEAD.split("\n"), found.as_markdown())]
    assert cells == [10, 10, 10]
    with pytest.raises(AssertionError, match="nvmlDeviceSetPowerManagementLimit"):
        gpu.apply_power_limit(300.0)
    with pytest.raises(AssertionError, match="nvmlDeviceResetGpuLockedClocks"):
        gpu.apply_clock_limit(None)
    assert shim.shim_get_writes() == 0
    del plant


class Lying(FakeGpu):
    """Draws a tenth more than it shows."""

    def run(self, seconds: float) -> None:
        super().run(1.1 * seconds)


def test_a_gpu_whose_power_is_not_its_energy_is_found_out(clock: SimClock) -> None:
    gpu = Lying()

    def wait(seconds: float) -> None:
        clock.advance(seconds)
        gpu.run(seconds)

    found = check_telemetry(gpu, 60.0, monotonic_s=clock.monotonic_s, wait=wait)
    assert found.ratio == pytest.approx(1 / 1.1)


def test_a_counter_that_stands_still_is_told(clock: SimClock) -> None:
    with pytest.raises(InvalidValue, match="counter_j: must have risen"):
        check(FakeGpu(), clock)
    with pytest.raises(InvalidValue, match="seconds"):
        check_telemetry(FakeGpu(), 0.01)
