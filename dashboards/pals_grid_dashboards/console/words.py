"""Codes as words: reasons, modes, origins, kinds, states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.budget import Reason
from pals_grid.core.fleet import Origin
from pals_grid.core.series import Quantity, ValueKind

if TYPE_CHECKING:
    from collections.abc import Iterable

REASONS = {
    Reason.EVENT: "Demand-response event",
    Reason.GRID_CONNECTION: "Grid connection is the limit",
    Reason.MAXIMUM: "Site maximum",
    Reason.RAMP: "Ramp at the grid connection",
    Reason.NO_SIGNAL: "No price or carbon signal",
    Reason.FALLBACK: "No optimum: as it comes",
    Reason.PEAK: "Charge on the peak",
    Reason.CARBON_CAP: "Carbon cap of the day",
    Reason.SHED: "Serving costs more than it is worth",
    Reason.SHIFTED_OUT: "Work moved out: dear or dirty hour",
    Reason.SHIFTED_IN: "Work moved in: cheap or clean hour",
    Reason.MINIMUM: "Site minimum",
    Reason.DEMAND: "What demand needs",
}
ORIGINS = {
    Origin.MEASURED: "read from a device",
    Origin.MODELLED: "calculated by a model, not measured",
    Origin.SIMULATED: "from simulated hardware, not real",
}
KIND_WORDS = {
    ValueKind.MEASURED: "final",
    ValueKind.FORECAST: "forecast",
    ValueKind.MODELLED: "modelled",
    ValueKind.SYNTHETIC: "synthetic",
}
KINDS = {
    ValueKind.MEASURED: "measured, or published as final, by its source",
    ValueKind.FORECAST: "a forecast that its source may revise",
    ValueKind.MODELLED: "a forecast of our own model, where the source has none",
    ValueKind.SYNTHETIC: "made up for a demonstration, not real",
}
QUANTITIES = {
    Quantity.PRICE: "Price",
    Quantity.AVERAGE_INTENSITY: "Average carbon intensity",
    Quantity.MARGINAL_INTENSITY: "Marginal carbon intensity",
}


@dataclass(frozen=True, slots=True)
class Label:
    """A word with its tone (``good``, ``warn``, ``bad``, ``quiet``) and a longer explanation."""

    text: str
    tone: str
    hint: str = ""


MODES = {
    "following": Label("Following", "good", "holds to the plan's envelope"),
    "safe": Label("Safe limit", "warn", "no plan holds: the configured safe limit applies"),
    "observing": Label("Observing", "quiet", "dry run: measures, writes nothing"),
}


def mode_label(mode: str) -> Label:
    """Mode of a node; an unknown one is shown as it is."""
    return MODES.get(mode, Label(mode.capitalize(), "quiet"))


def origin_labels(origins: Iterable[Origin]) -> tuple[Label, ...]:
    """One badge for each origin, in the enumeration's order."""
    held = set(origins)
    return tuple(
        Label(origin.value, "quiet" if origin is Origin.MEASURED else "note", ORIGINS[origin])
        for origin in Origin
        if origin in held
    )


def kind_label(kind: ValueKind) -> Label:
    """Badge of a value's kind."""
    is_made = kind in {ValueKind.MODELLED, ValueKind.SYNTHETIC}
    return Label(KIND_WORDS[kind], "note" if is_made else "quiet", KINDS[kind])
