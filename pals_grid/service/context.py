"""What every use case needs, put together once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pals_grid.core.budget import PlanRequest, PowerBudget

if TYPE_CHECKING:
    from pals_grid.core.ports import Clock, HttpClient
    from pals_grid.feeds.registry import ConnectorRegistry
    from pals_grid.store.engine import Database

Planner: TypeAlias = Callable[[PlanRequest], PowerBudget]


@dataclass(frozen=True, slots=True)
class Context:
    """The ports of the service. All times that are stored come from ``clock``."""

    database: Database
    clock: Clock
    registry: ConnectorRegistry
    http: HttpClient
    planner: Planner
