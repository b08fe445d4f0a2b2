"""How evenly a mixture-of-experts model uses its experts, where vLLM tells.

It does with ``--enable-return-routed-experts``: outputs carry the experts that their tokens went
to, a whole request's at its end up to 0.30, each step's from 0.31 on. Counting takes a while and
few tokens tell little, so one output of 32 tokens or more is looked at each second. Experts count
up to the highest that was seen.
"""

from __future__ import annotations

import importlib
from typing import Any

_EVERY_S = 1.0
_LEAST_TOKENS = 32
_KEPT_RATIO = 0.9


class ExpertLoads:
    """Loads per layer and expert with a fading memory of about ten outputs."""

    def __init__(self) -> None:
        self._loads: Any = None
        self._next_s = float("-inf")
        self.imbalance = -1.0

    def add(self, routed: Any, now_s: float) -> None:  # noqa: ANN401 - a numpy array of vLLM's
        """Take an output's experts, shape (tokens, layers, experts per token)."""
        if now_s < self._next_s or routed.ndim != 3 or len(routed) < _LEAST_TOKENS:
            return
        self._next_s = now_s + _EVERY_S
        numpy = importlib.import_module("numpy")  # the array is there, so it is loaded
        layers = routed.shape[1]
        width = int(routed.max()) + 1
        offset = numpy.arange(layers)[None, :, None] * width
        counts = numpy.bincount((routed.astype(numpy.int64) + offset).ravel())
        counts = numpy.pad(counts, (0, layers * width - len(counts))).reshape(layers, width)
        if self._loads is not None and self._loads.shape[0] == layers:
            width = max(width, self._loads.shape[1])
            kept = numpy.pad(self._loads, ((0, 0), (0, width - self._loads.shape[1])))
            counts = numpy.pad(counts, ((0, 0), (0, width - counts.shape[1]))) + kept * _KEPT_RATIO
        self._loads = counts
        mean = counts.mean(axis=1)
        used = mean > 0
        self.imbalance = float((counts.max(axis=1)[used] / mean[used]).mean())
