"""What a joule costs in a slot: its price, and its emissions at the site's carbon price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.units import G_PER_TONNE, J_PER_KWH, J_PER_MWH

if TYPE_CHECKING:
    from pals_grid.core.budget import PlanSlot
    from pals_grid.core.site import SitePolicy


def cost_per_j(policy: SitePolicy, slot: PlanSlot) -> float | None:
    """Price, risk of the grid's peak and priced emissions of a joule; None when unknown.

    In the site's currency.
    """
    if slot.price_per_mwh is None:
        return None
    paid = (slot.price_per_mwh + slot.peak_risk_per_mwh) / J_PER_MWH
    if policy.carbon_price_per_tonne == 0:
        return paid
    carbon_g_per_kwh = priced_carbon_g_per_kwh(policy, slot)
    if carbon_g_per_kwh is None:
        return None
    carbon = policy.carbon_price_per_tonne / G_PER_TONNE * carbon_g_per_kwh / J_PER_KWH
    return paid + carbon


def priced_carbon_g_per_kwh(policy: SitePolicy, slot: PlanSlot) -> float | None:
    """Average and marginal intensity in the policy's ratio; None where one that counts is unknown.

    An intensity with no weight need not be known.
    """
    marginal = policy.marginal_carbon_ratio
    total = 0.0
    for weight, value in (
        (1 - marginal, slot.carbon_g_per_kwh),
        (marginal, slot.marginal_carbon_g_per_kwh),
    ):
        if weight > 0:
            if value is None:
                return None
            total += weight * value
    return total
