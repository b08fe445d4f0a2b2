from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import ConfigurationError
from pals_grid.node.tables import use_table, use_tier

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.fleet import FrontierTable
    from tests.unit.node.conftest import Rig


def test_a_table_goes_to_the_engines_that_it_is_for(
    rig_of: Callable[..., Rig], table: FrontierTable
) -> None:
    fitted = replace(table, input_per_output=9.0, gpu_model="Fake")  # a kind named in part
    hardware = rig_of(engines=2).hardware
    assert [unit.table for unit in use_table(hardware, fitted).units] == [fitted, fitted]
    assert all(unit.table is not fitted for unit in hardware.units)


@pytest.mark.parametrize(
    "change", [{"gpu_model": "NVIDIA H100"}, {"gpu_count": 8}, {"model": "another/model"}]
)
def test_a_table_for_something_else_is_refused_with_both_named(
    rig_of: Callable[..., Rig], table: FrontierTable, change: dict[str, object]
) -> None:
    other = replace(table, **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as caught:
        use_table(rig_of().hardware, other)
    assert "frontier_table: must be for an engine of this node" in str(caught.value)
    assert "fake-model on 2 x Fake GPU" in str(caught.value)
    assert f"{other.model} on {other.gpu_count} x {other.gpu_model}" in str(caught.value)


def test_a_tier_is_every_engine_s(rig_of: Callable[..., Rig]) -> None:
    hardware = use_tier(rig_of(engines=2).hardware, 0.25)
    assert [unit.max_loss_ratio for unit in hardware.units] == [0.25, 0.25]


@pytest.mark.parametrize("ratio", [0.3, -0.1, 1.0, float("nan")])
def test_a_tier_that_does_not_exist_is_refused(rig_of: Callable[..., Rig], ratio: float) -> None:
    with pytest.raises(ConfigurationError, match="one of 0, 10, 25, 50 "):
        use_tier(rig_of().hardware, ratio)
