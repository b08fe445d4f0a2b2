"""One record in shared memory, one writer, any readers: a sequence lock with a checksum.

Layout, little-endian: ``sequence`` (u64), ``crc32`` (u32) of sequence and payload, 4 spare bytes,
payload. The sequence is odd while a write is under way. A reader takes a payload only if the
sequence was even and the same before and after, and the checksum fits: so a torn read is refused
on processors that reorder stores too, and after a writer died in the middle.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from mmap import mmap

_SEQUENCE = struct.Struct("<Q")
_HEAD = struct.Struct("<QI4x")
_RETRIES = 32

T = TypeVar("T", bound=NamedTuple)


class Layout(Generic[T]):
    """How a NamedTuple of numbers lies in memory; ``form`` is a struct format without ``<``."""

    def __init__(self, kind: type[T], form: str) -> None:
        self.kind = kind
        self.body = struct.Struct("<" + form)
        self.size = _HEAD.size + self.body.size


class Record(Generic[T]):
    """A record at ``offset`` of a mapping; ``write`` is for its only writer."""

    def __init__(self, memory: mmap, offset: int, layout: Layout[T]) -> None:
        self._memory = memory
        self._offset = offset
        self._kind: Any = layout.kind
        self._body = layout.body
        self._end = offset + layout.size
        self._sequence = _SEQUENCE.unpack_from(memory, offset)[0]
        self._read_sequence = -1
        self._latest: T | None = None

    def write(self, value: T) -> None:
        """Put ``value`` there.

        Raises:
            struct.error: when a number does not fit its field; the record stays as it was.
        """
        payload = self._body.pack(*value)
        memory, offset = self._memory, self._offset
        self._sequence = (self._sequence | 1) + 1  # even, also after a writer that died
        _SEQUENCE.pack_into(memory, offset, self._sequence - 1)
        memory[offset + _HEAD.size : self._end] = payload
        crc = zlib.crc32(payload, self._sequence & 0xFFFFFFFF)
        _HEAD.pack_into(memory, offset, self._sequence - 1, crc)
        _SEQUENCE.pack_into(memory, offset, self._sequence)

    def read(self) -> T | None:
        """Return the last whole value: that of the last call while a write is under way.

        None while nothing was ever written.
        """
        memory, offset = self._memory, self._offset
        for _ in range(_RETRIES):
            (sequence,) = _SEQUENCE.unpack_from(memory, offset)
            if sequence in {self._read_sequence, 0}:
                break
            if sequence & 1:
                continue
            whole = memory[offset : self._end]
            again, crc = _HEAD.unpack_from(whole)
            payload = whole[_HEAD.size :]
            (after,) = _SEQUENCE.unpack_from(memory, offset)
            if sequence == again == after and crc == zlib.crc32(payload, sequence & 0xFFFFFFFF):
                self._read_sequence = sequence
                self._latest = self._kind(*self._body.unpack(payload))
                break
        return self._latest
