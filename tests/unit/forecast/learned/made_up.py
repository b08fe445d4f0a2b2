"""Series made up by a fixed seed: a day's and a week's shape, and weather that lasts a while."""

from __future__ import annotations

import numpy as np

from pals_grid.forecast.learned.grid import Grid

MONDAY_S = 1_577_664_000  # 2019-12-30T00:00Z
HOUR_S = 3600


def made_up(days: int, *, seed: int = 1, step_s: int = HOUR_S) -> Grid:
    random = np.random.default_rng(seed)
    count = days * 86_400 // step_s
    hours = np.arange(count) * step_s / 3600
    weekend = (hours // 24 % 7) >= 5
    weather = np.zeros(count)
    pull = 1 - step_s / 3600 / 20
    noise = random.normal(0, 4 * np.sqrt(step_s / 3600), count)
    for i in range(1, count):
        weather[i] = pull * weather[i - 1] + noise[i]
    shape = 20 * np.sin(2 * np.pi * (hours - 8) / 24) + 8 * np.sin(4 * np.pi * hours / 24)
    return Grid(MONDAY_S, step_s, 100 + shape - 25 * weekend + weather)
