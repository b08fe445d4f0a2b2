"""Conversions between the inside (W, J, s) and the market's edge (kW, kWh, MWh)."""

J_PER_KWH = 3_600_000.0
J_PER_MWH = 3_600_000_000.0
W_PER_KW = 1_000.0
KWH_PER_MWH = 1_000.0
G_PER_TONNE = 1_000_000.0
S_PER_H = 3_600.0


def kwh_from_j(energy_j: float) -> float:
    """Energy in kWh from joules."""
    return energy_j / J_PER_KWH


def cost_of_energy(energy_j: float, price_per_mwh: float) -> float:
    """Cost of ``energy_j`` at ``price_per_mwh``, in the price's currency."""
    return energy_j / J_PER_MWH * price_per_mwh


def emissions_g(energy_j: float, carbon_g_per_kwh: float) -> float:
    """Emissions of ``energy_j`` at ``carbon_g_per_kwh``, in grams of CO2 equivalent."""
    return energy_j / J_PER_KWH * carbon_g_per_kwh
