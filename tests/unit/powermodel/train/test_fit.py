from __future__ import annotations

import builtins
import itertools
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("scipy")

from pals_grid.core.errors import ConfigurationError, InvalidValue
from pals_grid.powermodel.profile import ProfileRow
from pals_grid.powermodel.train.fit import MAX_ROWS, Kind, fit_predictor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIMITS_W = (100.0, 150.0, 200.0, 250.0, 300.0, 400.0)
BATCHES = (1, 8, 32, 128)
STATIC_W = 62.0
FREE_W = {1: 170.0, 8: 230.0, 32: 300.0, 128: 360.0}


def _row(
    limit_w: float, batch: int, *, model: str = "m", gpu: str = "A100-SXM4", scale: float = 1.0
) -> ProfileRow:
    """Work that takes a fixed energy above the static draw: SYNTHETIC, without a voltage curve."""
    free_w = FREE_W[batch] * scale
    draw_w = min(limit_w, free_w)
    tokens_per_s = 90 * batch**0.6 * (draw_w - STATIC_W) / (free_w - STATIC_W)
    return ProfileRow(gpu, 4, model, limit_w, batch, tokens_per_s, 4 * draw_w)


def _grid(limits_w: Sequence[float] = LIMITS_W, **engine: object) -> list[ProfileRow]:
    return [_row(w, b, **engine) for w in limits_w for b in BATCHES]  # type: ignore[arg-type]


def _worst(
    rows: Sequence[ProfileRow], kind: Kind, known: Sequence[ProfileRow]
) -> tuple[float, float]:
    predicted = fit_predictor(known, kinds=(kind,)).predict(rows)
    speed = max(
        abs(p.tokens_per_s / r.tokens_per_s - 1) for p, r in zip(predicted, rows, strict=True)
    )
    power = max(
        abs(p.gpu_power_w / r.gpu_power_w - 1) for p, r in zip(predicted, rows, strict=True)
    )
    return speed, power


@pytest.mark.parametrize("kind", Kind)
def test_rows_that_it_saw_come_back(kind: Kind) -> None:
    speed, power = _worst(_grid(), kind, _grid())
    assert speed < 0.06
    assert power < 0.04


def test_a_limit_between_those_known_comes_out() -> None:
    known = [row for row in _grid() if row.power_limit_w != 200]
    speed, power = _worst(_grid([200.0]), Kind.PHYSICS, known)
    assert speed < 0.10
    assert power < 0.04


def test_an_engine_known_at_its_highest_limit_learns_from_the_others() -> None:
    known = [*_grid(), *_grid([400.0], model="new", scale=0.9)]
    test = _grid([100.0, 150.0, 250.0], model="new", scale=0.9)
    alone = _worst(test, Kind.PHYSICS, known[-len(BATCHES) :])[0]
    helped = _worst(test, Kind.PHYSICS, known)[0]
    assert helped < 0.12
    assert helped < alone


@pytest.mark.parametrize(
    "rows",
    [
        [_row(400.0, 8)],
        [_row(150.0, 8), _row(150.0, 32)],
        _grid([250.0]),
        [_row(w, 8) for w in LIMITS_W],
        random.Random(3).sample(_grid(), 8),
        [replace(row, gpu_model="Other 1", power_limit_w=row.power_limit_w / 4) for row in _grid()],
    ],
    ids=["one row", "two at a low limit", "one limit", "one batch", "eight rows", "unknown GPU"],
)
@pytest.mark.parametrize("kind", [Kind.PHYSICS, Kind.ENSEMBLE])
def test_few_rows_give_finite_predictions_that_rise_with_the_limit(
    rows: list[ProfileRow], kind: Kind
) -> None:
    predictor = fit_predictor(rows, kinds=(kind,))
    for batch in (1, 8, 500):
        cells = [
            replace(rows[0], power_limit_w=w, max_num_seqs=batch) for w in (50.0, *LIMITS_W, 800.0)
        ]
        predicted = predictor.predict(cells)
        assert all(0 < p.tokens_per_s < 1e6 and 0 < p.gpu_power_w < 1e5 for p in predicted)
        for low, high in itertools.pairwise(predicted):
            assert high.tokens_per_s >= low.tokens_per_s * 0.97
            assert high.gpu_power_w >= low.gpu_power_w * 0.97


def test_a_lower_clock_costs_throughput_and_power() -> None:
    locked = [
        replace(
            row,
            sm_clock_mhz=1410.0 * ratio,
            tokens_per_s=row.tokens_per_s * ratio,
            gpu_power_w=4 * (STATIC_W + ratio * (row.gpu_power_w / 4 - STATIC_W)),
        )
        for row in _grid([400.0])
        for ratio in (0.4, 0.6, 0.8)
    ]
    predictor = fit_predictor([*_grid([200.0, 300.0, 400.0]), *locked], kinds=(Kind.PHYSICS,))
    cells = [replace(_row(400.0, 32), sm_clock_mhz=mhz) for mhz in (564.0, 705.0, 987.0, None)]
    predicted = predictor.predict(cells)
    for low, high in itertools.pairwise(predicted):
        assert low.tokens_per_s < high.tokens_per_s
        assert low.gpu_power_w < high.gpu_power_w
    half, free = predicted[1], predicted[-1]
    assert half.tokens_per_s / free.tokens_per_s == pytest.approx(0.5, abs=0.04)


def test_a_measured_mix_that_varies_a_little_is_one_engine() -> None:
    rows = [replace(row, input_per_output=5.0 + 0.1 * (i % 3)) for i, row in enumerate(_grid())]
    predictor = fit_predictor(rows, kinds=(Kind.PHYSICS,))
    assert predictor.knows(replace(rows[0], input_per_output=5.3))
    assert not predictor.knows(replace(rows[0], input_per_output=9.0))
    assert not predictor.knows(replace(rows[0], model="other"))


def test_an_engine_without_rows_stands_at_the_mean_of_the_others() -> None:
    predictor = fit_predictor(_grid(), kinds=(Kind.PHYSICS,))
    (own,) = predictor.predict([_row(400.0, 32)])
    (other,) = predictor.predict([_row(400.0, 32, model="other")])
    assert other.tokens_per_s == pytest.approx(own.tokens_per_s, rel=0.3)


def test_two_kinds_of_gpu_are_fitted_apart() -> None:
    other = [
        replace(row, gpu_model="NVIDIA H100 80GB HBM3", tokens_per_s=3 * row.tokens_per_s)
        for row in _grid()
    ]
    both = fit_predictor([*_grid(), *other], kinds=(Kind.PHYSICS,))
    alone = fit_predictor(_grid(), kinds=(Kind.PHYSICS,))
    assert both.predict(_grid()) == alone.predict(_grid())
    with pytest.raises(InvalidValue, match="gpu_model: must be one with rows"):
        both.predict([_row(400.0, 8, gpu="B200")])


def test_the_same_rows_and_seed_give_the_same_predictor() -> None:
    first, second = (fit_predictor(_grid(), seed=7) for _ in range(2))
    assert first.predict(_grid()) == second.predict(_grid())
    assert first.weights() == second.weights()


def test_the_ensemble_adds_at_most_one_whole_correction() -> None:
    weights: Mapping[str, Mapping[str, float]] = fit_predictor(_grid() * 2).weights()["A100"]
    for target in ("throughput", "power"):
        assert set(weights[target]) == {"smooth", "forest", "boosting"}
        assert 0 <= sum(weights[target].values()) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokens_per_s", 0.0), ("gpu_power_w", float("nan")), ("power_limit_w", -1.0)],
)
def test_rows_that_cannot_be_learned_from_are_refused(field: str, value: float) -> None:
    broken = replace(_row(400.0, 8), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=f"row 2: {field}: must be above 0"):
        fit_predictor([_row(400.0, 8), broken], kinds=(Kind.PHYSICS,))


def test_no_rows_too_many_rows_and_no_kind_are_refused() -> None:
    with pytest.raises(InvalidValue, match="rows"):
        fit_predictor([])
    with pytest.raises(InvalidValue, match="rows of A100: must be 3000 or fewer"):
        fit_predictor([_row(400.0, 8)] * (MAX_ROWS + 1))
    with pytest.raises(InvalidValue, match="kinds"):
        fit_predictor(_grid(), kinds=())
    with pytest.raises(InvalidValue, match="kind: must be one of physics"):
        fit_predictor(_grid(), kinds=(Kind.PHYSICS,)).predict(_grid(), Kind.FOREST)


def test_without_lightgbm_it_says_what_to_install_and_physics_still_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name == "lightgbm":
            raise OSError("libgomp.so.1: cannot open shared object file")
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert fit_predictor(_grid(), kinds=(Kind.PHYSICS,)).predict(_grid())
    with pytest.raises(ConfigurationError, match=r"pals-grid\[train\].*libgomp1"):
        fit_predictor(_grid(), kinds=(Kind.FOREST,))
