"""RFC 9457 problem details: the one place where errors become HTTP answers."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pals_grid.core import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What one class of error looks like over HTTP."""

    status: int
    name: str
    title: str


# Each class of the tree stands here itself; a test proves that none leans on its parent.
KINDS: Mapping[type[errors.PalsGridError], ProblemKind] = {
    errors.PalsGridError: ProblemKind(500, "internal", "Something went wrong inside"),
    errors.InvalidValue: ProblemKind(422, "invalid-value", "A value is outside its bounds"),
    errors.NotFound: ProblemKind(404, "not-found", "There is no such thing"),
    errors.Conflict: ProblemKind(409, "conflict", "The state of things forbids this"),
    errors.AccessDenied: ProblemKind(401, "access-denied", "The token is missing or wrong"),
    errors.Busy: ProblemKind(503, "busy", "Another one is being worked out"),
    errors.ConfigurationError: ProblemKind(500, "configuration", "The service is set up wrongly"),
    errors.FeedError: ProblemKind(502, "feed", "The feed gave no usable values"),
    errors.FeedUnavailable: ProblemKind(502, "feed-unavailable", "The provider does not answer"),
    errors.FeedHeldBack: ProblemKind(503, "feed-held-back", "The provider is not asked for now"),
    errors.FeedRejected: ProblemKind(422, "feed-rejected", "The provider refused the request"),
    errors.FeedDataInvalid: ProblemKind(502, "feed-data-invalid", "The provider's data are broken"),
    errors.LinkError: ProblemKind(502, "link", "The link to a node failed"),
    errors.LinkUnavailable: ProblemKind(503, "link-unavailable", "The node cannot be reached"),
    errors.LinkRejected: ProblemKind(502, "link-rejected", "The node's message was refused"),
    errors.DeviceError: ProblemKind(500, "device", "A device did not do as asked"),
    errors.DeviceUnsupported: ProblemKind(501, "device-unsupported", "The device cannot do this"),
    errors.DevicePermission: ProblemKind(500, "device-permission", "No right to the device"),
    errors.DeviceLost: ProblemKind(503, "device-lost", "The device is gone"),
}
_SILENT = {"internal", "configuration", "device", "device-permission"}


def kind_of(error: errors.PalsGridError) -> ProblemKind:
    """Return the nearest class's entry."""
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def problem(
    status: int,
    *,
    name: str | None = None,
    title: str | None = None,
    detail: str | None = None,
    errors: Sequence[Mapping[str, object]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with a problem document."""
    body: dict[str, object] = {
        "type": f"urn:pals-grid:problem:{name}" if name else "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
    }
    if detail:
        body["detail"] = detail
    if errors:
        body["errors"] = list(errors)
    # A lone surrogate in what is quoted becomes JSON's own way to spell it.
    content = json.dumps(body, ensure_ascii=False).encode(errors="backslashreplace")
    return Response(content, status, dict(headers or {}), media_type=MEDIA_TYPE)


def shown(value: object) -> object:
    """Return a value fit to be quoted: a short JSON scalar, else its beginning as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else repr(value)
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def answer_pals_grid_error(_request: Request, error: Exception) -> Response:
    """Answer to one of our own errors."""
    assert isinstance(error, errors.PalsGridError)
    kind = kind_of(error)
    headers: dict[str, str] = {}
    items: list[dict[str, object]] = []
    if isinstance(error, errors.InvalidValue):
        items = [{"field": error.field, "value": shown(error.value), "bound": error.bound}]
    if isinstance(error, errors.AccessDenied):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.Busy):
        headers["Retry-After"] = f"{RETRY_AFTER_S}"
    if isinstance(error, errors.FeedUnavailable) and error.retry_after_s is not None:
        headers["Retry-After"] = f"{max(0, round(error.retry_after_s))}"
    detail: str | None = str(error)
    if kind.name in _SILENT:
        _log.error("answered 500", exc_info=error)
        detail = "The service's log says what."
    return problem(
        kind.status, name=kind.name, title=kind.title, detail=detail, errors=items, headers=headers
    )


def answer_invalid_request(_request: Request, error: Exception) -> Response:
    """Answer to a body, query or path that breaks its schema."""
    assert isinstance(error, RequestValidationError)
    kind = KINDS[errors.InvalidValue]
    items = [
        {
            "field": ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]),
            "value": shown(item.get("input")),
            "bound": str(item["msg"]).removeprefix("Value error, "),
        }
        for item in error.errors()
    ]
    detail = "; ".join(f"{item['field']}: {item['bound']}" for item in items[:3])
    return problem(kind.status, name=kind.name, title=kind.title, detail=detail, errors=items)


def answer_http_exception(_request: Request, error: Exception) -> Response:
    """Answer to what the framework or a route refused."""
    assert isinstance(error, HTTPException)
    detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else None
    return problem(error.status_code, detail=detail, headers=error.headers)


def answer_database_gone(request: Request, error: Exception) -> Response:
    """Answer while the database does not: the caller comes back, a node keeps what it has."""
    _log.warning("%s %s: no answer from the database: %s", request.method, request.url.path, error)
    detail = "database: must answer; the service's log says more"
    return problem(503, detail=detail, headers={"Retry-After": f"{RETRY_AFTER_S}"})


def answer_unstorable(request: Request, error: Exception) -> Response:
    """Answer to a text with NUL, or a number that no column holds: nothing has been stored."""
    assert isinstance(error, DBAPIError)
    _log.info("%s %s: %s", request.method, request.url.path, error.orig)
    kind = KINDS[errors.InvalidValue]
    reason = str(error.orig).partition("\n")[0]
    detail = f"a value cannot be stored or looked for: {reason}"
    return problem(kind.status, name=kind.name, title=kind.title, detail=detail)


def answer_no_text(_request: Request, _error: Exception) -> Response:
    """Answer to a lone surrogate, which JSON can spell and no text can hold."""
    kind = KINDS[errors.InvalidValue]
    detail = "a value holds a lone surrogate (\\ud800 to \\udfff), which is no character"
    return problem(kind.status, name=kind.name, title=kind.title, detail=detail)


def answer_unexpected(request: Request, error: Exception) -> Response:
    """Answer to a bug: logged in full, told without internals."""
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    kind = KINDS[errors.PalsGridError]
    detail = "The service's log says what."
    return problem(kind.status, name=kind.name, title=kind.title, detail=detail)


def install_problems(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""
    app.add_exception_handler(errors.PalsGridError, answer_pals_grid_error)
    app.add_exception_handler(RequestValidationError, answer_invalid_request)
    app.add_exception_handler(HTTPException, answer_http_exception)
    for gone in (OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(gone, answer_database_gone)
    app.add_exception_handler(DataError, answer_unstorable)
    app.add_exception_handler(UnicodeEncodeError, answer_no_text)
    app.add_exception_handler(Exception, answer_unexpected)
