"""Slots of a backtest against the simulated node: the same throughput under the production loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pals_grid.core.units import J_PER_KWH
from pals_grid.counterfactual.plant import frontier_table
from pals_grid.evaluate.backtest import names
from pals_grid.evaluate.suite.drive import EngineSetup, NodeRun, Slot
from pals_grid.evaluate.suite.strategies import OURS, STATIC_MAX, maker
from pals_grid.powermodel.coefficients import engine_model
from pals_grid.powermodel.gpu_kinds import gpu_kind
from pals_grid.sim.arrivals import RateWindow, envelope

if TYPE_CHECKING:
    import numpy.typing as npt

    from pals_grid.evaluate.backtest.config import SiteFile
    from pals_grid.evaluate.backtest.world import World

    Floats = npt.NDArray[np.float64]

STRATEGIES = {names.NO_CONTROL: STATIC_MAX, names.PLANNER: OURS}
WINDOW_S = 300.0


@dataclass(frozen=True, slots=True)
class Check:
    """One node's hours: the slot model beside the simulated loop, the first slot left out.

    Energies are at node boundary; ``tokens_ratio`` is simulated over asked.
    """

    site: str
    policy: str
    hours: float
    modelled_kwh: float
    simulated_kwh: float
    tokens_ratio: float

    @property
    def error_ratio(self) -> float:
        """The model's energy less the simulated one, over the simulated one."""
        return self.modelled_kwh / self.simulated_kwh - 1

    def to_json(self) -> dict[str, object]:
        """Plain values; units are in the names."""
        return {
            "site": self.site,
            "policy": self.policy,
            "hours": self.hours,
            "modelled_kwh": self.modelled_kwh,
            "simulated_kwh": self.simulated_kwh,
            "error_ratio": self.error_ratio,
            "tokens_ratio": self.tokens_ratio,
        }


def check_slots(world: World, policy: str, tokens_per_s: Floats) -> Check:
    """Serve a site's slots with one node of its first kind, loaded in proportion to the site.

    Requests are synthetic (Poisson, log-normal lengths) at the rate that the slot serves. The
    node's envelope is its own most: what is checked is the power of a throughput.
    """
    kind, slot_s = world.plant.kinds[0], world.grid.slot_s
    if policy == names.NO_CONTROL:
        whole, line = world.plant.static_lines[-1], kind.lines[-1]
        rates = tokens_per_s / whole.max_tokens_per_s * line.tokens_per_s[-1]
        modelled_w = line.draw_w(rates)
    else:
        curve = kind.curve
        rates = tokens_per_s / world.plant.curve.max_tokens_per_s * curve.max_tokens_per_s
        modelled_w = np.interp(rates, curve.tokens_per_s, curve.power_w)
    run = _node_run(world.site, policy, rates, slot_s)
    end_s = len(rates) * slot_s
    run.grant([Slot(0.0, end_s + slot_s, kind.power_max_w, float(rates.max()))])
    run.run_until(slot_s)
    first = run.ticks[-1]
    run.run_until(end_s)
    last = run.ticks[-1]
    return Check(
        site=world.policy.name,
        policy=policy,
        hours=(len(rates) - 1) * slot_s / 3600,
        modelled_kwh=float(modelled_w[1:].sum()) * slot_s / J_PER_KWH,
        simulated_kwh=(last.node_j - first.node_j) / J_PER_KWH,
        tokens_ratio=(last.tokens_out - first.tokens_out) / (float(rates[1:].sum()) * slot_s),
    )


def _node_run(site: SiteFile, policy: str, rates: Floats, slot_s: float) -> NodeRun:
    nodes = site.nodes[0]
    tokens_in = nodes.input_per_output * nodes.output_tokens
    count = round(len(rates) * slot_s / WINDOW_S)
    windows = [
        RateWindow(
            WINDOW_S * i,
            float(rates[int(WINDOW_S * i // slot_s)]) / nodes.output_tokens,
            1.0,
            tokens_in,
            nodes.output_tokens,
        )
        for i in range(count)
    ]
    setup = EngineSetup(
        name="engine",
        engine=engine_model(nodes.gpu_model, nodes.model, nodes.gpu_count),
        max_num_seqs=nodes.max_num_seqs,
        arrivals=envelope(windows, seed=site.load.seed, window_s=WINDOW_S),
        table=frontier_table(nodes),
        slo=site.policy.slo,
    )
    overhead = gpu_kind(nodes.gpu_model).overhead
    return NodeRun([setup], overhead, site.load.seed, maker(STRATEGIES[policy]))
