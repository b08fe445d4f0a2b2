"""What every use case needs, put together once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pals_grid.core.budget import PlanRequest, PowerBudget
from pals_grid.core.tokens import Tokens
from pals_grid.feeds.backoff import BackOff
from pals_grid.service.known_nodes import KnownNodes
from pals_grid.store.schedules import ScheduleCache

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.core.ports import Clock, HttpClient
    from pals_grid.feeds.cache import Answers
    from pals_grid.feeds.registry import ConnectorRegistry
    from pals_grid.store.engine import Database

Planner: TypeAlias = Callable[[PlanRequest], PowerBudget]


@dataclass(frozen=True, slots=True)
class Context:
    """The ports of the service. All times that are stored come from ``clock``.

    ``http`` is the bare way out; a fetch goes by ``service.providers.open_provider``. Without
    ``answers`` no answer is held. ``feed_folders`` None lets feeds read files anywhere.
    """

    database: Database
    clock: Clock
    registry: ConnectorRegistry
    http: HttpClient
    planner: Planner
    tokens: Tokens = field(default_factory=Tokens)
    answers: Answers | None = None
    back_off: BackOff = field(default_factory=BackOff)
    feed_folders: tuple[Path, ...] | None = None
    schedules: ScheduleCache = field(default_factory=ScheduleCache)
    known_nodes: KnownNodes = field(default_factory=KnownNodes)
