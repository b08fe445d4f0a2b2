"""The running service's REST API, as the data commands use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import requests

from pals_grid.cli.exits import ServiceRefused
from pals_grid.core.errors import InvalidValue, LinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT_S = 60.0

url_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--url",
    envvar="PALS_GRID_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Address of the running service (PALS_GRID_URL).",
)
site_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--site", help="Slug of the site; may be left out where there is only one."
)


class ServiceClient:
    """Calls below ``/api/v1``; problems become ServiceRefused, silence LinkUnavailable."""

    def __init__(self, url: str) -> None:
        self._base = url.rstrip("/") + "/api/v1"

    def get(self, path: str, **params: object) -> Any:  # noqa: ANN401 - JSON
        """GET as JSON."""
        return self._send("GET", path, params).json()

    def get_text(self, path: str, **params: object) -> str:
        """GET as text."""
        return self._send("GET", path, params).text

    def get_all(self, path: str, **params: object) -> list[Any]:
        """All items of a list, page after page."""
        items: list[Any] = []
        cursor: str | None = None
        while True:
            page = self.get(path, **params, limit=1000, cursor=cursor)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    def post(
        self,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:  # noqa: ANN401 - JSON
        """POST JSON."""
        return self._send("POST", path, {}, body, headers, timeout_s=timeout_s).json()

    def delete(self, path: str) -> None:
        """DELETE."""
        self._send("DELETE", path, {})

    def patch(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        """PATCH JSON."""
        return self._send("PATCH", path, {}, body, headers).json()

    def put(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        """PUT JSON."""
        return self._send("PUT", path, {}, body, headers).json()

    def only_site(self) -> str:
        """Slug of the only site there is.

        Raises:
            InvalidValue: when there is none, or more than one.
        """
        found = self.get("/sites", limit=2)["items"]
        if len(found) != 1:
            count = "there is none yet" if not found else "there are several"
            raise InvalidValue("site", None, f"must name a site, because {count}")
        return str(found[0]["slug"])

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, object],
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> requests.Response:
        given = {name: str(value) for name, value in params.items() if value is not None}
        try:
            response = requests.request(
                method,
                self._base + path,
                params=given,
                json=body,
                headers=dict(headers or {}),
                timeout=timeout_s,
                allow_redirects=False,
            )
        except (requests.RequestException, ValueError) as error:
            raise LinkUnavailable(f"{self._base} does not answer: {error}") from error
        if not 200 <= response.status_code < 300:
            raise _refusal(response)
        return response


def _refusal(response: requests.Response) -> ServiceRefused:
    kind = field = ""
    try:
        document = response.json()
        items = document.get("errors") or []
        parts = [f"{item['field']}: {item['bound']}, got {item['value']!r}" for item in items]
        text = "; ".join(parts) or document.get("detail") or document.get("title")
        kind = str(document.get("type", "")).rpartition(":")[2]
        field = str(items[0]["field"]) if items else ""
    except (ValueError, AttributeError, KeyError, TypeError):
        text = response.text[:200]
    wish = response.headers.get("Retry-After", "")
    return ServiceRefused(
        response.status_code,
        str(text) or f"HTTP {response.status_code}",
        kind=kind,
        field=field,
        retry_after_s=float(wish) if wish.isdecimal() else None,
    )
