"""Noise of a node's draw beyond what its work explains.

Calibrated on the 0.1 s traces of github.com/gpu2grid/live, commit fa1bd18 (Apache-2.0; ML.ENERGY
v3 runs on H100 without a limit). Where prompts are rare, as in the Qwen3 runs with batches of 8
to 32, the node's draw has a standard deviation of 1.8 to 3.1 %, of which about half keeps for
half a minute and half is gone after 0.2 s; dense models at batch 8 to 16 have 0.5 to 2.1 %. (The
fast half is taken as steps of 0.25 s, which it resembles closely enough at ticks of 500 ms.) The
long upper tail of the other traces (up to 1.6 times the median, lasting 0.2 to 0.5 s) is prefill,
which the plant makes itself. The slow half stands for what the plant leaves out: the contexts'
lengths and which experts are hit.
Left out: noise of single GPUs apart from their node's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pals_grid.powermodel.physics import LIMIT_RATIO

if TYPE_CHECKING:
    import random

NOISE_STEP_S = 0.25
_FAST_SD = 0.0125
_SLOW_SD = 0.015
_SLOW_TAU_S = 28.0
_SLOW_KEPT = math.exp(-NOISE_STEP_S / _SLOW_TAU_S)
#: Noise is cut here, relative to the draw.
NOISE_BOUND_RATIO = 0.05

#: Under a limit that binds less of the noise is left: the A100 table's cells at limits of 100 and
#: 150 W differ by 0.7 % among each other (their mean below the limit is ``LIMIT_RATIO``).
_HELD_NOISE = 0.35
#: The regulator acts fully where the free draw would reach the limit, and not at all where the
#: noise leaves room.
_ROOM_RATIO = 0.03
IDLE_NOISE = 0.2


class DrawNoise:
    """White noise on a slow first-order process, one value a step for all of a node's GPUs."""

    def __init__(self, seed: random.Random) -> None:
        self._gauss = seed.gauss
        self._slow = self._gauss(0.0, _SLOW_SD)
        self.value = 0.0
        self.step()

    def step(self) -> None:
        """Go on by ``NOISE_STEP_S``."""
        self._slow = _SLOW_KEPT * self._slow + self._gauss(0.0, _SLOW_RENEWED)
        both = self._slow + self._gauss(0.0, _FAST_SD)
        self.value = max(-NOISE_BOUND_RATIO, min(NOISE_BOUND_RATIO, both))


def regulated(power_w: float, limit_w: float) -> tuple[float, float]:
    """Return how far a limit regulates a draw (0 to 1), and how much of its noise is left."""
    room_w = limit_w * LIMIT_RATIO - power_w
    share = min(1.0, max(0.0, 1 - room_w / (_ROOM_RATIO * limit_w)))
    return share, 1 - (1 - _HELD_NOISE) * share


_SLOW_RENEWED = _SLOW_SD * math.sqrt(1 - _SLOW_KEPT**2)
