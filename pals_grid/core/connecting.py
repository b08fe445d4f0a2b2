"""What every connector needs: options checked, bad answers translated, values made."""

from __future__ import annotations

import io
import json
import re
import zlib
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar
from zipfile import BadZipFile, ZipFile

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from pals_grid.core.ports import ConnectorOption, FetchContext, HttpResponse
    from pals_grid.core.tokens import Token

T = TypeVar("T")

MAX_PARTS = 1_000_000
"""Values of a JSON, elements of an XML, rows of a CSV: each costs a hundred times its bytes."""
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
MAX_ZIP_ENTRIES = 64
ZIP_ENTRY = b"PK\x01\x02"


def read_options(given: Mapping[str, str], known: tuple[ConnectorOption, ...]) -> dict[str, str]:
    """Options with defaults filled in.

    Raises:
        InvalidValue: for an option that is unknown, or required and missing.
    """
    names = {option.name for option in known}
    for name, value in given.items():
        if name not in names:
            allowed = ", ".join(sorted(names)) or "none"
            raise InvalidValue(f"options.{name}", value, f"unknown option; known are: {allowed}")
    for option in known:
        if option.default is None and not given.get(option.name):
            raise InvalidValue(f"options.{option.name}", None, f"is required: {option.help}")
    return {option.name: given.get(option.name) or option.default or "" for option in known}


def require_match(field: str, value: str, pattern: str, bound: str) -> str:
    """Return ``value`` where the whole of it has the form ``pattern``.

    Raises:
        InvalidValue: saying ``bound``, where it has not.
    """
    if not re.fullmatch(pattern, value):
        raise InvalidValue(field, value, bound)
    return value


def require_address(field: str, value: str) -> str:
    """Return an http(s) address, without a slash at its end.

    Raises:
        InvalidValue: for anything else.
    """
    return require_match(field, value, r"https?://[^/\s]+\S*", "must be an http(s) address").rstrip(
        "/"
    )


def require_choice(field: str, value: str, allowed: Collection[str]) -> str:
    """Return ``value`` where it is among ``allowed``.

    Raises:
        InvalidValue: naming those that are.
    """
    if value not in allowed:
        raise InvalidValue(field, value, f"must be one of {', '.join(allowed)}")
    return value


def require_option(provider: str, name: str, value: str) -> str:
    """Return an option that reading needs not, and fetching does.

    Raises:
        FeedRejected: where it is empty.
    """
    if not value:
        raise FeedRejected(f"{provider}: option {name} is needed to fetch")
    return value


def require_secret(provider: str, what: str, context: FetchContext) -> str:
    """Return the secret, which people know as ``what``.

    Raises:
        FeedRejected: where the feed names none.
    """
    if not context.secret:
        raise FeedRejected(f"{provider}: {what} is needed; name it by secret_ref")
    return context.secret


def ask_with_token(
    context: FetchContext,
    key: str,
    log_in: Callable[[], Token],
    ask: Callable[[str], HttpResponse],
    refused: Collection[int] = (401,),
) -> HttpResponse:
    """Return the answer of ``ask`` to a session's token, kept under ``key`` until it ends.

    An answer of a status in ``refused`` may mean that it was ended before its time: it is asked
    once more with a new one.

    Raises:
        FeedError: as ``log_in`` does.
    """
    response = ask(context.tokens.value(key, context.fetched_at, log_in))
    if response.status not in refused:
        return response
    context.tokens.forget(key)
    return ask(context.tokens.value(key, context.fetched_at, log_in))


def raise_for_status(response: HttpResponse, provider_says: str | None = None) -> None:
    """Translate a status of 400 and above, quoting the provider: by default the body's text.

    Raises:
        FeedUnavailable: 408, 425, 429 and 5xx.
        FeedRejected: every other 4xx.
    """
    if response.status < 400:
        return
    if provider_says is None:
        provider_says = response.body.decode("utf-8", "replace")
    message = f"HTTP {response.status} from {response.url}: {provider_says[:300]}"
    if response.status in {408, 425, 429} or response.status >= 500:
        raise FeedUnavailable(message, read_retry_after_s(response.headers))
    raise FeedRejected(message)


def words_of(response: HttpResponse) -> str:
    """Return what a provider says: ``error`` and ``message`` of its JSON, else the body as text."""
    text = response.body.decode("utf-8", "replace")
    try:
        document = load_json(response.body)
    except InvalidValue:
        return text
    return "; ".join(_told(document)) or text


def refuse_error(provider: str, document: object) -> None:
    """Refuse a JSON object that is an error: ``error`` or ``message``, as texts.

    Raises:
        FeedRejected: quoting the provider.
    """
    if told := _told(document):
        raise FeedRejected(f"{provider} says: {'; '.join(told)[:300]}")


def read_retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a provider wishes to be left alone; None where it wishes nothing readable.

    ``Retry-After`` is a number of seconds, or a date that is compared with the answer's own
    ``Date``, so that a provider whose clock is wrong is understood all the same (RFC 9110, 10.2.3).
    """
    wish = headers.get("retry-after", "").strip()
    if wish.isascii() and wish.isdecimal():
        return float(wish[:12])
    try:
        until_at, said_at = (parsedate_to_datetime(text) for text in (wish, headers["date"]))
        return max(0.0, (until_at - said_at).total_seconds())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def require_few(payload: bytes, marks: bytes, what: str) -> None:
    """Refuse a payload that would take far more memory once read than it has bytes.

    Each byte of ``marks`` stands for one more part, such as ``b"<"`` for an element of XML.

    Raises:
        InvalidValue: for more than a million.
    """
    parts = sum(payload.count(mark) for mark in marks)
    if parts > MAX_PARTS:
        raise InvalidValue("payload", f"about {parts} {what}", f"must have at most {MAX_PARTS}")


def unzip_single(payload: bytes, *, max_bytes: int = MAX_UNPACKED_BYTES) -> bytes:
    """Unpack the only file of a zip archive, never more than ``max_bytes`` of it.

    Folders are passed over. What the archive says about sizes is not believed: reading stops at
    the bound, and the checksum is compared.

    Raises:
        InvalidValue: when it is no whole zip archive, holds no file or several, is encrypted,
            packed by another method than deflate, or unpacks to more.
    """
    shown = f"{len(payload)} bytes"
    if payload.count(ZIP_ENTRY) > MAX_ZIP_ENTRIES:
        raise InvalidValue("zip", shown, f"must have at most {MAX_ZIP_ENTRIES} entries")
    try:
        with ZipFile(io.BytesIO(payload)) as archive:
            files = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
            if len(files) != 1:
                raise InvalidValue("zip", f"{len(files)} files", "must hold one file")
            if files[0].compress_type not in {0, 8}:
                bound = "must be stored or deflated"
                raise InvalidValue("zip", f"method {files[0].compress_type}", bound)
            with archive.open(files[0]) as file:
                found = file.read(max_bytes + 1)
    except (BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        bound = f"must be a whole zip archive ({str(error)[:100]})"
        raise InvalidValue("zip", shown, bound) from error
    if len(found) > max_bytes:
        raise InvalidValue("zip", shown, f"must unpack to at most {max_bytes} bytes")
    return found


@contextmanager
def refusing(provider: str) -> Iterator[None]:
    """Turn an InvalidValue inside into FeedDataInvalid, with the provider's name before it.

    Raises:
        FeedDataInvalid: when a value that the provider gave is out of bounds.
    """
    try:
        yield
    except InvalidValue as error:
        raise FeedDataInvalid(f"{provider}: {error}") from error


def load_json(payload: bytes) -> object:
    """Read JSON with every number as an exact Decimal.

    Raises:
        InvalidValue: when it is not JSON; NaN and Infinity are not; or has over a million values.
    """
    require_few(payload, b",[{", "values")
    try:
        text = payload.decode("utf-8-sig")
        return json.loads(
            text, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse_constant
        )
    except (ValueError, InvalidOperation, RecursionError) as error:
        raise InvalidValue("payload", payload[:40], f"must be JSON ({error})") from error


def read_number(field: str, value: object) -> Decimal:
    """Read a finite number, given as such or as text, exactly.

    Raises:
        InvalidValue: for anything else.
    """
    number = None
    if isinstance(value, str | Decimal):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = None
    if number is None or not number.is_finite():
        shown = value if isinstance(value, str | Decimal | None) else type(value).__name__
        raise InvalidValue(field, None if shown is None else str(shown), "must be a finite number")
    return number


def read_member(record: object, name: str, kind: type[T]) -> T:
    """Read the member ``name`` of a JSON object, which must be of the type ``kind``.

    Raises:
        InvalidValue: when there is no such member, or it is of another type.
    """
    found = record.get(name) if isinstance(record, dict) else None
    if not isinstance(found, kind):
        raise InvalidValue(name, type(found).__name__, f"must be there and be a {kind.__name__}")
    return found


def read_nullable(record: object, name: str, place: str = "") -> float | None:
    """Read a number that has to be there and may be null; ``place`` says where in a message.

    Raises:
        InvalidValue: when there is no such member, or it is neither.
    """
    if not isinstance(record, dict) or name not in record:
        raise InvalidValue(name, None, f"must be there{place}")
    return None if record[name] is None else float(read_number(name, record[name]))


def _told(document: object) -> list[str]:
    found = (
        [document.get(name) for name in ("error", "message")] if isinstance(document, dict) else []
    )
    return [text for text in found if isinstance(text, str) and text]


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
