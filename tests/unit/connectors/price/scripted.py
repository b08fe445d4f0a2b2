"""An HTTP client whose answers depend on the whole question, in order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pals_grid.core.ports import HttpResponse

Params = Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    url: str
    params: Params
    headers: Params
    posted: bool = False


@dataclass
class ScriptedHttp:
    """``answer`` gives a body, or a status with one, for what is asked."""

    answer: Callable[[Asked], bytes | tuple[int, bytes]]
    asked: list[Asked] = field(default_factory=list)

    def get(
        self, url: str, params: Params | None = None, headers: Params | None = None
    ) -> HttpResponse:
        return self._answer(Asked(url, dict(params or {}), dict(headers or {})))

    def post(self, url: str, form: Params, headers: Params | None = None) -> HttpResponse:
        return self._answer(Asked(url, dict(form), dict(headers or {}), posted=True))

    def _answer(self, asked: Asked) -> HttpResponse:
        self.asked.append(asked)
        given = self.answer(asked)
        status, body = (200, given) if isinstance(given, bytes) else given
        return HttpResponse(asked.url, status, {}, body)
