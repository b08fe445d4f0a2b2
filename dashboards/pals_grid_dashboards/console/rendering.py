"""Templates to responses: escaping on, undefined names refused, figures formatted by filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from pals_grid_dashboards.console import formats

if TYPE_CHECKING:
    from pals_grid_dashboards.console.loading import Scope

_FILTERS = (
    formats.number,
    formats.significant,
    formats.with_unit,
    formats.power,
    formats.energy,
    formats.energy_kwh,
    formats.money,
    formats.price,
    formats.carbon_intensity,
    formats.carbon_mass,
    formats.tokens,
    formats.percent,
    formats.duration,
)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pals_grid_dashboards.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({f.__name__: f for f in _FILTERS})
    return environment


_ENVIRONMENT = _environment()


def render_text(template: str, **values: Any) -> str:  # noqa: ANN401  # whatever a template shows
    """HTML of a template."""
    return _ENVIRONMENT.get_template(template).render(**values)


def render_page(
    template: str,
    scope: Scope,
    *,
    status: int = 200,
    **values: Any,  # noqa: ANN401  # whatever a template shows
) -> HTMLResponse:
    """Return a whole page, or a fragment, about the chosen site."""
    return HTMLResponse(render_text(template, scope=scope, **values), status)
