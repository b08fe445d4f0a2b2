"""When to ask again a provider that failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

DOUBLINGS_MAX = 20


@dataclass(frozen=True, slots=True)
class BackOff:
    """Bounds of the waits, and how many failures in a row hold a whole provider back.

    ``wish_max_s`` is the longest that a provider may wish to be left alone.
    """

    min_s: float = 30.0
    max_s: float = 3600.0
    breaker_failures: int = 5
    wish_max_s: float = 86_400.0

    def feed_wait_s(
        self,
        error: Exception,
        failures: int,
        poll_s: float,
        uniform: Callable[[float, float], float],
    ) -> float:
        """Seconds that a feed waits after its ``failures``-th failure in a row.

        Unavailable: from ``min_s`` to twice that, doubled each time up to ``max_s`` or the
        feed's own ``poll_s``, drawn from the upper half so that many feeds do not come back at
        once (equal jitter), and never sooner than the provider wishes, which counts up to
        ``wish_max_s``. Anything else only changes with the configuration or the provider, so it
        waits for ``poll_s``.
        """
        if not isinstance(error, FeedUnavailable):
            return poll_s
        longest_s = max(self.min_s, min(poll_s, self.max_s))
        ceiling_s = min(longest_s, self.min_s * 2.0 ** min(failures, DOUBLINGS_MAX))
        wish_s = min(error.retry_after_s or 0.0, self.wish_max_s)
        drawn_s = max(self.min_s, uniform(ceiling_s / 2, ceiling_s))
        return drawn_s if drawn_s >= wish_s else uniform(wish_s, wish_s + self.min_s)
