"""A provider that does everything wrong, one way a request; a program of its own.

``python hostile_server.py SEED`` prints its port. The n-th request below ``/<feed>/`` is answered
in the way ``kind_of(SEED, feed, n)``, so that who asks knows what it was given. Values of good
answers are ``true_value`` of their start; those of bad ones are a thousand too high.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from zipfile import ZIP_DEFLATED, ZipFile

if TYPE_CHECKING:
    from collections.abc import Callable

HALF_HOUR = timedelta(minutes=30)
HOUR = timedelta(hours=1)
WRONG = 1000.0
SKEW = timedelta(hours=5)
ZONE, OTHER_ZONE = "10YNL----------L", "10YBE----------2"
INWARD = (
    "http://127.0.0.2:{inside}/secret",
    "http://[::1]:{inside}/secret",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "http://0.0.0.0:{inside}/secret",
    "http://[::ffff:127.0.0.2]:{inside}/secret",
    "http://2130706434:{inside}/secret",
)
KINDS = {
    "good": 60,
    "silent": 2,
    "trickle": 1,
    "reset": 4,
    "reset_midway": 4,
    "closed": 4,
    "garbage": 4,
    "many_headers": 4,
    "429_seconds": 4,
    "429_date": 4,
    "429_bare": 4,
    "500": 4,
    "503_html": 4,
    "html": 4,
    "empty": 4,
    "zip_truncated": 4,
    "zip_bomb": 2,
    "gzip_truncated": 4,
    "short": 4,
    "large": 2,
    "large_chunked": 1,
    "gzip_bomb": 2,
    "gzip_file_bomb": 2,
    "xml_bomb": 3,
    "xml_many": 2,
    "json_deep": 3,
    "json_many": 2,
    "redirect_inward": 6,
    "redirect_loop": 3,
    "redirect_file": 3,
    "wrong_zone": 6,
    "no_offset": 4,
    "not_a_number": 4,
    "beyond_bounds": 4,
    "clock_skew": 4,
    "known_later": 4,
    "404": 3,
    "401": 3,
}


def kind_of(seed: int, feed: str, number: int) -> str:
    """How the ``number``-th request of a feed is answered."""
    return Random(f"{seed}:{feed}:{number}").choices([*KINDS], [*KINDS.values()])[0]


def true_value(start_at: datetime) -> float:
    """The value of the interval that begins then, 0 to 99.9."""
    return int(start_at.timestamp()) // 1800 * 7919 % 1000 / 10


# --- good answers, and those that are wrong in their content ------------------------------------


def _grid(start_at: datetime, end_at: datetime, step: timedelta) -> list[datetime]:
    first = datetime.fromtimestamp(
        start_at.timestamp() // step.total_seconds() * step.total_seconds(), UTC
    )
    return [first + step * i for i in range(int((end_at - first) / step) + 1)]


def _z(at: datetime, *, bare: bool = False) -> str:
    return at.strftime("%Y-%m-%dT%H:%M") + ("" if bare else "Z")


def _number(at: datetime, kind: str) -> str:
    if kind == "not_a_number":
        return "NaN"
    wrong = {"wrong_zone": WRONG, "no_offset": WRONG, "beyond_bounds": 1e9, "known_later": WRONG}
    return f"{true_value(at) + wrong.get(kind, 0.0):.4f}"


def octopus(query: dict[str, list[str]], kind: str) -> bytes:
    start_at, end_at = (
        datetime.fromisoformat(query[name][0]) for name in ("period_from", "period_to")
    )
    bare = kind in {"no_offset", "wrong_zone", "known_later"}
    rows = ",".join(
        f'{{"value_exc_vat":{_number(at, kind)},"value_inc_vat":0.0,'
        f'"valid_from":"{_z(at, bare=bare)}","valid_to":"{_z(at + HALF_HOUR, bare=bare)}"}}'
        for at in reversed(_grid(start_at, end_at - HALF_HOUR, HALF_HOUR))
    )
    return f'{{"count":1,"next":null,"previous":null,"results":[{rows}]}}'.encode()


def neso(path: str, kind: str) -> bytes:
    parts = path.split("/")
    at = parts.index("intensity")
    start_at = datetime.fromisoformat(parts[at + 1])
    ahead = parts[at + 2] == "fw48h"
    end_at = start_at + timedelta(hours=48) if ahead else datetime.fromisoformat(parts[at + 2])
    region = 1 if kind in {"wrong_zone", "known_later"} else 13
    bare = kind == "no_offset"
    rows = ",".join(
        f'{{"from":"{_z(at, bare=bare)}","to":"{_z(at + HALF_HOUR, bare=bare)}",'
        f'"intensity":{{"forecast":{_number(at, kind)},"index":"low"}}}}'
        for at in _grid(start_at, end_at - HALF_HOUR, HALF_HOUR)
    )
    return f'{{"data":{{"regionid":{region},"shortname":"London","data":[{rows}]}}}}'.encode()


def entsoe(query: dict[str, list[str]], kind: str) -> bytes:
    start_at, end_at = (
        datetime.strptime(query[name][0], "%Y%m%d%H%M").replace(tzinfo=UTC)
        for name in ("periodStart", "periodEnd")
    )
    zone = OTHER_ZONE if kind in {"wrong_zone", "known_later"} else ZONE
    bare = kind == "no_offset"
    points = "".join(
        f"<Point><position>{i + 1}</position><price.amount>{_number(start_at + i * HOUR, kind)}"
        "</price.amount></Point>"
        for i in range(int((end_at - start_at) / HOUR))
    )
    return (
        '<?xml version="1.0"?><Publication_MarketDocument xmlns="urn:x:7:3"><type>A44</type>'
        f"<TimeSeries><in_Domain.mRID>{zone}</in_Domain.mRID>"
        "<contract_MarketAgreement.type>A01</contract_MarketAgreement.type>"
        "<currency_Unit.name>EUR</currency_Unit.name>"
        "<price_Measure_Unit.name>MWH</price_Measure_Unit.name><curveType>A03</curveType>"
        f"<Period><timeInterval><start>{_z(start_at, bare=bare)}</start>"
        f"<end>{_z(end_at, bare=bare)}</end></timeInterval>"
        f"<resolution>PT60M</resolution>{points}</Period></TimeSeries></Publication_MarketDocument>"
    ).encode()


def table(kind: str) -> bytes:
    now = datetime.now(UTC)
    later = {"clock_skew": HALF_HOUR, "known_later": SKEW, "wrong_zone": SKEW}
    known_at = now + later.get(kind, -HALF_HOUR)
    lines = [
        f"{_z(at, bare=kind == 'no_offset')},{_number(at, kind)},{known_at.isoformat()}"
        for at in _grid(now - timedelta(hours=6), now + timedelta(hours=48), HOUR)
    ]
    return ("start,price,known\n" + "\n".join(lines) + "\n").encode()


def content(feed: str, target: str, kind: str) -> bytes:
    parts = urlsplit(target)
    query = parse_qs(parts.query)
    maker = feed.rstrip("0123456789")
    if maker == "octopus":
        return octopus(query, kind)
    if maker == "neso":
        return neso(parts.path, kind)
    return entsoe(query, kind) if maker == "entsoe" else table(kind)


# --- answers that are wrong in their form -------------------------------------------------------


def _zipped(body: bytes) -> bytes:
    held = io.BytesIO()
    with ZipFile(held, "w", ZIP_DEFLATED) as made:
        made.writestr("values.csv", body)
    return held.getvalue()


HTML = b"<!doctype html><html><head><title>Sorry</title></head><body>429\0 down</body></html>"


def _xml_bomb() -> bytes:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    head = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "ha">{entities}]>'
    return f"{head}<a>&e9;</a>".encode()


MAKERS: dict[str, Callable[[], bytes]] = {
    "html": lambda: HTML,
    "empty": lambda: b"",
    "zip_truncated": lambda: _zipped(b"start,price\n" * 999)[:-40],
    "zip_bomb": lambda: _zipped(b"\0" * 100_000_000),
    "gzip_file_bomb": lambda: gzip.compress(b"0" * 500_000_000, 1),
    "xml_bomb": _xml_bomb,
    "xml_many": lambda: b"<a>" + b"<b/>" * 5_000_000 + b"</a>",
    "json_deep": lambda: b"[" * 900_000,
    "json_many": lambda: b"[" + b"0," * 10_000_000 + b"0]",
    "large": lambda: b"1,2\n" * 13_000_000,
}


@cache
def body_of(kind: str) -> bytes:
    """The one body of a kind; made in the server alone, since some are big."""
    return MAKERS[kind]()


STATUSES: dict[str, tuple[str, dict[str, str], bytes]] = {
    "429_seconds": ("429 Too Many Requests", {"Retry-After": "2"}, b"slow down"),
    "429_bare": ("429 Too Many Requests", {}, HTML),
    "500": ("500 Oops", {}, b"\xff\xfe\0"),
    "503_html": ("503 Down", {"Retry-After": "soon"}, HTML),
    "404": ("404 Not Found", {}, b"gone"),
    "401": ("401 Unauthorized", {}, b"who are you"),
}


def message(status: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    given = {"Date": format_datetime(datetime.now(UTC), usegmt=True), **(headers or {})}
    given.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status}\r\n{head}Connection: close\r\n\r\n".encode() + body


class Hostile:
    """The server; ``inside`` is a port on another loopback address that nobody may reach."""

    def __init__(self, seed: int, inside: int) -> None:
        self._seed = seed
        self._inside = inside
        self._asked: Counter[str] = Counter()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ")[1].decode()
            feed = target.split("/")[1]
            if feed == "loop":
                writer.write(message("302 Found", b"", {"Location": "/loop/"}))
            else:
                number = self._asked[feed]
                self._asked[feed] += 1
                await self._answer(reader, writer, feed, target, number)
            await writer.drain()
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        feed: str,
        target: str,
        number: int,
    ) -> None:
        kind = kind_of(self._seed, feed, number)
        credit = {"X-RateLimit-Remaining": str(number)}
        if kind in STATUSES:
            status, headers, body = STATUSES[kind]
            writer.write(message(status, body, {**credit, **headers}))
        elif kind == "429_date":
            # Its clock is five hours ahead: the wish is 2 s all the same.
            now = datetime.now(UTC) + SKEW
            stamps = (format_datetime(at, usegmt=True) for at in (now, now + timedelta(seconds=2)))
            headers = dict(zip(("Date", "Retry-After"), stamps, strict=True))
            writer.write(message("429 Too Many Requests", b"", {**credit, **headers}))
        elif kind in MAKERS:
            writer.write(message("200 OK", body_of(kind), credit))
        elif kind.startswith("redirect"):
            place = {
                "redirect_loop": "/loop/",
                "redirect_file": "file:///etc/passwd",
                "redirect_inward": INWARD[number % len(INWARD)].format(inside=self._inside),
            }[kind]
            writer.write(message("302 Found", b"", {"Location": place}))
        else:
            await self._break(reader, writer, kind, content(feed, target, kind), credit)

    async def _break(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        kind: str,
        body: bytes,
        credit: dict[str, str],
    ) -> None:
        whole = message("200 OK", body, credit)
        if kind == "silent":
            await reader.read()
        elif kind == "trickle":
            for byte in whole:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)
        elif kind in {"reset", "reset_midway"}:
            await _reset(writer, whole[: len(whole) // 2] if kind == "reset_midway" else b"")
        elif kind == "large_chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(50):
                writer.write(b"100000\r\n" + body_of("large")[: 1 << 20] + b"\r\n")
                await writer.drain()
        else:
            writer.write(_spoiled(kind, body, credit).get(kind, whole))


async def _reset(writer: asyncio.StreamWriter, begun: bytes) -> None:
    writer.write(begun)
    await writer.drain()
    await asyncio.sleep(0.01)
    opened = writer.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _spoiled(kind: str, body: bytes, credit: dict[str, str]) -> dict[str, bytes]:
    packed = {**credit, "Content-Encoding": "gzip"}
    if kind == "gzip_bomb":
        return {kind: message("200 OK", body_of("gzip_file_bomb"), packed)}
    if kind == "many_headers":
        return {kind: message("200 OK", body, {f"X-{i}": "y" * 60_000 for i in range(200)})}
    ahead = format_datetime(datetime.now(UTC) + SKEW, usegmt=True)
    return {
        "closed": b"",
        "garbage": b"\0\1\2 SSH-2.0 not a web server\r\n\r\n",
        "gzip_truncated": message("200 OK", gzip.compress(body)[:-20], packed),
        "short": message("200 OK", body, credit)[:-5],
        "clock_skew": message("200 OK", body, {**credit, "Date": ahead}),
    }


async def serve(seed: int) -> None:
    for kind in MAKERS:
        body_of(kind)

    async def reach(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        print("REACHED", flush=True)
        writer.close()

    inside = await asyncio.start_server(reach, "127.0.0.2", 0)
    port = inside.sockets[0].getsockname()[1]
    server = await asyncio.start_server(Hostile(seed, port).answer, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
