"""A unit of four fake GPUs with a small table, and its observation."""

from __future__ import annotations

import pytest

from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.node.fake import FakeEngine, FakeGpu
from pals_grid.node.hardware import EngineUnit


def point(
    limit_w: float, batch: int, tokens_per_s: float, power_w: float, mhz: float | None = None
) -> OperatingPoint:
    return OperatingPoint(limit_w, batch, tokens_per_s, power_w, 0.1, 0.02, mhz)


POINTS = (
    point(200.0, 8, 300.0, 600.0),
    point(400.0, 8, 400.0, 1000.0),
    point(200.0, 16, 500.0, 700.0),
    point(300.0, 16, 900.0, 1000.0),
    point(400.0, 16, 1000.0, 1400.0),
    point(400.0, 16, 980.0, 1100.0, 1200.0),
    point(400.0, 16, 960.0, 950.0, 1000.0),
    point(400.0, 16, 700.0, 800.0, 700.0),
)


@pytest.fixture
def unit() -> EngineUnit:
    table = FrontierTable("Fake", 4, "m", 5.0, Origin.MODELLED, POINTS)
    gpus = tuple(FakeGpu(f"GPU-{i}") for i in range(4))
    return EngineUnit("e", FakeEngine(), gpus, table)
