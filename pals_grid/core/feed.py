"""A feed: one provider's signal for one site, and how well it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pals_grid.core.series import Quantity


@dataclass(frozen=True, slots=True)
class Feed:
    """A configured feed.

    ``secret_ref`` names a secret (``env:NAME`` or ``file:PATH``), never is one. ``poll_s`` is the
    time between two fetches; a feed without a success for ``stale_after_s`` is stale.
    """

    id: int
    site_id: int
    name: str
    connector: str
    quantity: Quantity
    options: Mapping[str, str]
    secret_ref: str | None
    poll_s: float
    stale_after_s: float
    created_at: datetime
    removed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FeedHealth:
    """What became of the fetches. ``last_error`` is the provider's own text; None after a success.

    ``last_error_kind`` is the name of the error (``core.errors``), ``invalid_total`` counts the
    answers that were refused as invalid.
    """

    last_attempt_at: datetime | None = None
    last_success_at: datetime | None = None
    next_attempt_at: datetime | None = None
    last_error: str | None = None
    last_error_kind: str | None = None
    consecutive_failures: int = 0
    invalid_total: int = 0
