"""Energy per token and the shares around it, with None where there is nothing to divide by."""

from __future__ import annotations


def energy_j_per_token(energy_j: float, tokens: float) -> float | None:
    """Joules per token at whatever boundary ``energy_j`` was taken; None without a token."""
    return energy_j / tokens if tokens > 0 else None


def idle_ratio(idle_energy_j: float, node_energy_j: float) -> float | None:
    """Share of the node's energy that was spent with no request running, 0 to 1."""
    return min(1.0, idle_energy_j / node_energy_j) if node_energy_j > 0 else None


def miss_ratio(misses: float, requests: float) -> float | None:
    """Share of finished requests that missed an objective; None without a request."""
    return misses / requests if requests > 0 else None
