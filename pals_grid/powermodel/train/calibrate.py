"""The whole fit of the plant, from a folder of published measurements to one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel import measured
from pals_grid.powermodel.fitted import FORMAT_VERSION, FittedPlant
from pals_grid.powermodel.train.calibrate_a100 import fit_a100
from pals_grid.powermodel.train.calibrate_levels import fit_levels
from pals_grid.powermodel.train.calibrate_links import fit_links

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = {
    "pals_author_a100": "github.com/mrhankendi/AI_LLM 96d22f4, moe_summary_tp4.xlsx; measured, "
    "power limits 100-400 W, no licence declared: fitted figures only",
    "mlenergy_v3": "github.com/ml-energy/leaderboard 0cd52da (Apache-2.0); measured, no limit",
    "mlenergy_v2": "github.com/ml-energy/leaderboard-v2 c3af7f3 (Apache-2.0); measured, no limit",
    "aiconfigurator_ops": "github.com/ai-dynamo/aiconfigurator 095f58a (Apache-2.0); measured "
    "collectives, half precision",
}


def calibrate(folder: Path) -> FittedPlant:
    """Fit everything; the same files give the same file.

    Raises:
        InvalidValue: when a file that the fit needs is missing or not what it should be.
    """
    for name in (measured.A100_TABLE, measured.V2_TABLE, measured.V3_TABLE, measured.NCCL_TABLE):
        if not (folder / name).is_file():
            raise InvalidValue("data", str(folder), f"must hold {name}")
    law, engines = fit_a100(measured.read_limits(folder / measured.A100_TABLE))
    groups_v3, trend_v3 = fit_levels(measured.read_v3(folder / measured.V3_TABLE))
    groups_v2, trend_v2 = fit_levels(measured.read_v2(folder / measured.V2_TABLE))
    collectives = measured.read_collectives(
        folder / measured.NCCL_TABLE, folder / measured.ALLREDUCE_TABLE
    )
    return FittedPlant(
        version=FORMAT_VERSION,
        sources=SOURCES,
        a100=law,
        engines=engines,
        groups=(*groups_v3, *groups_v2),
        trends=(trend_v3, trend_v2),
        links=fit_links(collectives),
    )
