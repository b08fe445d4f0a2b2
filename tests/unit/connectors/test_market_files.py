from decimal import Decimal
from io import BytesIO
from zipfile import ZipFile

import pytest
from pals_grid_connectors.market_files import (
    array_rows,
    of_location,
    one_line,
    read_market,
    read_table,
    says,
    unpack,
)

from pals_grid.core.errors import FeedRejected, InvalidValue


def zipped(**files: str) -> bytes:
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return packed.getvalue()


def test_the_header_is_the_first_line_with_all_columns() -> None:
    table = read_table(b'\n"A title, long"\n01/02/2025\n\nplace,price\nx, 4\n\ny,5\n', ["price"])
    assert table.preamble == ("A title, long", "01/02/2025")
    assert [(row.line, dict(row.cells)) for row in table.rows] == [
        (6, {"place": "x", "price": "4"}),
        (8, {"place": "y", "price": "5"}),
    ]
    assert table.rows[0].field("price") == "line 6, price"


def test_names_of_columns_are_compared_as_told() -> None:
    (row,) = read_table(b"Place , PRICE\nx,4\n", ["place"], lambda name: name.strip().lower()).rows
    assert dict(row.cells) == {"place": "x", "price": "4"}


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "must have a header with price"),
        (b"place,prize\nx,4\n", "must have a header with price, got 'place,prize'"),
        (b"\n".join([b"title"] * 9) + b"\nprice\n4\n", "must have a header with price"),
        (b"price\n", "must hold at least one row"),
        (b"place,price\nx,4\ny\n", "line 3: must have 2 fields as the header has, not 1"),
        (b"price\n4,5\n", "line 2: must have 1 fields"),
        (b'price\n"4\n', "must be CSV"),
        (b"price\n\xff\n", "must be UTF-8"),
        (b"price\n" + b"4\n" * 1_000_001, "must have at most 1000000"),
    ],
)
def test_what_is_no_such_table_is_refused(payload: bytes, says: str) -> None:
    with pytest.raises(InvalidValue, match=says) as caught:
        read_table(payload, ["price"])
    assert "\n" not in str(caught.value)


def test_one_file_in_a_zip_is_read_whatever_its_name() -> None:
    packed = zipped(**{"../../etc/passwd": "price\n4\n"})
    assert unpack(packed) == b"price\n4\n"
    assert read_table(packed, ["price"]).rows == read_table(b"price\n4\n", ["price"]).rows


@pytest.mark.parametrize("length", [4, 30, 60, -1])
def test_a_torn_zip_is_refused(length: int) -> None:
    with pytest.raises(InvalidValue, match="whole zip"):
        unpack(zipped(a="price\n" + "4\n" * 100)[:length])


def test_a_zip_of_several_files_is_refused() -> None:
    with pytest.raises(InvalidValue, match="must hold one file, got '2 files'"):
        unpack(zipped(a="1", b="2"))


def test_the_rows_of_one_location_are_kept_file_by_file() -> None:
    files = [read_table(text, ["place"]).rows for text in (b"place\nx\ny\nx\n", b"place\ny\n")]
    kept = of_location("Here", "x", files, "place")
    assert [[row.line for row in own] for own in kept] == [[2, 4], []]
    assert of_location("Here", "x", [], "place") == []
    assert of_location("Here", "x", [[]], "place") == [[]]


def test_the_only_location_need_not_be_named() -> None:
    files = [read_table(b"place\nx\nx\n", ["place"]).rows]
    assert [len(own) for own in of_location("Here", "", files, "place")] == [2]


def test_a_location_that_is_not_there_is_answered_with_those_that_are() -> None:
    many = "place\n" + "\n".join(f"p{number:02}" for number in range(12)) + "\n"
    files = [read_table(many.encode(), ["place"]).rows]
    with pytest.raises(FeedRejected, match=r"Here: no location 'q'; .*p00, .*p09 and 2 more$"):
        of_location("Here", "q", files, "place")
    with pytest.raises(FeedRejected, match="Here: option location is needed to choose"):
        of_location("Here", "", files, "place")


def test_options_that_cannot_be_are_refused() -> None:
    given = {"location": "", "market": "a", "base_url": "https://x.example/files/"}
    assert read_market(given, ["a", "b"]) == ("", "a", "https://x.example/files")
    with pytest.raises(InvalidValue, match=r"options\.market: must be one of a, b, got 'c'"):
        read_market({**given, "market": "c"}, ["a", "b"])
    with pytest.raises(InvalidValue, match=r"options\.base_url: must be an http"):
        read_market({**given, "base_url": "ftp://x.example"}, ["a"])


def test_records_that_are_arrays_become_rows() -> None:
    rows = array_rows(["place", "price"], [["x ", Decimal("4.50")], [None, True]])
    assert [(row.line, dict(row.cells)) for row in rows] == [
        (1, {"place": "x", "price": "4.50"}),
        (2, {"place": "", "price": ""}),
    ]
    (told,) = array_rows(["price"], [[True]], repr)
    assert told.cells["price"] == "True"
    for wrong in (["x"], ["x", "4", "5"], {"place": "x"}, None):
        with pytest.raises(InvalidValue, match="row 2: must have 2 values"):
            array_rows(["place", "price"], [["x", "4"], wrong])


def test_a_provider_s_page_becomes_one_line() -> None:
    assert says(b"<html><body>\n<p>Please  retry.</p>\xff</body></html>") == "Please retry. \ufffd"
    assert one_line("a\r\n b") == "a b"
