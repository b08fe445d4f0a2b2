"""Step time, draw and rate of a served model without a limit: fitted, or predicted from others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pals_grid.powermodel.features import feature_row

if TYPE_CHECKING:
    from pals_grid.powermodel.fitted import FittedPlant, LevelGroup, Trend
    from pals_grid.powermodel.measured import LevelRow


_FURTHEST = math.log(4.0)
"""No configuration is taken to differ by more than a factor of 4 from the most similar one."""


class ServedPoint(NamedTuple):
    """``power_w`` is per GPU, ``rate`` the tokens/s of one sequence.

    ``fitted``: the group's own levels were fitted; else they are predicted from another group's
    and the trend in sizes, precision and GPUs.
    """

    step_ms: float
    power_w: float
    rate: float
    fitted: bool


def find_group(fit: FittedPlant, served: LevelRow) -> LevelGroup | None:
    """Fitted group of exactly this configuration."""
    return next((group for group in fit.groups if group.key == served.key), None)


def predict_point(fit: FittedPlant, served: LevelRow) -> ServedPoint | None:
    """Step, draw and rate at ``served.running``; None where the source was not fitted at all.

    For a configuration never seen: the levels of the most similar group, times the ratio of the
    trend's two figures.
    """
    group = find_group(fit, served)
    if group is not None:
        return ServedPoint(*group.at(served.running), fitted=True)
    trend = fit.trend(served.source)
    others = [other for other in fit.groups if other.source == served.source]
    if trend is None or not others:
        return None
    nearest = max(others, key=lambda other: _likeness(other, served))
    line = _line(trend, feature_row(served, served.running))
    near_line = _line(trend, feature_row(nearest, served.running))
    step, power, rate = (
        value * math.exp(min(max(here - there, -_FURTHEST), _FURTHEST))
        for value, here, there in zip(nearest.at(served.running), line, near_line, strict=True)
    )
    return ServedPoint(step, power, rate, fitted=False)


def _likeness(group: LevelGroup, served: LevelRow) -> tuple[float, float]:
    """How much of a group's behaviour should carry over; then, how close its size is."""
    shared = (
        8.0 * (group.gpu_model == served.gpu_model)
        + 6.0 * (group.family == served.family)
        + 4.0 * (group.architecture == served.architecture)
        + 3.0 * (group.task == served.task)
        + 2.0 * (group.gpu_count == served.gpu_count)
        + 2.0 * (group.precision == served.precision)
    )
    return shared, -abs(math.log(group.activated_params_b / served.activated_params_b))


def _line(trend: Trend, features: list[float]) -> tuple[float, float, float]:
    step, power, rate = (
        sum(a * b for a, b in zip(slopes, features, strict=True))
        for slopes in (trend.step, trend.power, trend.rate)
    )
    return step, power, rate
