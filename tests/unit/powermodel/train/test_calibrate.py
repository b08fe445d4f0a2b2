from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.powermodel import measured
from pals_grid.powermodel.coefficients import a100_engine
from pals_grid.powermodel.fitted import encode_fit, packaged_fit
from pals_grid.powermodel.measured import CollectiveRow, LevelRow, LimitRow
from pals_grid.powermodel.table import synchronous_round

pytest.importorskip("scipy", reason="fitting needs the train extra")

from pals_grid.powermodel.train.calibrate import calibrate
from pals_grid.powermodel.train.calibrate_a100 import fit_a100
from pals_grid.powermodel.train.calibrate_levels import LevelRegression, fit_levels
from pals_grid.powermodel.train.calibrate_links import fit_links

if TYPE_CHECKING:
    from pathlib import Path


def _plant_table(limits_w: tuple[float, ...]) -> list[LimitRow]:
    """Cells that the packaged plant itself gives: what a fit has to find again."""
    rows = []
    for fitted in packaged_fit().engines[:3]:
        engine = a100_engine(fitted)
        for limit_w in limits_w:
            for batch in fitted.running:
                rate, draw_w = synchronous_round(engine, limit_w, batch, 200.0, 5.0)
                rows.append(LimitRow(fitted.sheet_name, limit_w, batch, rate, draw_w))
    return rows


def test_a_model_known_at_one_limit_gets_the_others_response() -> None:
    table = _plant_table((100.0, 150.0, 200.0, 250.0, 300.0, 400.0))
    hidden = "mixtral"
    kept = [row for row in table if row.model != hidden or row.limit_w == 400.0]
    law, engines = fit_a100(kept)
    assert law.static_w == pytest.approx(packaged_fit().a100.static_w, rel=0.1)
    fitted = next(engine for engine in engines if engine.sheet_name == hidden)
    assert fitted.limits_w == (400.0,)
    engine = a100_engine(fitted, msgspec.structs.replace(packaged_fit(), a100=law))
    for row in table:
        if row.model == hidden and row.limit_w >= 150:
            rate, draw_w = synchronous_round(engine, row.limit_w, row.batch, 200.0, 5.0)
            assert rate == pytest.approx(row.tokens_per_s, rel=0.08)
            assert draw_w == pytest.approx(row.gpu_power_w, rel=0.04)


def test_a_model_without_its_highest_limit_is_named() -> None:
    table = [row for row in _plant_table((150.0, 400.0)) if row.limit_w < 400 or row.batch > 1]
    with pytest.raises(InvalidValue, match="must have a row at 400 W"):
        fit_a100(table)


def _level(model: str, running: float, size_b: float) -> LevelRow:
    step_ms = 4.0 + 0.4 * size_b + 0.05 * running
    return LevelRow(
        source="test", gpu_model="H100", model=model, family=model, task="lm-arena-chat",
        gpu_count=1, tensor_parallel=1, expert_parallel=1, data_parallel=1, precision="bfloat16",
        total_params_b=size_b, activated_params_b=size_b, architecture="Dense Transformer",
        level=running, running=running, step_ms=step_ms, power_w=300 + 40 * math.log(running),
        tokens_per_s=900 * running / step_ms,
    )  # fmt: skip


_SIZES = {"a": 4.0, "b": 8.0, "c": 14.0, "d": 32.0}
_LEVELS = (8.0, 32.0, 64.0, 256.0)


def _rows() -> list[LevelRow]:
    return [_level(model, n, size) for model, size in _SIZES.items() for n in _LEVELS]


def test_levels_left_out_are_predicted_between_those_fitted() -> None:
    asked = [_level(model, 128.0, size) for model, size in _SIZES.items()]
    for row, (step_ms, power_w, rate) in zip(
        asked, LevelRegression(_rows()).predict(asked), strict=True
    ):
        assert step_ms == pytest.approx(row.step_ms, rel=0.06)
        assert power_w == pytest.approx(row.power_w, rel=0.03)
        assert rate * row.running == pytest.approx(row.tokens_per_s, rel=0.06)


def test_a_row_far_off_its_neighbours_does_not_pull_them_along() -> None:
    rows = _rows()
    off = rows.index(_level("b", 64.0, 8.0))
    rows[off] = msgspec.structs.replace(rows[off], step_ms=4 * rows[off].step_ms)
    asked = _level("b", 128.0, 8.0)
    ((step_ms, _, _),) = LevelRegression(rows).predict([asked])
    assert step_ms == pytest.approx(asked.step_ms, rel=0.35)


def test_groups_hold_their_levels_and_an_octave_on_each_side() -> None:
    groups, trend = fit_levels(_rows())
    assert [group.model for group in groups] == ["a", "b", "c", "d"]
    for group in groups:
        assert group.measured_levels == _LEVELS
        assert group.running[0] == pytest.approx(4.0)
        assert group.running[-1] == pytest.approx(512.0)
        assert group.at(32.0)[0] == pytest.approx(
            _level("x", 32.0, group.total_params_b).step_ms, rel=0.05
        )
    assert len(trend.names) == len(trend.step) == len(trend.power) == len(trend.rate)


def test_a_links_latency_and_bandwidth_are_found() -> None:
    rows = [
        CollectiveRow("H100", "alltoall", 8, float(size), 10e-6 + size / 300e9)
        for size in (2**k for k in range(8, 30))
    ]
    (link,) = fit_links(rows)
    assert link.latency_us == pytest.approx(10.0, rel=0.01)
    assert link.bytes_per_s == pytest.approx(300e9, rel=0.01)
    assert link.mean_error_ratio < 0.01


def test_the_packaged_fit_is_what_the_shared_data_give(shared_data: Path) -> None:
    fit, packaged = calibrate(shared_data / "power-perf"), packaged_fit()
    assert fit.a100.static_w == pytest.approx(packaged.a100.static_w, rel=0.01)
    assert fit.a100.linear_share == pytest.approx(packaged.a100.linear_share, rel=0.01)
    assert [group.key for group in fit.groups] == [group.key for group in packaged.groups]
    assert encode_fit(fit).count(b"\n") == encode_fit(packaged).count(b"\n")
    for mine, theirs in zip(fit.groups, packaged.groups, strict=True):
        assert mine.step_ms == pytest.approx(theirs.step_ms, rel=0.01)
        assert mine.power_w == pytest.approx(theirs.power_w, rel=0.01)


def test_a_folder_without_the_sets_is_refused(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(InvalidValue, match="must hold pals_author_a100"):
        calibrate(tmp_path)
    target = tmp_path / measured.A100_TABLE
    target.parent.mkdir()
    shutil.copy(shared_data / "power-perf" / measured.A100_TABLE, target)
    with pytest.raises(InvalidValue, match="must hold mlenergy_v2"):
        calibrate(tmp_path)
