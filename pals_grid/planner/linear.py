"""The planner: a linear programme over the fleets' merged frontiers (``docs/planner.md``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pals_grid.core.budget import PowerBudget
from pals_grid.planner.decode import solve
from pals_grid.planner.explain import intervals_of
from pals_grid.planner.findings import findings_of
from pals_grid.planner.outcome import serve_as_it_comes
from pals_grid.planner.problem import problem_of
from pals_grid.planner.solver import Unsolved

if TYPE_CHECKING:
    from pals_grid.core.budget import PlanRequest

NAME = "linear"
TIME_LIMIT_S = 10.0


def plan_power_budget(request: PlanRequest, *, time_limit_s: float = TIME_LIMIT_S) -> PowerBudget:
    """Plan a limit in watts for every interval of the request's slots.

    The plan costs least: energy, carbon, charges on peaks and the value of tokens not served.
    Work is never moved into or out of a slot without a signal, except where nothing else is
    left. What cannot be kept is in ``findings``. Without an optimum within ``time_limit_s`` work
    is planned as it comes, and the plan says so.
    """
    problem = problem_of(request)
    try:
        outcome = solve(problem, time_limit_s)
    except Unsolved as error:
        outcome = serve_as_it_comes(problem, str(error))
    return PowerBudget(NAME, intervals_of(problem, outcome), findings_of(problem, outcome))
