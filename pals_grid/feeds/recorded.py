"""An HTTP client that answers from memory: for tests, and for trying a connector offline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pals_grid.core.errors import FeedUnavailable
from pals_grid.core.ports import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class RecordedHttp:
    """``core.ports.HttpClient`` with one answer a URL; ``asked`` keeps what was asked for."""

    answers: Mapping[str, HttpResponse | bytes]
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - answers do not depend on it
    ) -> HttpResponse:
        """Return the answer for ``url``, whatever the parameters; bare bytes are a 200.

        Raises:
            FeedUnavailable: when nothing is recorded for ``url``.
        """
        self.asked.append((url, dict(params or {})))
        answer = self.answers.get(url)
        if answer is None:
            raise FeedUnavailable(f"nothing is recorded for {url}")
        return HttpResponse(url, 200, {}, answer) if isinstance(answer, bytes) else answer

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Return the answer for ``url`` and keep the form as what was asked."""
        return self.get(url, form, headers)
