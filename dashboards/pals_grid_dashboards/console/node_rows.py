"""The fleet now: one row a node, and the site's sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid_dashboards.console.formats import power
from pals_grid_dashboards.console.words import REASONS, Label, mode_label, origin_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pals_grid.core.fleet import Origin
    from pals_grid.service.nodes import NodeView
    from pals_grid.wire.messages import EngineStatus, NodeStatus


@dataclass(frozen=True, slots=True)
class EngineLine:
    """One engine at its last tick; limits and draw summed over its GPUs."""

    model: str
    power_limit_w: float
    power_draw_w: float
    max_num_seqs: int
    requests_running: int
    requests_waiting: int
    tokens_out_per_s: float
    gpu_energy_j_per_token: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as its row shows it. Figures are None when it has said nothing yet."""

    name: str
    hardware: str
    origins: tuple[Label, ...]
    mode: Label
    online: bool
    age_s: float | None
    envelope_w: float | None
    envelope_note: str
    node_power_w: float | None
    node_power_source: str
    envelope_used_ratio: float | None
    tokens_out_per_s: float | None
    node_energy_j_per_token: float | None
    engines: tuple[EngineLine, ...]


@dataclass(frozen=True, slots=True)
class SiteNow:
    """Sums over the nodes that are online; energy per token over their last five seconds."""

    nodes: int
    online: int
    node_power_w: float | None
    gpu_power_w: float | None
    tokens_out_per_s: float | None
    gpu_energy_j_per_token: float | None
    node_energy_j_per_token: float | None
    origins: tuple[Label, ...]


def node_rows(views: Iterable[NodeView], now: datetime) -> tuple[NodeRow, ...]:
    """Rows in the order given."""
    return tuple(_row(view, now) for view in views)


def _row(view: NodeView, now: datetime) -> NodeRow:
    status = view.status
    seen_at = status.at if status else view.node.last_seen_at
    age_s = (now - seen_at).total_seconds() if seen_at else None
    if status is None:
        return NodeRow(
            name=view.node.name,
            hardware=view.node.hardware,
            origins=origin_labels([view.node.origin]),
            mode=Label("Waiting for its first report", "quiet"),
            online=view.online,
            age_s=age_s,
            envelope_w=None,
            envelope_note=_envelope_note(view),
            node_power_w=None,
            node_power_source="",
            envelope_used_ratio=None,
            tokens_out_per_s=None,
            node_energy_j_per_token=None,
            engines=(),
        )
    rate = _tokens_per_s(status)
    return NodeRow(
        name=view.node.name,
        hardware=view.node.hardware,
        origins=origin_labels(_origins(view)),
        mode=mode_label(status.mode) if view.online else Label("Offline", "bad", "last report old"),
        online=view.online,
        age_s=age_s,
        envelope_w=status.power_envelope_w,
        envelope_note=_envelope_note(view),
        node_power_w=status.node_power_w,
        node_power_source=status.node_power_source,
        envelope_used_ratio=_ratio(status.node_power_w, status.power_envelope_w),
        tokens_out_per_s=rate,
        node_energy_j_per_token=_ratio(status.node_power_w, rate),
        engines=tuple(_engine(engine) for engine in status.engines),
    )


def _envelope_note(view: NodeView) -> str:
    """The live grant that the node holds, if it does, and what the plan allows now and why."""
    parts = []
    if view.held_grant_w is not None:
        parts.append(f"live grant of {power(view.held_grant_w)}")
    if view.planned is not None:
        reason = REASONS[view.planned.reason]
        parts.append(f"plan {power(view.planned.power_max_w)}: {reason}")
    return "; ".join(parts)


def _engine(engine: EngineStatus) -> EngineLine:
    return EngineLine(
        model=engine.model,
        power_limit_w=engine.power_limit_w,
        power_draw_w=engine.power_draw_w,
        max_num_seqs=engine.max_num_seqs,
        requests_running=engine.requests_running,
        requests_waiting=engine.requests_waiting,
        tokens_out_per_s=engine.tokens_out_per_s,
        gpu_energy_j_per_token=engine.gpu_energy_j_per_token,
        reason=engine.reason,
    )


def _origins(view: NodeView) -> list[Origin]:
    """Where the hardware's and the whole node's figures come from."""
    return [view.node.origin, *([view.status.node_power_origin] if view.status else [])]


def site_now(views: Sequence[NodeView]) -> SiteNow:
    """Sum what the online nodes say."""
    heard = [view.status for view in views if view.online and view.status is not None]
    node_w = sum(status.node_power_w for status in heard) if heard else None
    gpu_w = sum(status.gpu_power_w for status in heard) if heard else None
    rate = sum(_tokens_per_s(status) for status in heard) if heard else None
    return SiteNow(
        nodes=len(views),
        online=sum(view.online for view in views),
        node_power_w=node_w,
        gpu_power_w=gpu_w,
        tokens_out_per_s=rate,
        gpu_energy_j_per_token=_ratio(gpu_w, rate),
        node_energy_j_per_token=_ratio(node_w, rate),
        origins=origin_labels(origin for view in views if view.online for origin in _origins(view)),
    )


def _tokens_per_s(status: NodeStatus) -> float:
    return sum(engine.tokens_out_per_s for engine in status.engines)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
