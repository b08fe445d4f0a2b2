"""The names of what a plan is compared with, and of the plan."""

from __future__ import annotations

NO_CONTROL = "no-control"
STATIC = "static-limit"
AS_IT_COMES = "as-it-comes"
PRICE_THRESHOLD = "price-threshold"
CARBON_THRESHOLD = "carbon-threshold"
PLANNER = "planner"
