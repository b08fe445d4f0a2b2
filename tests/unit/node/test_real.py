from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import ConfigurationError
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import PowerLimitRange
from pals_grid.core.site import Slo
from pals_grid.node import real
from pals_grid.node.fake import FakeGpu

if TYPE_CHECKING:
    from collections.abc import Callable

nvml = pytest.importorskip("pals_grid.node.nvml")


class NamedGpu(FakeGpu):
    energy_origin = Origin.MEASURED

    @property
    def model(self) -> str:
        return "NVIDIA A100-SXM4-80GB"


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def install(count: int) -> None:
        gpus = tuple(NamedGpu(f"g{i}", PowerLimitRange(100, 400, 400)) for i in range(count))
        monkeypatch.setattr(nvml, "open_gpus", lambda: gpus)

    return install


def test_gpus_without_an_engine_are_observed(with_gpus: Callable[[int], None]) -> None:
    with_gpus(2)
    node = real.build_real_node(None, None, Slo())
    assert [unit.table for unit in node.units] == [None, None]
    assert node.description == "2 x NVIDIA A100-SXM4-80GB"
    assert node.meter.observe_node_power(0.0).origin is Origin.MODELLED


def test_a_known_engine_gets_its_table(with_gpus: Callable[[int], None]) -> None:
    with_gpus(4)
    node = real.build_real_node("http://127.0.0.1:9", "Qwen/Qwen1.5-MoE-A2.7B", Slo())
    (unit,) = node.units
    assert unit.table is not None
    assert unit.table.gpu_count == 4
    unit.engine.close()  # type: ignore[attr-defined]


def test_an_unknown_engine_is_observed_and_told(
    with_gpus: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    with_gpus(4)
    node = real.build_real_node("http://127.0.0.1:9", "nobody/knows", Slo())
    assert node.units[0].table is None
    assert "nobody/knows" in caplog.text
    node.units[0].engine.close()  # type: ignore[attr-defined]


def test_what_is_missing_is_told(with_gpus: Callable[[int], None]) -> None:
    with_gpus(0)
    with pytest.raises(ConfigurationError, match="no GPU"):
        real.build_real_node(None, None, Slo())
    assert not real.can_open_gpus()
    with_gpus(1)
    assert real.can_open_gpus()
    with pytest.raises(ConfigurationError, match="engine_model"):
        real.build_real_node("http://127.0.0.1:9", None, Slo())
