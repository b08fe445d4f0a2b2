"""/sites/{slug}/tariffs: what a site pays, what a tariff would change, and one more of them."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import AliasPath, BeforeValidator, Field

from pals_grid.api.base import Instant, Model
from pals_grid.api.deps import ContextDep, IfMatchDep
from pals_grid.api.etag import version_tag
from pals_grid.api.preconditions import precondition
from pals_grid.api.routes.plans import SlotSourceOut
from pals_grid.api.routes.reports import MonthlyDemandOut
from pals_grid.core.pricing import EnergyPrice
from pals_grid.core.tariff import Tariff
from pals_grid.core.tariff_document import read_tariff, write_tariff
from pals_grid.service import tariffs
from pals_grid.service.tariffs import StoredTariff, TariffPreview, TariffsView

router = APIRouter(prefix="/sites/{slug}/tariffs", tags=["tariffs"])

EXAMPLE: dict[str, Any] = {
    "format": 1,
    "name": "large user 2026",
    "valid_from_at": "2026-04-01T00:00:00+01:00",
    "factor": 1.02,
    "adders": [
        {"name": "network", "price_per_mwh": 12},
        {"name": "network, peak", "price_per_mwh": 30, "in_period": "peak"},
    ],
    "taxes": [{"name": "levy", "price_per_mwh": 5.5}, {"name": "VAT", "ratio": 0.2}],
    "periods": [
        {
            "name": "peak",
            "start": "16:00",
            "end": "19:00",
            "days": ["mon", "tue", "wed", "thu", "fri"],
            "months": [11, 12, 1, 2],
            "holidays": "never",
        }
    ],
    "holidays": ["2026-12-25", "2027-01-01"],
    "demand_charges": [{"name": "capacity", "price_per_kw": 9.5, "window_s": 1800}],
    "coincident_peaks": [],
    "conversion": {"from_currency": "EUR", "rate": 0.85, "as_of": "2026-03-31"},
}

TariffBody = Annotated[
    dict[str, Any],
    Body(examples=[EXAMPLE], description="a tariff of format 1; docs/howto/tariffs.md has it"),
]


def _write(value: object) -> object:
    return write_tariff(value) if isinstance(value, Tariff) else value


class StoredTariffOut(Model):
    """A tariff, and when it was stored."""

    id: int
    recorded_at: Instant
    tariff: Annotated[dict[str, Any], BeforeValidator(_write)]


class TariffsOut(Model):
    """A site's tariffs, the newest stored first; ``in_force_id`` is null before the first.

    ``version`` is what If-Match of a PUT names; which one is in force changes without it.
    """

    site: str
    version: int
    currency: str
    timezone: str
    in_force_id: int | None
    tariffs: list[StoredTariffOut]


class PricePartOut(Model):
    """What one adder or tax comes to."""

    name: str
    price_per_mwh: float


class EnergyPriceOut(Model):
    """A price in the site's currency, and the sum that it is: ``feed x rate x factor + parts``."""

    price_per_mwh: float
    feed_price_per_mwh: float
    feed_currency: str
    rate: float
    factor: float
    parts: list[PricePartOut]
    sentence: str


def _spell(value: object) -> object:
    if not isinstance(value, EnergyPrice):
        return value
    names = ("price_per_mwh", "feed_price_per_mwh", "feed_currency", "rate", "factor", "parts")
    return {**{name: getattr(value, name) for name in names}, "sentence": value.sentence()}


SpelledPrice = Annotated[EnergyPriceOut | None, BeforeValidator(_spell)]


class PreviewSlotOut(Model):
    """One slot: its price by the tariffs stored, and with the one previewed."""

    start_at: Instant = Field(validation_alias=AliasPath("interval", "start_at"))
    end_at: Instant = Field(validation_alias=AliasPath("interval", "end_at"))
    source: SlotSourceOut | None
    before: SpelledPrice
    after: SpelledPrice
    risk_after_per_mwh: float


class TariffPreviewOut(Model):
    """48 h of prices before and after, and what last month's peaks would have cost."""

    currency: str
    slots: list[PreviewSlotOut]
    month_before: MonthlyDemandOut
    month_after: MonthlyDemandOut


@router.get("", response_model=TariffsOut)
def list_tariffs(context: ContextDep, slug: str) -> TariffsView:
    """Every tariff that the site has had, and which one holds now."""
    return tariffs.list_tariffs(context, slug)


@router.put("", response_model=StoredTariffOut)
def set_tariff(
    context: ContextDep, slug: str, body: TariffBody, expected: IfMatchDep, response: Response
) -> StoredTariff:
    """Store a tariff that holds from its ``valid_from_at`` on; those before it are kept.

    With If-Match only where no other was stored since that ``version``.
    """
    tariff = read_tariff(body)
    with precondition(expected, lambda: tariffs.list_tariffs(context, slug).version):
        stored = tariffs.set_tariff(context, slug, tariff, expected)
    response.headers["etag"] = version_tag(stored.id)
    return stored


@router.post("/preview", response_model=TariffPreviewOut)
def preview_tariff(context: ContextDep, slug: str, body: TariffBody) -> TariffPreview:
    """Work out what a tariff would change, and store nothing."""
    return tariffs.preview_tariff(context, slug, read_tariff(body))
