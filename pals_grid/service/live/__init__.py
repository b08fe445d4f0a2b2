"""Live grants: rounds of the sites that this replica decides about."""
