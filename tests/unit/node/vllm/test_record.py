from __future__ import annotations

import mmap
import multiprocessing
import struct
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pals_grid.node.vllm.layout import CONTROL, LATENCY, TELEMETRY, Control
from pals_grid.node.vllm.record import Layout, Record
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Wide(NamedTuple):
    """Numbers that only fit together when they were written together."""

    number: int
    words: bytes
    again: int


WIDE: Layout[Wide] = Layout(Wide, "Q2000sQ")


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, 4096) as shared:
        yield shared


def test_nothing_is_read_before_anything_was_written(memory: mmap.mmap) -> None:
    assert Record(memory, 0, CONTROL).read() is None


def test_what_was_written_is_read(memory: mmap.mmap) -> None:
    writer, reader = Record(memory, 64, CONTROL), Record(memory, 64, CONTROL)
    for generation in range(3):
        value = Control(generation, 16, 1, 12.5)
        writer.write(value)
        assert reader.read() == value
        assert reader.read() == value


def test_a_number_that_does_not_fit_leaves_the_record_as_it_was(memory: mmap.mmap) -> None:
    record = Record(memory, 0, CONTROL)
    record.write(Control(1, 2, 0, 3.0))
    with pytest.raises(struct.error):
        record.write(Control(1, -2, 0, 3.0))
    assert Record(memory, 0, CONTROL).read() == Control(1, 2, 0, 3.0)


def test_a_writer_that_died_in_the_middle_leaves_readers_with_the_last_value(
    memory: mmap.mmap,
) -> None:
    writer, reader = Record(memory, 0, CONTROL), Record(memory, 0, CONTROL)
    writer.write(Control(1, 2, 0, 3.0))
    assert reader.read() == Control(1, 2, 0, 3.0)
    struct.pack_into("<Q", memory, 0, 3)  # odd: a write is under way, for ever
    memory[20:24] = b"torn"
    assert reader.read() == Control(1, 2, 0, 3.0)
    assert Record(memory, 0, CONTROL).read() is None
    Record(memory, 0, CONTROL).write(Control(9, 9, 0, 9.0))  # the next writer
    assert reader.read() == Control(9, 9, 0, 9.0)


def test_a_payload_that_does_not_fit_its_checksum_is_refused(memory: mmap.mmap) -> None:
    Record(memory, 0, CONTROL).write(Control(1, 2, 0, 3.0))
    memory[20] ^= 1  # what a processor that reorders stores could show
    assert Record(memory, 0, CONTROL).read() is None


def test_the_checksum_covers_the_sequence(memory: mmap.mmap) -> None:
    Record(memory, 0, CONTROL).write(Control(1, 2, 0, 3.0))
    payload = memory[16:40]
    assert struct.unpack_from("<I", memory, 8)[0] == zlib.crc32(payload, 2)
    struct.pack_into("<Q", memory, 0, 4)
    assert Record(memory, 0, CONTROL).read() is None


STOP_AT = 4095


def hammer(path: str) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:  # noqa: PTH123
        record = Record(memory, 0, WIDE)
        count = 0
        while not memory[STOP_AT]:
            count += 1
            record.write(Wide(count, bytes([count % 251]) * 2000, count))


def test_no_read_is_torn_while_another_process_writes_without_a_pause(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(bytes(4096))
    writer = multiprocessing.get_context("spawn").Process(target=hammer, args=(str(path),))
    writer.start()
    seen = reads = changes = 0
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        reader = Record(memory, 0, WIDE)
        until_s = time.monotonic() + PATIENCE_S
        try:
            while (reads < 20_000 or changes < 100) and time.monotonic() < until_s:
                value = reader.read()
                if value is None:
                    continue  # it has not begun
                reads += 1
                assert value.number == value.again >= seen
                assert value.words == bytes([value.number % 251]) * 2000
                changes += value.number > seen
                seen = value.number
        finally:
            memory[STOP_AT] = 1
            writer.join(PATIENCE_S)
    assert writer.exitcode == 0
    assert changes >= 100, f"{reads} reads saw {changes} values, up to {seen}"


def test_the_records_fit_the_file_that_holds_them() -> None:
    assert 64 + CONTROL.size <= 192
    assert 192 + TELEMETRY.size <= 512
    assert LATENCY.size > 3 * 112 * 8
