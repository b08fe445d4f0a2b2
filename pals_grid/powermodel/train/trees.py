"""What the physics core leaves over, by LightGBM: a random forest and gradient boosting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pals_grid.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pals_grid.powermodel.train.engines import Floats

MIN_ROWS = 20
"""Below this trees say nothing, and the physics core stands alone."""

_COMMON: Mapping[str, object] = {
    "objective": "regression",
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
    "min_data_in_leaf": 4,
    "min_data_in_bin": 1,
    "bagging_freq": 1,
}
FOREST: Mapping[str, object] = {
    **_COMMON,
    "boosting": "rf",
    "num_leaves": 12,
    "bagging_fraction": 0.7,
    "feature_fraction": 0.7,
}
BOOSTING: Mapping[str, object] = {
    **_COMMON,
    "boosting": "gbdt",
    "num_leaves": 6,
    "learning_rate": 0.05,
    "lambda_l2": 1.0,
    "bagging_fraction": 0.8,
}
_ROUNDS = 120


class TreeResidual:
    """Trees over physics features; ``parameters`` are ``FOREST`` or ``BOOSTING``.

    Raises:
        ConfigurationError: when LightGBM cannot be imported.
    """

    def __init__(
        self, features: Floats, left: Floats, parameters: Mapping[str, object], seed: int
    ) -> None:
        self._booster: Any = None
        lightgbm = _import_lightgbm()
        if len(left) < MIN_ROWS:
            return
        # Residuals are hundredths of a logarithm; per cent keeps LightGBM's thresholds apart.
        data = lightgbm.Dataset(features, 100 * left, free_raw_data=True)
        chosen = {**parameters, "seed": seed}
        self._booster = lightgbm.train(chosen, data, num_boost_round=_ROUNDS)

    def predict(self, features: Floats) -> Floats:
        """Residual at ``features``; 0 where there were too few rows."""
        if self._booster is None:
            return np.zeros(len(features))
        result: Floats = np.asarray(self._booster.predict(features, num_threads=1)) / 100
        return result


def _import_lightgbm() -> Any:  # noqa: ANN401 - the package has no types
    try:
        import lightgbm  # noqa: PLC0415 - a heavy package, and an optional one
    except (ImportError, OSError) as error:
        text = f"LightGBM: install pals-grid[train] and the system's libgomp1 ({error})"
        raise ConfigurationError(text) from error
    return lightgbm
