"""The way to providers, shared by all replicas through the database."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from pals_grid.core.errors import FeedHeldBack
from pals_grid.feeds.cache import CachedHttp
from pals_grid.feeds.provider import ProviderHttp
from pals_grid.store.providers import ProviderRepository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from pals_grid.core.ports import Connector, HttpClient
    from pals_grid.service.context import Context

# Longer than one call may last, so that a probe is not followed by another while it is out.
PROBE_LEASE = timedelta(minutes=3)


class StoredGate:
    """``feeds.provider.Gate`` over the database."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def admit(self, key: str, step_s: float, patience_s: float) -> float:
        """Take the next free instant; return the seconds until then.

        Raises:
            FeedHeldBack: when that is more than ``patience_s``, or the provider is held back.
        """
        now = self._context.clock.now()
        with self._begin() as connection:
            providers = ProviderRepository(connection)
            wait_s = providers.admit(key, now, now + PROBE_LEASE, step_s, patience_s)
            if wait_s is not None:
                return wait_s
            state = providers.load_all([key])[key]
            busy_s = providers.load_busy_s(key)
        if state.probe_at is not None and state.probe_at > now:
            message = f"{key} is not asked: {state.failures} failures in a row"
            raise FeedHeldBack(message, (state.probe_at - now).total_seconds())
        raise FeedHeldBack(
            f"{key} is not asked: its pace leaves no room for {busy_s:.0f} s", busy_s
        )

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """One transaction; a database that does not answer is no fault of the provider's."""
        try:
            with self._context.database.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise FeedHeldBack(f"the database does not answer: {type(error).__name__}") from error

    def record(self, key: str, *, failed: bool, wish_s: float) -> None:
        """Tell what came of a request; nobody asks before ``wish_s`` are over."""
        with self._begin() as connection:
            providers = ProviderRepository(connection)
            if not failed:
                providers.record_success(key)
                return
            bounds = self._context.back_off
            providers.record_failure(
                key,
                self._context.clock.now(),
                bounds.breaker_failures,
                bounds.min_s,
                bounds.max_s,
                min(wish_s, bounds.wish_max_s),
            )


def open_provider(context: Context, connector: Connector) -> tuple[HttpClient, ProviderHttp]:
    """Return what a fetch of ``connector`` asks with, and what watches the provider behind it."""
    name = type(connector).__module__.rpartition(".")[2]
    watched = ProviderHttp(context.http, StoredGate(context), name, connector.pace, context.clock)
    if context.answers is None:
        return watched, watched
    return CachedHttp(watched, context.answers), watched
