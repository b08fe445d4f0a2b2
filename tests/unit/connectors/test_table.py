import io
import json
import struct
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
from pals_grid_connectors.file import File
from pals_grid_connectors.table import MAX_BYTES, TableForm, load_rows

from pals_grid.core.errors import FeedDataInvalid, InvalidValue
from pals_grid.core.intervals import Interval
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.feeds.recorded import RecordedHttp

NOW = datetime(2025, 3, 1, tzinfo=UTC)
PLAIN = b"start,zone,price\n2025-03-01T00:00Z,N,10\n2025-03-01T00:00Z,S,20\n"
PRICE = {
    "quantity": "price",
    "unit": "EUR/MWh",
    "start_column": "start",
    "value_column": "price",
    "interval_s": "3600",
}
KINDS = b"""C,TITLE,2025/03/01
I,WEATHER,1,start,degrees
D,WEATHER,1,2025-03-01T00:00Z,4.5
I,PRICES,2,start,zone,price
D,PRICES,2,2025-03-01T01:00Z,N,10
D,PRICES,2,2025-03-01T01:00Z,S,20
I,PRICES,2,start,price,zone
D,PRICES,2,2025-03-01T02:00Z,30,N
C,"END",8
"""
TABLE = {"header_prefix": "I,PRICES", "row_prefix": "D,PRICES", "where": "zone=N"}


def zipped(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def values(payload: bytes, **options: str) -> list[float]:
    return [item.value for item in File(PRICE | options).parse(payload, NOW)]


def test_where_keeps_the_rows_that_fit() -> None:
    assert values(PLAIN, where="zone=S") == [20.0]
    assert values(PLAIN, where=" zone = N ; price=10 ") == [10.0]
    with pytest.raises(FeedDataInvalid, match=r"options\.where: must fit .* got 'zone=W'"):
        values(PLAIN, where="zone=W")
    with pytest.raises(FeedDataInvalid, match="column: must be among the columns"):
        values(PLAIN, where="region=N")


@pytest.mark.parametrize("where", ["zone", "=N", "zone=N;", ";"])
def test_a_where_that_says_nothing_is_refused(where: str) -> None:
    with pytest.raises(InvalidValue, match=r"options\.where"):
        File(PRICE | {"where": where})


def test_one_of_several_tables_in_a_file() -> None:
    assert values(KINDS, **TABLE) == [10.0, 30.0]
    with pytest.raises(FeedDataInvalid, match=r"header_prefix: must begin .* got 'I,POWER'"):
        values(KINDS, header_prefix="I,POWER")
    torn = KINDS[: KINDS.index(b",30,N")]
    with pytest.raises(FeedDataInvalid, match="line 8: must have 6 fields"):
        values(torn, **TABLE)


def test_lines_before_the_header_are_skipped() -> None:
    assert values(b"A title, and more\n\n" + PLAIN, header_prefix="start", where="zone=N") == [10.0]


def test_json_by_numbers_a_single_record_and_where() -> None:
    record = {"start": "2025-03-01T00:00Z", "price": 7, "final": True, "note": None}
    document = json.dumps({"sites": [{"x": 1}, {"rows": record}]}).encode()
    assert values(document, records="sites.1.rows") == [7.0]
    assert values(document, records="sites.1.rows", where="final=true;note=") == [7.0]
    for path in ("sites.2.rows", "sites.-1.rows", "sites.rows"):
        with pytest.raises(FeedDataInvalid, match="records: must be there"):
            values(document, records=path)
    with pytest.raises(FeedDataInvalid, match="must lead to an array of records"):
        values(json.dumps(record).encode())


def test_a_zip_of_one_file_is_unpacked() -> None:
    assert values(zipped(("folder/", b""), ("folder/a.csv", PLAIN)), where="zone=N") == [10.0]
    for members in ([], [("a", PLAIN), ("b", PLAIN)]):
        # An archive of none has another beginning, and is no CSV either.
        with pytest.raises(FeedDataInvalid):
            values(zipped(*members))
    with pytest.raises(FeedDataInvalid, match=r"zip: must hold one file, got .2 files"):
        values(zipped(("a", PLAIN), ("b", PLAIN)))


def test_damaged_and_locked_zips_are_refused() -> None:
    packed = zipped(("a.csv", PLAIN))
    with pytest.raises(FeedDataInvalid, match="whole zip archive"):
        values(packed[: len(packed) // 2])
    damaged = packed.replace(packed[40:60], bytes(20), 1)
    with pytest.raises(FeedDataInvalid, match="whole zip archive"):
        values(damaged)
    locked = bytearray(packed)
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = packed.index(header) + offset
        (flags,) = struct.unpack_from("<H", packed, at)
        struct.pack_into("<H", locked, at, flags | 1)
    with pytest.raises(FeedDataInvalid, match="whole zip archive"):
        values(bytes(locked))


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zipped(("a.csv", bytes(MAX_BYTES + 1)))
    with pytest.raises(InvalidValue, match=f"must unpack to at most {MAX_BYTES}"):
        load_rows(bomb, TableForm(), [])


def test_no_content_is_no_value_yet() -> None:
    url = "https://files.example/prices.json"
    connector = File(PRICE | {"url": url})
    window = Interval(NOW, NOW + timedelta(hours=1))
    http = RecordedHttp({url: HttpResponse(url, 204, {}, b"")})
    assert connector.fetch(window, FetchContext(http, NOW)) == []
