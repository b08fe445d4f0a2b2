"""A feed: one provider's signal for one site, and how well it does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pals_grid.core.fallback import Fallback
    from pals_grid.core.series import Quantity


@dataclass(frozen=True, slots=True)
class Feed:
    """A configured feed.

    ``secret_ref`` names a secret (``env:NAME`` or ``file:PATH``), never is one. ``poll_s`` is the
    time between two fetches; a feed without a success for ``stale_after_s`` is stale.
    ``fallbacks`` stand in for it, in their order, where it has no value.
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
    fallbacks: tuple[Fallback, ...] = ()


class BreakerState(StrEnum):
    """Whether a provider is asked: as usual, not at all for a while, or once to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class FeedHealth:
    """What became of the fetches. ``last_error`` is the provider's own text; None after a success.

    ``last_error_kind`` is the name of the error (``core.errors``), ``invalid_total`` counts the
    answers that were refused as invalid. ``last_new_at`` is when a fetch last brought a value that
    was not known. ``provider_key`` names the provider as asked last, ``credit_left`` the requests
    that it says are left, ``clock_skew_s`` how far its clock was ahead of ours; None where
    it does not tell.
    """

    last_attempt_at: datetime | None = None
    last_success_at: datetime | None = None
    next_attempt_at: datetime | None = None
    last_error: str | None = None
    last_error_kind: str | None = None
    consecutive_failures: int = 0
    invalid_total: int = 0
    last_new_at: datetime | None = None
    provider_key: str | None = None
    credit_left: float | None = None
    clock_skew_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProviderState:
    """A provider as all its feeds meet it: ``failures`` in a row, held back until ``probe_at``."""

    key: str
    failures: int
    probe_at: datetime | None

    def breaker(self, now: datetime) -> BreakerState:
        """Whether it is asked now."""
        if self.probe_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.probe_at > now else BreakerState.HALF_OPEN
