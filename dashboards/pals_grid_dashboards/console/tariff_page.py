"""What a site pays: the tariff in words, a form for the next, its preview before it is saved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from pals_grid.core.errors import Conflict, InvalidValue
from pals_grid.core.time_of_use import HolidayRule
from pals_grid.service.tariffs import list_tariffs, preview_tariff, set_tariff
from pals_grid_dashboards.console import loading
from pals_grid_dashboards.console.rendering import render_page
from pals_grid_dashboards.console.substitutes import SUBSTITUTE
from pals_grid_dashboards.console.tariff_form import blank_form, digest, read_form
from pals_grid_dashboards.console.tariff_words import tariff_lines
from pals_grid_dashboards.console.words import origin_labels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response

    from pals_grid.core.pricing import EnergyPrice
    from pals_grid.service.context import Context
    from pals_grid.service.tariffs import StoredTariff, TariffPreview
    from pals_grid_dashboards.console.loading import SiteScope
    from pals_grid_dashboards.console.tariff_form import TariffForm

HISTORY_SHOWN = 20
HOLIDAY_WORDS = {
    HolidayRule.AS_USUAL: "as on any day",
    HolidayRule.NEVER: "never on them",
    HolidayRule.ALWAYS: "always on them",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A preview as the page shows it; means are over the slots that have a price both times."""

    preview: TariffPreview
    digest: str
    mean_before_per_mwh: float | None
    mean_after_per_mwh: float | None
    priced: int
    changed_since: bool = False
    stored_since: bool = False


class TariffPage:
    """The page of tariffs and what is posted to it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def show(self, request: Request) -> Response:
        """Show the tariff in force in words, above a form that has it already."""
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return render_page("no_site.html", scope, here="tariff")
        held = list_tariffs(self._context, scope.site.policy.slug).in_force
        form = blank_form(held.tariff if held else None, scope.local)
        return self._page(scope, form, saved=request.query_params.get("saved"))

    def take(self, request: Request, fields: dict[str, str]) -> Response:
        """Preview what was typed; save it only where that is what was previewed."""
        scope = loading.load_scope(self._context, request.query_params.get("site"))
        if not isinstance(scope, loading.SiteScope):
            return render_page("no_site.html", scope, here="tariff")
        form = read_form(fields, scope.local)
        slug = scope.site.policy.slug
        shown = None
        if form.tariff is not None:
            try:
                wanted = fields.get("do") == "save"
                is_seen = fields.get("previewed") == digest(form.tariff)
                if wanted and is_seen:
                    stored = self._save(slug, form)
                    if stored is not None:
                        return RedirectResponse(f"/tariff?site={slug}&saved={stored.id}", 303)
                    form.typed.pop("version", None)  # the next one is of what is stored now
                shown = self._preview(slug, form, wanted=wanted, is_seen=is_seen)
            except InvalidValue as error:
                place = {"valid_from_at": "valid_from"}.get(
                    error.field, error.field.removeprefix("conversion.")
                )
                form.refuse(place, f"{error.bound}, got {error.value}")
        return self._page(scope, form, shown=shown, status=422 if form.errors else 200)

    def _save(self, slug: str, form: TariffForm) -> StoredTariff | None:
        """Store what was previewed; None where another was stored since the form was filled."""
        assert form.tariff is not None
        version = re.fullmatch(r"[0-9]{1,18}", form.typed.get("version", ""))
        expected = int(version[0]) if version else None
        try:
            return set_tariff(self._context, slug, form.tariff, expected)
        except Conflict:
            return None

    def _preview(self, slug: str, form: TariffForm, *, wanted: bool, is_seen: bool) -> Shown:
        assert form.tariff is not None
        preview = preview_tariff(self._context, slug, form.tariff)
        both = [slot for slot in preview.slots if slot.before and slot.after]
        return Shown(
            preview=preview,
            digest=digest(form.tariff),
            mean_before_per_mwh=_mean(slot.before for slot in both),
            mean_after_per_mwh=_mean(slot.after for slot in both),
            priced=sum(slot.after is not None for slot in preview.slots),
            changed_since=wanted and not is_seen,
            stored_since=wanted and is_seen,
        )

    def _page(
        self,
        scope: SiteScope,
        form: TariffForm,
        *,
        shown: Shown | None = None,
        saved: str | None = None,
        status: int = 200,
    ) -> Response:
        view = list_tariffs(self._context, scope.site.policy.slug)
        currency = scope.site.policy.currency
        held = view.in_force
        return render_page(
            "tariff.html",
            scope,
            status=status,
            here="tariff",
            form=form,
            shown=shown,
            saved=next((item for item in view.tariffs if str(item.id) == saved), None),
            in_force=held,
            lines=tariff_lines(held.tariff, currency, scope.local) if held else [],
            history=view.tariffs[:HISTORY_SHOWN],
            version=form.typed.get("version") or view.version,
            currency=currency,
            holiday_words=HOLIDAY_WORDS,
            substitute_label=SUBSTITUTE,
            origin_labels=origin_labels,
        )


def _mean(prices: Iterable[EnergyPrice | None]) -> float | None:
    held = [price.price_per_mwh for price in prices if price is not None]
    return sum(held) / len(held) if held else None
