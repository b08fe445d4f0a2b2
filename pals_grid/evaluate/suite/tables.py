"""Tables: what the controllers may know of a plant, and what the oracle knows of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from pals_grid.core.fleet import FrontierTable, Origin
from pals_grid.node.hardware import EngineUnit
from pals_grid.node.profiling import profile_unit
from pals_grid.powermodel.overhead import FOUR_A100
from pals_grid.powermodel.sampling import Cell
from pals_grid.powermodel.table import operating_point
from pals_grid.sim.arrivals import saturating
from pals_grid.sim.clock import SimClock
from pals_grid.sim.plant import NodeSpec, SimNode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pals_grid.core.fleet import OperatingPoint
    from pals_grid.powermodel.physics import EngineModel
    from pals_grid.powermodel.profile import ProfileRow

PROFILE_SEED = 990_001
"""Of the node that is profiled; no node of a run has this seed."""

SHORT_TOKENS = 16
SETTLE_S, MEASURE_S = 2.0, 8.0
LONG_SETTLE_S, LONG_MEASURE_S = 10.0, 30.0
"""Requests that last for seconds need longer, with lengths that vary."""

START_AT = datetime(2026, 1, 1, tzinfo=UTC)

LIMIT_STEPS = 12
"""A profile sweeps 13 limits over the device's range (A100: 25 W apart)."""


@dataclass(frozen=True)
class TableKey:
    """An engine under one workload: what a profile is made for.

    ``sm_clocks_mhz`` are the clocks beside the free one.
    """

    engine: EngineModel
    max_num_seqs: int
    tokens_in: float
    tokens_out: float
    sm_clocks_mhz: tuple[float, ...] = ()

    @property
    def batches(self) -> tuple[int, ...]:
        """Powers of two, and the most there may be."""
        powers = {2**k for k in range(self.max_num_seqs.bit_length())}
        return tuple(sorted(powers | {self.max_num_seqs}))

    @property
    def limits_w(self) -> tuple[float, ...]:
        """Limits of the sweep."""
        return spread(self.engine, LIMIT_STEPS)

    def point(
        self, power_limit_w: float, max_num_seqs: int, sm_clock_mhz: float | None = None
    ) -> OperatingPoint:
        """One point of the plant's own equations, for nominal dies."""
        return operating_point(
            self.engine,
            power_limit_w,
            max_num_seqs,
            self.tokens_in,
            self.tokens_out,
            sm_clock_mhz=sm_clock_mhz,
        )

    @property
    def name(self) -> str:
        """A file name of its own."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:24]


def spread(engine: EngineModel, steps: int) -> tuple[float, ...]:
    """Limits over the device's range, its ends included."""
    low_w, high_w = engine.limit_range.min_w, engine.limit_range.max_w
    return tuple(low_w + (high_w - low_w) * i / steps for i in range(steps + 1))


def controller_table(key: TableKey, scratch: Path) -> FrontierTable:
    """The controller's table, made once per run of the suite and kept in ``scratch``."""
    path = scratch / f"table-{key.name}.json"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(msgspec.json.encode(profiled_table(key)))
        part.replace(path)
    return _load(path)


@lru_cache(maxsize=64)
def _load(path: Path) -> FrontierTable:
    return msgspec.json.decode(path.read_bytes(), type=FrontierTable)


def profiled_table(key: TableKey) -> FrontierTable:
    """Profile a node of the same kind, with other dies and noise, and fit the table to that.

    What ``pals-grid profile run`` and ``profile fit`` do on a live node: every limit and batch
    with a free clock, every clock at the highest limit; the fit fills in the rest.
    """
    from pals_grid.powermodel.train.frontier import fit_frontier  # noqa: PLC0415 - heavy, rare

    return fit_frontier(
        profile_rows(key),
        power_limits_w=key.limits_w,
        max_num_seqs=key.batches,
        sm_clocks_mhz=(None, *key.sm_clocks_mhz),
    )


def profile_rows(key: TableKey) -> list[ProfileRow]:
    """The rows of the profile, by the production code, in simulated time."""
    clock = SimClock(START_AT)
    engine = key.engine
    spec = NodeSpec(
        name="profile",
        gpu_model=engine.gpu_model,
        model=engine.model,
        gpu_count=engine.gpu_count,
        overhead=FOUR_A100,
        max_num_seqs=key.max_num_seqs,
        engine=engine,
    )
    short = key.tokens_out <= SHORT_TOKENS
    load = saturating(key.tokens_in, key.tokens_out, waiting=8, varied=not short)
    node = SimNode(clock, spec, load, PROFILE_SEED)
    unit = EngineUnit("profile", node.engine, node.gpus, None, Origin.SIMULATED)
    cells = [Cell(limit_w, batch) for batch in key.batches for limit_w in key.limits_w[::-1]]
    cells += [
        Cell(key.limits_w[-1], batch, clock_mhz)
        for batch in key.batches
        for clock_mhz in key.sm_clocks_mhz[::-1]
    ]
    return list(
        profile_unit(
            unit,
            cells,
            clock=clock,
            wait=clock.advance,
            input_per_output=key.tokens_in / key.tokens_out,
            settle_s=SETTLE_S if short else LONG_SETTLE_S,
            measure_s=MEASURE_S if short else LONG_MEASURE_S,
        )
    )


def true_points(
    key: TableKey, limits_w: Sequence[float], sm_clocks_mhz: Sequence[float | None]
) -> tuple[OperatingPoint, ...]:
    """Points of the plant's own equations, for nominal dies: the oracle's knowledge."""
    return tuple(
        key.point(limit_w, batch, clock)
        for clock in sm_clocks_mhz
        for limit_w in limits_w
        for batch in key.batches
    )
