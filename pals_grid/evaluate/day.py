"""The replayed day's plant and load: what both runs share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval
from pals_grid.node.describe import describe_node
from pals_grid.node.hardware import EngineUnit, NodeHardware
from pals_grid.powermodel.table import build_frontier_table
from pals_grid.sim.arrivals import load_trace, repeat_daily
from pals_grid.sim.demo import DEMO_SPEC
from pals_grid.sim.plant import SimNode
from pals_grid.wire.messages import EngineRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.ports import Clock
    from pals_grid.core.site import Slo
    from pals_grid.evaluate.config import ReplayConfig
    from pals_grid.sim.arrivals import Request
    from pals_grid.wire.messages import RegisterRequest

HISTORY_STEP_S = 300.0
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ReplayDay:
    """Load and plant of a replay, the same for both runs."""

    config: ReplayConfig
    slo: Slo
    trace: tuple[Request, ...]
    table: FrontierTable

    @property
    def plant(self) -> str:
        """What is simulated, in words."""
        spec = DEMO_SPEC
        return (
            f"{spec.gpu_count} x {spec.gpu_model}, {spec.model}, at most {spec.max_num_seqs} seqs"
        )

    def arrivals(self, start_at: datetime, duration_s: float, seed: int) -> Iterator[Request]:
        """Requests of a stretch of time; synthetic (see ``sim.arrivals.repeat_daily``)."""
        return repeat_daily(self.trace, start_at, duration_s, seed=seed)

    def make_hardware(self, clock: Clock, *, controlled: bool) -> NodeHardware:
        """Make a simulated node under the day's load; without a table nothing is controlled."""
        duration_s = self.config.hours * 3600.0
        arrivals = self.arrivals(clock.now(), duration_s, self.config.seed)
        node = SimNode(clock, DEMO_SPEC, arrivals, self.config.seed)
        table = self.table if controlled else None
        unit = EngineUnit("engine", node.engine, node.gpus, table, Origin.SIMULATED)
        return NodeHardware(self.plant, Origin.SIMULATED, (unit,), node.meter, DEMO_SPEC.overhead)

    def register_request(self, hardware: NodeHardware) -> RegisterRequest:
        """Introduce the controlled node, as its agent does."""
        return describe_node(DEMO_SPEC.name, hardware, self.slo, "replay")

    def history_rows(self) -> list[EngineRow]:
        """Work of the day before, by five minutes and without energy: for the forecast.

        Drawn as the day itself, with another seed.
        """
        start_at = self.config.start_at - DAY
        steps = round(DAY.total_seconds() / HISTORY_STEP_S)
        tokens, requests = [0.0] * steps, [0] * steps
        for request in self.arrivals(start_at, DAY.total_seconds(), self.config.seed + 1):
            tokens[int(request.arrival_s // HISTORY_STEP_S)] += request.tokens_out
            requests[int(request.arrival_s // HISTORY_STEP_S)] += 1
        step = timedelta(seconds=HISTORY_STEP_S)
        return [
            _history_row(Interval(start_at + step * i, start_at + step * (i + 1)), *work)
            for i, work in enumerate(zip(tokens, requests, strict=True))
        ]


def load_day(config: ReplayConfig, slo: Slo) -> ReplayDay:
    """Read the trace and build the table for its mix of prompt and output tokens.

    Raises:
        InvalidValue: when the trace cannot be read, naming line, column and value.
    """
    try:
        with config.trace_path.open() as lines:
            trace = tuple(load_trace(lines, config.deferrable_ratio))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(
            "trace_path", str(config.trace_path), f"must be CSV ({error})"
        ) from error
    tokens_in = sum(request.tokens_in for request in trace)
    tokens_out = sum(request.tokens_out for request in trace)
    table = build_frontier_table(
        DEMO_SPEC.gpu_model,
        DEMO_SPEC.model,
        DEMO_SPEC.gpu_count,
        tokens_in / tokens_out,
        output_tokens=tokens_out / len(trace),
        max_num_seqs=[2**k for k in range(DEMO_SPEC.max_num_seqs.bit_length())],
    )
    return ReplayDay(config, slo, trace, table)


def _history_row(interval: Interval, tokens_out: float, requests: int) -> EngineRow:
    return EngineRow(
        engine="history",
        model=DEMO_SPEC.model,
        start_at=interval.start_at,
        end_at=interval.end_at,
        ticks=0,
        gpu_energy_j=0.0,
        node_energy_j=0.0,
        idle_energy_j=0.0,
        energy_origin=Origin.SIMULATED,
        node_energy_origin=Origin.SIMULATED,
        power_draw_w=0.0,
        power_draw_max_w=0.0,
        power_limit_w=0.0,
        power_envelope_w=0.0,
        ticks_over_envelope=0,
        max_num_seqs=0,
        requests_running=0.0,
        requests_waiting=0.0,
        tokens_in=0.0,
        tokens_out=tokens_out,
        requests_arrived=requests,
        requests_finished=requests,
        ttft_misses=0,
        itl_misses=0,
    )
