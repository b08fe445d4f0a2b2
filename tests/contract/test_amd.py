"""AMD GPUs through a stand-in for ``amdsmi`` with the simulated plant below."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.commands import Outcome
from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission, DeviceUnsupported
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import ClockReason, PowerLimitRange
from pals_grid.node import amd
from pals_grid.sim.clock import SimClock
from pals_grid.sim.demo import demo_node
from tests.contract.fake_amdsmi import FakeAmdSmi

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.node.amd import AmdGpu


@pytest.fixture
def clock() -> SimClock:
    return SimClock(datetime(2026, 1, 5, 12, 0, tzinfo=UTC), 100.0)


@pytest.fixture
def smi(clock: SimClock) -> FakeAmdSmi:
    return FakeAmdSmi(demo_node(clock).gpus)


def open_first(smi: FakeAmdSmi, clock: SimClock) -> AmdGpu:
    return amd.open_gpus(smi, monotonic_s=clock.monotonic_s)[0]


@pytest.mark.parametrize("generation", ["mi300", "mi200"])
def test_gpus_are_read_in_watts_and_joules(
    smi: FakeAmdSmi, clock: SimClock, generation: str
) -> None:
    smi.generation = generation
    gpus = amd.open_gpus(smi, monotonic_s=clock.monotonic_s)
    assert [gpu.uuid for gpu in gpus] == [f"74a1ff-0000-{i}" for i in range(4)]
    assert gpus[0].limit_range == PowerLimitRange(100.0, 400.0, 400.0)
    clock.advance(30.0)
    first = gpus[0].observe()
    clock.advance(10.0)
    second = gpus[0].observe()
    true = smi.handles[0].gpu.observe()
    assert second.power_draw_w == pytest.approx(true.power_draw_w, abs=0.5)
    assert second.energy_j - first.energy_j == pytest.approx(10 * second.power_draw_w, rel=0.1)
    assert second.temperature_c == 40 + round(true.power_draw_w / 20)
    assert second.sm_clock_mhz == pytest.approx(true.sm_clock_mhz, abs=0.5)
    assert gpus[0].energy_origin is Origin.MEASURED


def test_a_cap_is_written_in_microwatts_and_read_back(smi: FakeAmdSmi, clock: SimClock) -> None:
    gpu = open_first(smi, clock)
    result = gpu.apply_power_limit(250.4)
    assert (result.outcome, result.read_back) == (Outcome.APPLIED, 250.0)
    assert smi.writes == [250_400_000]


def test_a_cap_at_work_is_told_as_the_reason(smi: FakeAmdSmi, clock: SimClock) -> None:
    gpu = open_first(smi, clock)
    clock.advance(30.0)
    assert gpu.observe().clock_reasons == ClockReason(0)  # nothing to compare with yet
    gpu.apply_power_limit(120.0)
    clock.advance(5.0)
    assert gpu.observe().clock_reasons == ClockReason.POWER_LIMIT
    smi.generation = "mi200"
    assert gpu.observe().clock_reasons == ClockReason.OTHER
    smi.fails_with["amdsmi_get_gpu_metrics_info"] = 2
    assert gpu.observe().clock_reasons is None


def test_without_a_counter_power_is_integrated_and_labelled(
    smi: FakeAmdSmi, clock: SimClock
) -> None:
    smi.fails_with["amdsmi_get_energy_count"] = 2
    gpu = open_first(smi, clock)
    assert gpu.energy_origin is Origin.MODELLED
    first = gpu.observe()
    clock.advance(2.0)
    second = gpu.observe()
    mean_w = (first.power_draw_w + second.power_draw_w) / 2
    assert second.energy_j - first.energy_j == pytest.approx(2 * mean_w)


@pytest.mark.parametrize("code", [*amd.ERROR_TYPES, 777])
def test_every_status_comes_out_as_one_typed_error(
    smi: FakeAmdSmi, clock: SimClock, code: int
) -> None:
    gpu = open_first(smi, clock)
    smi.fails_with["*"] = code
    with pytest.raises(DeviceError) as caught:
        gpu.observe()
    assert type(caught.value) is amd.ERROR_TYPES.get(code, DeviceError)
    assert f"status {code}" in str(caught.value)
    result = gpu.apply_power_limit(250.0)
    assert (result.outcome, result.read_back) == (Outcome.REFUSED, None)
    assert smi.writes == []


def test_the_statuses_mean_what_they_are_called() -> None:
    names = {
        10: DevicePermission,
        2: DeviceUnsupported,
        34: DeviceLost,
        31: DeviceLost,
        30: DeviceError,
        1: DeviceError,
    }
    assert {code: amd.ERROR_TYPES[code] for code in names} == names
    groups = [amd._UNSUPPORTED, amd._LOST, amd._OTHER, {10: "NO_PERM"}]
    assert sum(len(group) for group in groups) == len(amd.ERROR_TYPES)


def test_every_status_of_the_real_binding_is_known() -> None:
    wrapper = pytest.importorskip(
        "amdsmi.amdsmi_wrapper",
        reason="amdsmi with its library is not installed",
        exc_type=ImportError,
    )
    names = [name for name in dir(wrapper) if name.startswith("AMDSMI_STATUS_")]
    codes = {getattr(wrapper, name) for name in names} - {0}
    assert codes <= set(amd.ERROR_TYPES)


def test_a_lost_gpu_is_found_again_under_another_handle(smi: FakeAmdSmi, clock: SimClock) -> None:
    gpu = open_first(smi, clock)
    smi.fails_with["amdsmi_get_power_info"] = 31
    with pytest.raises(DeviceLost):
        gpu.observe()
    smi.fails_with.clear()
    smi.handles.reverse()
    clock.advance(5.0)
    assert gpu.observe().power_draw_w >= 0
    del smi.handles[-1]
    smi.fails_with["amdsmi_get_power_info"] = 31
    clock.advance(5.0)
    with pytest.raises(DeviceLost, match="is not among the 3 processors"):
        gpu.observe()


def test_partitions_without_a_cap_of_their_own_are_left_out(
    smi: FakeAmdSmi, clock: SimClock
) -> None:
    for handle in smi.handles[1:]:
        handle.is_partition = True
    assert len(amd.open_gpus(smi, monotonic_s=clock.monotonic_s)) == 1


def test_a_release_without_a_function_is_unsupported(smi: FakeAmdSmi, clock: SimClock) -> None:
    smi.missing.add("amdsmi_get_gpu_metrics_info")
    assert open_first(smi, clock).observe().clock_reasons is None
    smi.missing.add("amdsmi_get_power_info")
    with pytest.raises(DeviceUnsupported, match="does not have it"):
        open_first(smi, clock).observe()


def test_a_machine_without_the_binding_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(DeviceLost, match="amdsmi cannot be loaded"):
        amd.open_gpus()


def test_a_binding_without_its_library_says_so_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "amdsmi.py").write_text("print('Unable to find')\n{}['libamd_smi.so']\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    with pytest.raises(DeviceLost, match=r"libamd_smi\.so"):
        amd.load_amdsmi()
    assert capsys.readouterr().out == ""
