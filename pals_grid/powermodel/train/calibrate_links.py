"""Latency and bandwidth of collectives inside one node, from measured kernel timings."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import least_squares

from pals_grid.powermodel.fitted import FittedLink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pals_grid.powermodel.measured import CollectiveRow


def fit_links(rows: Sequence[CollectiveRow]) -> tuple[FittedLink, ...]:
    """One ``latency + bytes / bandwidth`` a (GPU, operation, count), on log times, robust."""
    grouped: dict[tuple[str, str, int], list[CollectiveRow]] = defaultdict(list)
    for row in rows:
        grouped[row.gpu_model, row.operation, row.gpu_count].append(row)
    return tuple(_fit(group) for _, group in sorted(grouped.items()))


def _fit(rows: Sequence[CollectiveRow]) -> FittedLink:
    sizes = np.array([row.size_bytes for row in rows])
    logs = np.log([row.seconds for row in rows])

    def off(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.log(np.exp(x[0]) + sizes * np.exp(x[1])) - logs)

    found: Any = least_squares(off, np.array([np.log(1e-5), np.log(1e-11)]), loss="soft_l1")
    latency_s, per_byte_s = np.exp(found.x)
    return FittedLink(
        gpu_model=rows[0].gpu_model,
        operation=rows[0].operation,
        gpu_count=rows[0].gpu_count,
        latency_us=float(latency_s * 1e6),
        bytes_per_s=float(1 / per_byte_s),
        mean_error_ratio=float(np.mean(np.abs(np.expm1(off(found.x))))),
    )
