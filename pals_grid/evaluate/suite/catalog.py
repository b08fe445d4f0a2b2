"""Every scenario by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue
from pals_grid.evaluate.suite.scenarios import (
    burst,
    clock,
    efficiency,
    fleet,
    latency,
    tiers,
    tracking,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.evaluate.suite.scenario import Scenario

_MODULES = (efficiency, latency, clock, fleet, tracking, burst, tiers)

SCENARIOS: Mapping[str, Scenario] = {module.SCENARIO.name: module.SCENARIO for module in _MODULES}


def scenario(name: str) -> Scenario:
    """The scenario called ``name``.

    Raises:
        InvalidValue: lists the known names.
    """
    found = SCENARIOS.get(name)
    if found is None:
        raise InvalidValue("scenario", name, f"must be one of {', '.join(SCENARIOS)}")
    return found
