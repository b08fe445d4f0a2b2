"""Bodies that are sent packed, unpacked a chunk at a time so that none grows past its bound."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from pals_grid.core.errors import FeedUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCEPTED = "gzip"
CHUNK_BYTES = 65_536
# zlib's own numbers for the two wrappings of its stream.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class Unpacking:
    """One body: ``unpack`` gives at most 64 KiB at a time, ``finish`` finds one cut short."""

    def __init__(self, url: str, encoding: str) -> None:
        """Begin; raises FeedUnavailable for an encoding that was not asked for."""
        name = encoding.strip().lower()
        if name not in {"", "identity", *_WINDOW_BITS}:
            raise FeedUnavailable(f"{url} answers in an encoding not asked for: {name[:40]}")
        self._url = url
        self._window_bits = _WINDOW_BITS.get(name)
        self._inflater = zlib.decompressobj(self._window_bits) if self._window_bits else None
        self._begun = False

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        """Give what ``packed``, the next part of the body, holds.

        Raises:
            FeedUnavailable: when it is not packed as it says.
        """
        if self._inflater is None or self._window_bits is None:
            yield packed
            return
        self._begun = True
        while packed:
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(self._window_bits)
            try:
                yield self._inflater.decompress(packed, CHUNK_BYTES)
            except zlib.error as error:
                raise FeedUnavailable(f"{self._url} cannot be unpacked: {error}") from error
            packed = self._inflater.unconsumed_tail or self._inflater.unused_data

    def finish(self) -> None:
        """Say that there is no more.

        Raises:
            FeedUnavailable: when the packed body has no end: a part is missing.
        """
        if self._inflater is not None and self._begun and not self._inflater.eof:
            raise FeedUnavailable(f"{self._url} was cut short: its packed body has no end")
