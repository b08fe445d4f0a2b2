"""Nodes by their token, held for a few seconds: each asks every second, and seldom changes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_grid.core.fleet import Node

HELD_S = 5.0
MOST_HELD = 50_000


class KnownNodes:
    """Safe to use by many threads. Keys are digests of tokens.

    A token that another process made void still opens this one's door for ``HELD_S``.
    """

    def __init__(self) -> None:
        self._held: dict[bytes, tuple[Node, float]] = {}
        self._lock = threading.Lock()

    def find(self, digest: bytes, now_s: float) -> Node | None:
        """Return the node that was found by this digest lately, or None."""
        held = self._held.get(digest)
        return held[0] if held is not None and 0 <= now_s - held[1] < HELD_S else None

    def hold(self, digest: bytes, node: Node, now_s: float) -> None:
        """Remember a node."""
        with self._lock:
            if len(self._held) >= MOST_HELD:
                self._held.clear()
            self._held[digest] = (node, now_s)

    def forget(self) -> None:
        """Ask for every node anew."""
        with self._lock:
            self._held.clear()
