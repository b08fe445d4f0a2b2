"""The site's nodes as curves: what they draw at a throughput, controlled or left alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta, Struct

from pals_grid.allocator.envelopes import allocate_envelopes
from pals_grid.core.fleet import Fleet, NodeCapability, PowerCurve, floor_power_w
from pals_grid.powermodel.coefficients import engine_model
from pals_grid.powermodel.curve import node_power_curve
from pals_grid.powermodel.gpu_kinds import gpu_kind
from pals_grid.powermodel.table import build_frontier_table

if TYPE_CHECKING:
    import numpy.typing as npt

    from pals_grid.core.budget import BudgetInterval
    from pals_grid.core.fleet import FrontierTable
    from pals_grid.core.site import Slo

    Floats = npt.NDArray[np.float64]


class Nodes(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Nodes of a kind: ``count`` of them, each one engine on ``gpu_count`` GPUs."""

    gpu_model: str
    model: str
    gpu_count: Annotated[int, Meta(ge=1, le=1024)]
    count: Annotated[int, Meta(ge=1, le=100_000)]
    max_num_seqs: Annotated[int, Meta(ge=1, le=4096)] = 64
    input_per_output: Annotated[float, Meta(ge=0, le=1e5)] = 5.5
    output_tokens: Annotated[float, Meta(ge=1, le=1e6)] = 211.0


@dataclass(frozen=True, slots=True)
class Line:
    """Draw at a throughput under one power limit that nobody moves; both rise."""

    power_limit_w: float
    tokens_per_s: tuple[float, ...]
    power_w: tuple[float, ...]

    def draw_w(self, tokens_per_s: Floats) -> Floats:
        """Power at the node's boundary."""
        found: Floats = np.interp(tokens_per_s, self.tokens_per_s, self.power_w)
        return found


@dataclass(frozen=True, slots=True)
class NodeKind:
    """One kind of node: its curve as planned, and its lines by limit, the highest last."""

    name: str
    count: int
    curve: PowerCurve
    power_min_w: float
    power_max_w: float
    lines: tuple[Line, ...]


def frontier_table(nodes: Nodes) -> FrontierTable:
    """What the nodes of a kind look up: batches in powers of two, limits in steps of 25 W."""
    return build_frontier_table(
        nodes.gpu_model,
        nodes.model,
        nodes.gpu_count,
        nodes.input_per_output,
        output_tokens=nodes.output_tokens,
        max_num_seqs=[2**k for k in range(nodes.max_num_seqs.bit_length())],
    )


@lru_cache(maxsize=32)
def node_kind(nodes: Nodes, slo: Slo) -> NodeKind:
    """Model a kind of node from the fitted plant.

    Raises:
        NotFound: for an engine without coefficients.
        InvalidValue: when no operating point meets the ITL objective.
    """
    kind = gpu_kind(nodes.gpu_model)
    overhead = kind.overhead
    table = frontier_table(nodes)
    idle_w = engine_model(nodes.gpu_model, nodes.model, nodes.gpu_count).power.idle_w
    lines = []
    for limit_w in sorted({point.power_limit_w for point in table.points}):
        inside = [
            (point.tokens_per_s, overhead.node_power_w(point.gpu_power_w))
            for point in table.points
            if point.power_limit_w == limit_w and point.itl_s <= slo.planned_itl_s
        ]
        if inside:
            rest_w = overhead.node_power_w(idle_w * nodes.gpu_count)
            lines.append(_line(limit_w, rest_w, inside))
    floor_w = floor_power_w(table.points, slo.planned_itl_s)
    return NodeKind(
        name=f"{nodes.gpu_count} x {nodes.gpu_model}, {nodes.model}",
        count=nodes.count,
        curve=node_power_curve(table, overhead, slo),
        power_min_w=overhead.node_power_w(floor_w),
        power_max_w=overhead.node_power_w(max(point.gpu_power_w for point in table.points)),
        lines=tuple(lines),
    )


def _line(limit_w: float, rest_w: float, points: list[tuple[float, float]]) -> Line:
    """Batches in order; below the first the engine rests in between."""
    tokens, power_w = [0.0], [rest_w]
    for rate, draw_w in sorted(points):
        if rate > tokens[-1]:
            tokens.append(rate)
            power_w.append(max(draw_w, power_w[-1]))
    return Line(limit_w, tuple(tokens), tuple(power_w))


@dataclass(frozen=True)
class Plant:
    """All nodes of the site. Power is at node boundary, modelled."""

    kinds: tuple[NodeKind, ...]

    @cached_property
    def fleets(self) -> tuple[Fleet, ...]:
        """What the planner sees: a fleet a kind."""
        return tuple(
            Fleet(
                kind.name,
                _times(kind.curve, kind.count),
                kind.power_min_w * kind.count,
                kind.power_max_w * kind.count,
            )
            for kind in self.kinds
        )

    @cached_property
    def curve(self) -> PowerCurve:
        """Least power of a throughput: the nodes share it by equal marginal power."""
        return PowerCurve.combined([fleet.curve for fleet in self.fleets])

    @cached_property
    def most_w(self) -> float:
        """What all nodes can draw together."""
        return sum(fleet.maximum_w for fleet in self.fleets)

    @cached_property
    def nodes(self) -> tuple[NodeCapability, ...]:
        """What the allocator sees: every node."""
        kinds = [kind for kind in self.kinds for _ in range(kind.count)]
        return tuple(
            NodeCapability(
                i,
                f"node-{i}",
                kind.power_min_w,
                max(kind.power_max_w, kind.power_min_w),
                kind.curve,
            )
            for i, kind in enumerate(kinds)
        )

    def allocated_tokens_per_s(self, interval: BudgetInterval) -> float:
        """Most that the nodes serve inside the envelopes that the allocator splits a limit into."""
        envelopes = allocate_envelopes(interval, self.nodes)
        by_grant: dict[tuple[int, float], float] = {}
        total = 0.0
        for node, envelope in zip(self.nodes, envelopes, strict=True):
            key = (id(node.curve), envelope.power_max_w)
            if key not in by_grant:
                by_grant[key] = node.curve.tokens_per_s_at(envelope.power_max_w)
            total += by_grant[key]
        return total

    def draw_w(self, tokens_per_s: Floats) -> Floats:
        """Power of controlled nodes at a throughput of the site, the floor included."""
        found: Floats = np.interp(tokens_per_s, self.curve.tokens_per_s, self.curve.power_w)
        return found

    def line(self, position: int) -> SiteLine:
        """The site under one limit; ``position`` counts them, -1 is the highest."""
        return SiteLine(tuple((kind.count, kind.lines[position]) for kind in self.kinds))

    @cached_property
    def static_lines(self) -> tuple[SiteLine, ...]:
        """The site under each of its limits, the lowest first."""
        count = min(len(kind.lines) for kind in self.kinds)
        return tuple(self.line(i - count) for i in range(count))


@dataclass(frozen=True, slots=True)
class SiteLine:
    """All nodes under a limit that nobody moves; each is loaded in the same proportion."""

    parts: tuple[tuple[int, Line], ...]

    @property
    def limits_w(self) -> tuple[float, ...]:
        """The GPUs' power limits, each once."""
        return tuple(sorted({line.power_limit_w for _, line in self.parts}))

    @property
    def max_tokens_per_s(self) -> float:
        """Full throughput."""
        return sum(count * line.tokens_per_s[-1] for count, line in self.parts)

    def draw_w(self, tokens_per_s: Floats) -> Floats:
        """Power of the site."""
        ratio = tokens_per_s / self.max_tokens_per_s
        total = np.zeros_like(tokens_per_s)
        for count, line in self.parts:
            total += count * line.draw_w(ratio * line.tokens_per_s[-1])
        return total


def _times(curve: PowerCurve, count: int) -> PowerCurve:
    return PowerCurve(
        tuple(count * tokens for tokens in curve.tokens_per_s),
        tuple(count * power_w for power_w in curve.power_w),
    )


def lone_node(node: NodeCapability, modelled: NodeKind | None) -> NodeKind:
    """Return a registered node as a kind of its own, with the curve that it registered.

    Its lines have the shape of ``modelled``, the fitted plant's node of the same hardware, scaled
    to the node's own most throughput and power. Without one there is a single line, from the
    floor straight to the most: an engine that nobody controls draws more in between, where its
    power rises fast at first.
    """
    most_w = max(node.power_max_w, node.power_min_w)
    curve = node.curve.within(node.power_min_w, most_w)
    if modelled is None:
        ends = (0.0, curve.max_tokens_per_s), (curve.floor_w, curve.max_power_w)
        lines: tuple[Line, ...] = (Line(math.inf, *ends),)
    else:
        more_tokens = curve.max_tokens_per_s / modelled.curve.max_tokens_per_s
        more_w = curve.max_power_w / modelled.curve.max_power_w
        lines = tuple(
            Line(
                line.power_limit_w,
                tuple(more_tokens * tokens for tokens in line.tokens_per_s),
                tuple(more_w * power_w for power_w in line.power_w),
            )
            for line in modelled.lines
        )
    return NodeKind(node.name, 1, curve, node.power_min_w, most_w, lines)
