import io
import struct
import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import count
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest

from pals_grid.core.connecting import (
    MAX_PARTS,
    ask_with_token,
    load_json,
    raise_for_status,
    read_nullable,
    read_retry_after_s,
    require_choice,
    require_option,
    require_secret,
    unzip_single,
)
from pals_grid.core.errors import FeedRejected, FeedUnavailable, InvalidValue
from pals_grid.core.ports import FetchContext, HttpResponse
from pals_grid.core.tokens import Token
from pals_grid.feeds.recorded import RecordedHttp

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def archive(*files: tuple[str, bytes], method: int = ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with ZipFile(held, "w", method) as made:
        for name, content in files:
            made.writestr(name, content)
    return held.getvalue()


def test_the_only_file_is_unpacked_beside_folders() -> None:
    assert unzip_single(archive(("a/", b""), ("a/b.csv", b"1,2\n"))) == b"1,2\n"


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"<html>429</html>", "must be a whole zip archive"),
        (b"", "must be a whole zip archive"),
        (archive(("a", b"x" * 999))[:-30], "must be a whole zip archive"),
        (archive(("a", b"1"), ("b", b"2")), "must hold one file, got '2 files'"),
        (archive(), "must hold one file, got '0 files'"),
        (archive(("a", b"1"), method=ZIP_BZIP2), "must be stored or deflated"),
    ],
    ids=["html", "empty", "cut", "two", "none", "bzip2"],  # an archive holds the time of day
)
def test_what_is_no_whole_archive_of_one_file_is_refused(payload: bytes, problem: str) -> None:
    with pytest.raises(InvalidValue, match=problem):
        unzip_single(payload)


def test_a_zip_bomb_is_not_unpacked() -> None:
    bomb = archive(("a", b"\0" * 40_000_000))
    tracemalloc.start()
    with pytest.raises(InvalidValue, match="must unpack to at most 1000000 bytes"):
        unzip_single(bomb, max_bytes=1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_an_archive_that_lies_about_its_size_is_refused() -> None:
    bomb = bytearray(archive(("a", b"\0" * 1_000_000)))
    central = bomb.index(b"PK\x01\x02")
    for at in (22, central + 24):
        bomb[at : at + 4] = struct.pack("<L", 10)
    with pytest.raises(InvalidValue, match="zip"):
        unzip_single(bytes(bomb), max_bytes=1000)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 120 "}, 120.0),
        (
            {
                "retry-after": "Fri, 06 Mar 2026 10:01:30 GMT",
                "date": "Fri, 06 Mar 2026 10:00:00 GMT",
            },
            90.0,
        ),
        (
            {
                "retry-after": "Fri, 06 Mar 2026 09:00:00 GMT",
                "date": "Fri, 06 Mar 2026 10:00:00 GMT",
            },
            0.0,
        ),
        ({"retry-after": "Fri, 06 Mar 2026 10:01:30 GMT"}, None),
        ({"retry-after": "soon", "date": "Fri, 06 Mar 2026 10:00:00 GMT"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "\u00b2"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert read_retry_after_s(headers) == expected


def test_status_says_whether_to_come_again() -> None:
    with pytest.raises(FeedUnavailable) as caught:
        raise_for_status(HttpResponse("u", 429, {"retry-after": "9"}, b""), "slow down")
    assert caught.value.retry_after_s == 9.0
    with pytest.raises(FeedRejected, match="HTTP 404 from u: gone"):
        raise_for_status(HttpResponse("u", 404, {}, b""), "gone")
    with pytest.raises(FeedRejected, match="HTTP 403 from u: no key \ufffd"):
        raise_for_status(HttpResponse("u", 403, {}, b"no key \xff"))
    raise_for_status(HttpResponse("u", 204, {}, b""), "")


def test_json_of_too_many_values_is_refused_before_it_is_read() -> None:
    payload = b"[" + b"1," * MAX_PARTS + b"1]"
    tracemalloc.start()
    with pytest.raises(InvalidValue, match="about 1000001 values"):
        load_json(payload)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_an_archive_of_very_many_entries_is_not_opened() -> None:
    many = archive(*((f"{i}/", b"") for i in range(65)), ("a", b"1"))
    with pytest.raises(InvalidValue, match="must have at most 64 entries"):
        unzip_single(many)


def test_an_archive_whose_file_has_no_name_is_read() -> None:
    assert unzip_single(archive(("QQ", b"1,2\n")).replace(b"QQ", b"\0Q")) == b"1,2\n"


def test_a_broken_archive_does_not_fill_the_message() -> None:
    broken = bytearray(archive(("a", bytes(range(256)) * 20), method=ZIP_STORED))
    broken[26:28] = struct.pack("<H", 5000)  # the length of the name before the data
    with pytest.raises(InvalidValue, match="must be a whole zip archive") as caught:
        unzip_single(bytes(broken))
    assert len(str(caught.value)) < 300


def test_what_is_needed_is_returned_or_named() -> None:
    assert require_choice("options.day", "mon", {"mon": 1, "tue": 2}) == "mon"
    with pytest.raises(InvalidValue, match=r"options\.day: must be one of mon, tue, got 'sun'"):
        require_choice("options.day", "sun", ("mon", "tue"))
    assert require_option("Here", "zone", "NL") == "NL"
    with pytest.raises(FeedRejected, match="Here: option zone is needed to fetch"):
        require_option("Here", "zone", "")
    http = RecordedHttp({})
    assert require_secret("Here", "a key", FetchContext(http, NOW, "s3cret")) == "s3cret"
    for secret in (None, ""):
        with pytest.raises(FeedRejected, match="Here: a key is needed; name it by secret_ref"):
            require_secret("Here", "a key", FetchContext(http, NOW, secret))


@pytest.mark.parametrize(
    ("statuses", "asked", "answer"),
    [
        ([200], ["token 0"], 200),
        ([401, 200], ["token 0", "token 1"], 200),
        ([401, 401], ["token 0", "token 1"], 401),
        ([403], ["token 0"], 403),
        ([500], ["token 0"], 500),
    ],
)
def test_a_token_that_is_refused_is_renewed_once(
    statuses: list[int], asked: list[str], answer: int
) -> None:
    context = FetchContext(RecordedHttp({}), NOW)
    logins = count()
    used: list[str] = []

    def log_in() -> Token:
        return Token(f"token {next(logins)}", NOW + timedelta(hours=1))

    def ask(token: str) -> HttpResponse:
        used.append(token)
        return HttpResponse("u", statuses[len(used) - 1], {}, b"")

    assert ask_with_token(context, "key", log_in, ask).status == answer
    assert used == asked


def test_a_number_may_be_null_but_not_missing() -> None:
    assert read_nullable(load_json(b'{"mw": 1.5}'), "mw") == 1.5
    assert read_nullable(load_json(b'{"mw": "-2"}'), "mw") == -2.0
    assert read_nullable({"mw": None}, "mw") is None
    with pytest.raises(InvalidValue, match="mw: must be there for Gas at noon"):
        read_nullable({}, "mw", " for Gas at noon")
    with pytest.raises(InvalidValue, match="mw: must be there"):
        read_nullable([], "mw")
    with pytest.raises(InvalidValue, match="mw: must be a finite number"):
        read_nullable({"mw": "much"}, "mw")
