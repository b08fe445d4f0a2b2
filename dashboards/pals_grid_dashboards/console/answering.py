"""Around every page: work in the thread pool, our errors as pages, strict headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from pals_grid.core.errors import InvalidValue, NotFound
from pals_grid_dashboards.console.loading import load_scope
from pals_grid_dashboards.console.rendering import render_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.service.context import Context

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
MOST_FIELDS = 6000
"""A tariff may name a thousand hours at risk, five fields each."""
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{what} {whom}" for what, whom in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def with_headers(response: Response) -> Response:
    """Add the security headers; a header that is set already stays."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def page(
    context: Context, answer: Callable[[Request], Response]
) -> Callable[[Request], Awaitable[Response]]:
    """Endpoint of a page that is read."""

    async def endpoint(request: Request) -> Response:
        return with_headers(await run_in_threadpool(_guarded, context, lambda: answer(request)))

    return endpoint


def form_page(
    context: Context, answer: Callable[[Request, dict[str, str]], Response]
) -> Callable[[Request], Awaitable[Response]]:
    """Endpoint of a form that is sent; files are not taken."""

    async def endpoint(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=MOST_FIELDS) as form:
            fields = {name: text for name, text in form.items() if isinstance(text, str)}
        return with_headers(
            await run_in_threadpool(_guarded, context, lambda: answer(request, fields))
        )

    return endpoint


def _guarded(context: Context, answer: Callable[[], Response]) -> Response:
    try:
        return answer()
    except NotFound as error:
        return _error_page(context, 404, "Not found", str(error))
    except InvalidValue as error:
        return _error_page(context, 422, "That cannot be shown", str(error))


def _error_page(context: Context, status: int, title: str, detail: str) -> Response:
    scope = load_scope(context, None)
    return render_page("error.html", scope, status=status, title=title, detail=detail)
