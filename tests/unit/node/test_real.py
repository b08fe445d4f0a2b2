from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import ConfigurationError, DeviceLost
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import PowerLimitRange
from pals_grid.core.site import Slo
from pals_grid.node import amd, intel, real
from pals_grid.node.fake import FakeGpu
from pals_grid.node.meters import ipmi, rapl
from pals_grid.node.meters.choose import MeterConfig
from pals_grid.node.meters.polled import PolledNodeMeter
from pals_grid.node.real import ServerConfig
from pals_grid.node.vllm.engine import VllmChannelEngine
from pals_grid.node.vllm.metrics import VllmMetricsEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

nvml = pytest.importorskip("pals_grid.node.nvml")


URL = "http://127.0.0.1:9"
MOE = "Qwen/Qwen1.5-MoE-A2.7B"


class NamedGpu(FakeGpu):
    energy_origin = Origin.MEASURED
    name = "NVIDIA A100-SXM4-80GB"
    is_mig = False
    mig_uuids: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        return self.name


def refuse() -> tuple[NamedGpu, ...]:
    raise DeviceLost("no driver")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[NamedGpu]:
    """What NVML shows; the other makers' drivers are not there."""
    found: list[NamedGpu] = []
    monkeypatch.setattr(nvml, "open_gpus", lambda: tuple(found))
    monkeypatch.setattr(amd, "open_gpus", refuse)
    monkeypatch.setattr(intel, "open_gpus", refuse)
    return found


@pytest.fixture
def with_gpus(gpus: list[NamedGpu]) -> Callable[[int], None]:
    def install(count: int) -> None:
        gpus[:] = [NamedGpu(f"g{i}", PowerLimitRange(100, 400, 400)) for i in range(count)]

    return install


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is asked here."""
    monkeypatch.setattr(VllmMetricsEngine, "start", lambda _: None)


def test_gpus_without_an_engine_are_observed(with_gpus: Callable[[int], None]) -> None:
    with_gpus(2)
    node = real.build_real_node(ServerConfig(), Slo())
    assert [unit.table for unit in node.units] == [None, None]
    assert node.description == "2 x NVIDIA A100-SXM4-80GB"
    assert node.meter.observe_node_power(0.0).origin is Origin.MODELLED


def test_a_known_engine_gets_its_table(with_gpus: Callable[[int], None]) -> None:
    with_gpus(4)
    node = real.build_real_node(ServerConfig("http://127.0.0.1:9", "Qwen/Qwen1.5-MoE-A2.7B"), Slo())
    (unit,) = node.units
    assert unit.table is not None
    assert unit.table.gpu_count == 4


def test_an_unknown_engine_is_observed_and_told(
    with_gpus: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    with_gpus(4)
    node = real.build_real_node(ServerConfig("http://127.0.0.1:9", "nobody/knows"), Slo())
    assert node.units[0].table is None
    assert "nobody/knows" in caplog.text


def test_a_channel_alone_is_an_engine(with_gpus: Callable[[int], None], tmp_path: Path) -> None:
    with_gpus(4)
    model = "Qwen/Qwen1.5-MoE-A2.7B"
    node = real.build_real_node(
        ServerConfig(None, model, channel=tmp_path / "channel", batch_mode="park"), Slo()
    )
    (unit,) = node.units
    assert unit.table is not None
    assert isinstance(unit.engine, VllmChannelEngine)
    assert "--scheduler-cls" in unit.engine.apply_max_num_seqs(8).detail
    with pytest.raises(ConfigurationError, match="engine_channel"):
        real.build_real_node(ServerConfig(channel=tmp_path / "channel"), Slo())


def test_what_is_missing_is_told(with_gpus: Callable[[int], None]) -> None:
    with_gpus(0)
    with pytest.raises(ConfigurationError, match="no GPU"):
        real.build_real_node(ServerConfig(), Slo())
    assert not real.can_open_gpus()
    with_gpus(1)
    assert real.can_open_gpus()
    with pytest.raises(ConfigurationError, match="engine_model"):
        real.build_real_node(ServerConfig("http://127.0.0.1:9", None), Slo())


def test_of_several_models_the_one_with_a_table_carries_the_engine(
    with_gpus: Callable[[int], None], gpus: list[NamedGpu], caplog: pytest.LogCaptureFixture
) -> None:
    with_gpus(6)
    for gpu in gpus[4:]:
        gpu.name = "NVIDIA L40S"
    node = real.build_real_node(ServerConfig(URL, MOE), Slo())
    served, *others = node.units
    assert [gpu.uuid for gpu in served.gpus] == ["g0", "g1", "g2", "g3"]
    assert served.table is not None
    assert [(unit.name, unit.table) for unit in others] == [("gpu-g4", None), ("gpu-g5", None)]
    assert node.description == "4 x NVIDIA A100-SXM4-80GB, 2 x NVIDIA L40S"
    assert "taken to run on the 4 x NVIDIA A100-SXM4-80GB" in caplog.text


def test_several_models_without_one_fitting_table_are_observed(
    with_gpus: Callable[[int], None], gpus: list[NamedGpu], caplog: pytest.LogCaptureFixture
) -> None:
    with_gpus(4)
    gpus[3].name = "NVIDIA L40S"
    (unit,) = real.build_real_node(ServerConfig(URL, MOE), Slo()).units
    assert (len(unit.gpus), unit.table) == (4, None)
    assert "--engine-gpu" in caplog.text


def test_the_engines_gpus_may_be_named(
    with_gpus: Callable[[int], None], gpus: list[NamedGpu]
) -> None:
    with_gpus(8)
    gpus[0].mig_uuids = ("MIG-a", "MIG-b")
    node = real.build_real_node(ServerConfig(URL, MOE, gpus=("g2", "g3", "g4", "g5")), Slo())
    assert [len(unit.gpus) for unit in node.units] == [4, 1, 1, 1, 1]
    assert node.units[0].table is not None
    with pytest.raises(ConfigurationError, match=r"engine_gpu: must be one of g0, .*, got 'g9'"):
        real.build_real_node(ServerConfig(URL, MOE, gpus=("g9",)), Slo())
    with pytest.raises(ConfigurationError, match="engine_gpu: must be given together"):
        real.build_real_node(ServerConfig(gpus=("g1",)), Slo())


def test_a_mig_instance_stands_for_its_parent_which_has_no_table(
    with_gpus: Callable[[int], None], gpus: list[NamedGpu], caplog: pytest.LogCaptureFixture
) -> None:
    with_gpus(4)
    gpus[1].is_mig, gpus[1].mig_uuids = True, ("MIG-a", "MIG-b")
    node = real.build_real_node(ServerConfig(URL, MOE, gpus=("MIG-b",)), Slo())
    assert [gpu.uuid for gpu in node.units[0].gpus] == ["g1"]
    assert node.units[0].table is None
    assert "g1 in MIG mode" in caplog.text
    assert node.description == "4 x NVIDIA A100-SXM4-80GB, 2 MIG instances"
    whole = real.build_real_node(ServerConfig(URL, MOE), Slo())
    assert whole.units[0].table is None  # four GPUs, but one of them is divided


def test_all_makers_that_answer_make_one_node(
    with_gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(1)
    other = NamedGpu("xe")
    other.name = "Intel GPU 8086:e20b"
    monkeypatch.setattr(intel, "open_gpus", lambda: (other,))
    assert [unit.name for unit in real.build_real_node(ServerConfig(), Slo()).units] == [
        "gpu-g0",
        "gpu-xe",
    ]
    (unit,) = real.build_real_node(ServerConfig(), Slo(), hardware="intel").units
    assert unit.name == "gpu-xe"
    with pytest.raises(DeviceLost):
        real.build_real_node(ServerConfig(), Slo(), hardware="amd")
    assert not real.can_open_gpus("amd")
    with pytest.raises(ConfigurationError, match="must be one of auto, nvml, amd, intel"):
        real.build_real_node(ServerConfig(), Slo(), hardware="tpu")


def test_the_models_coefficients_may_be_given(with_gpus: Callable[[int], None]) -> None:
    with_gpus(2)
    meter = MeterConfig("linear", base_w=333.0, per_gpu_w_ratio=0.2)
    node = real.build_real_node(ServerConfig(), Slo(), meter=meter)
    found = node.meter.observe_node_power(100.0)
    assert (found.power_w, found.source) == (333.0 + 120.0, "linear model")
    assert node.overhead.node_power_w(100.0) == found.power_w


def test_a_meter_that_answers_is_the_nodes(
    with_gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_gpus(1)
    monkeypatch.setattr(rapl, "ROOT", tmp_path)
    monkeypatch.setattr(ipmi, "find_ipmi", lambda: ipmi.IpmiSource(str(tmp_path / "none")))
    node = real.build_real_node(ServerConfig(), Slo(), meter=MeterConfig())
    assert isinstance(node.meter, PolledNodeMeter)
    node.meter.close()
    assert node.meter.observe_node_power(100.0).origin is Origin.MODELLED
