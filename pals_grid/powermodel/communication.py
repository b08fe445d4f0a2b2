"""Time that the links between GPUs add to a step: it does not follow the SM clock."""

from __future__ import annotations

from dataclasses import dataclass

from pals_grid.core.errors import InvalidValue

INTER_NODE_BYTES_PER_S = 40e9
INTER_NODE_LATENCY_S = 25e-6
"""ASSUMED, per GPU and message: one 400 Gbit/s port at 80 %, and a switch with its software."""


@dataclass(frozen=True, slots=True)
class Link:
    """A collective over one link: ``latency_s + bytes / bytes_per_s``.

    Leaves out congestion, and the steps between the link's protocols at middle sizes.
    """

    latency_s: float
    bytes_per_s: float

    def seconds(self, size_bytes: float) -> float:
        """One collective of ``size_bytes`` per GPU."""
        return self.latency_s + size_bytes / self.bytes_per_s


INTER_NODE = Link(INTER_NODE_LATENCY_S, INTER_NODE_BYTES_PER_S)


@dataclass(frozen=True, slots=True)
class Communication:
    """What links between nodes add: seconds of a decode step, and of a prompt token."""

    fixed_s: float
    token_s: float

    def step_s(self, running: float) -> float:
        """Seconds that one decode step of ``running`` tokens waits."""
        return self.fixed_s + self.token_s * running

    @property
    def prompt_token_s(self) -> float:
        """Seconds per prompt token: a chunk's latency is shared by its many tokens."""
        return self.token_s


def expert_parallel(
    nodes: int,
    gpu_count: int,
    *,
    moe_layers: int,
    hidden_size: int,
    top_k: int,
    link: Link = INTER_NODE,
    value_bytes: float = 2.0,
) -> Communication | None:
    """Dispatch and combine of experts spread over ``nodes``; None on a single node.

    Each of ``moe_layers`` sends every token's hidden state to the nodes of its ``top_k`` experts
    and gets it back: two all-to-alls a layer, one copy for each other node that it reaches,
    ``min(top_k, nodes) * (nodes - 1) / nodes`` of them on average at even routing. Tokens are
    spread evenly over the ``gpu_count`` GPUs. Modelled; nothing overlaps with computing.
    """
    if not 1 <= nodes <= gpu_count:
        raise InvalidValue("nodes", nodes, f"must be from 1 to gpu_count ({gpu_count})")
    if min(moe_layers, hidden_size, top_k) < 1:
        sizes = (moe_layers, hidden_size, top_k)
        raise InvalidValue("moe_layers, hidden_size, top_k", sizes, "must be 1 or more")
    if nodes == 1:
        return None
    copies = min(top_k, nodes) * (nodes - 1) / nodes
    token_bytes = copies * hidden_size * value_bytes / gpu_count
    return Communication(
        fixed_s=2 * moe_layers * link.latency_s,
        token_s=2 * moe_layers * token_bytes / link.bytes_per_s,
    )
