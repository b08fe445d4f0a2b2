"""Session tokens of providers that ask for a login, kept until they end."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Token:
    """What a login gave, and when it stops being good."""

    value: str
    expires_at: datetime


class Tokens:
    """One token a key, made anew by the caller's login when it has ended; safe between threads.

    A key names provider, account and address, and holds no secret.
    """

    def __init__(self) -> None:
        self._held: dict[str, Token] = {}
        self._lock = Lock()

    def value(self, key: str, now: datetime, log_in: Callable[[], Token]) -> str:
        """Return the token held for ``key``, or what ``log_in`` gives where none is good.

        Raises:
            FeedError: as ``log_in`` does; nothing is kept then.
        """
        with self._lock:
            held = self._held.get(key)
            if held is None or held.expires_at <= now:
                held = self._held[key] = log_in()
            return held.value

    def forget(self, key: str) -> None:
        """Drop a token that the provider refused before its end."""
        with self._lock:
            self._held.pop(key, None)
