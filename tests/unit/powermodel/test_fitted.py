from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from pals_grid.core.errors import InvalidValue, NotFound
from pals_grid.powermodel import measured
from pals_grid.powermodel.fitted import between, decode_fit, encode_fit, packaged_fit
from pals_grid.powermodel.gpu_kinds import KINDS, gpu_kind
from pals_grid.powermodel.served import find_group, predict_point

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.powermodel.measured import LevelRow


def _row(shared_data: Path) -> LevelRow:
    return measured.read_v3(shared_data / "power-perf" / measured.V3_TABLE)[0]


def test_the_packaged_fit_is_read_and_written_alike() -> None:
    fit = packaged_fit()
    assert decode_fit(encode_fit(fit)) == fit
    assert {engine.sheet_name for engine in fit.engines} == {
        "deepseek", "microsoft", "mixtral", "olmoe", "qwen",
    }  # fmt: skip
    assert len({group.key for group in fit.groups}) == len(fit.groups)


def test_a_fit_of_another_version_or_kind_is_refused() -> None:
    newer = msgspec.structs.replace(packaged_fit(), version=2)
    with pytest.raises(InvalidValue, match=r"fit\.version"):
        decode_fit(encode_fit(newer))
    with pytest.raises(InvalidValue, match="plant fit"):
        decode_fit(b'{"version": 1, "surprise": 2}')
    with pytest.raises(InvalidValue, match="plant fit"):
        decode_fit(b"no JSON")


def test_levels_are_straight_in_logarithms_and_held_at_the_ends() -> None:
    assert between((1.0, 4.0), (10.0, 40.0), 2.0) == pytest.approx(20.0)
    assert between((1.0, 4.0), (10.0, 40.0), 0.5) == 10.0
    assert between((1.0, 4.0), (10.0, 40.0), 9.0) == 40.0
    assert between((3.0,), (7.0,), 9.0) == 7.0


def test_a_fitted_group_answers_for_itself(shared_data: Path) -> None:
    row = _row(shared_data)
    fit = packaged_fit()
    group = find_group(fit, row)
    assert group is not None
    assert group.key == row.key
    point = predict_point(fit, row)
    assert point is not None
    assert point.fitted
    assert point.step_ms == pytest.approx(row.step_ms, rel=0.15)


def test_a_group_never_seen_is_predicted_from_the_most_similar(shared_data: Path) -> None:
    row = msgspec.structs.replace(
        _row(shared_data), model="someone/new", family="New", total_params_b=16.0
    )
    fit = packaged_fit()
    assert find_group(fit, row) is None
    point = predict_point(fit, row)
    assert point is not None
    assert not point.fitted
    assert 0.5 * row.step_ms < point.step_ms < 2 * row.step_ms
    assert 0.6 * row.power_w < point.power_w < 1.6 * row.power_w


def test_a_source_that_was_not_fitted_has_no_prediction(shared_data: Path) -> None:
    row = msgspec.structs.replace(_row(shared_data), source="elsewhere")
    assert predict_point(packaged_fit(), row) is None


def test_kinds_are_found_by_the_drivers_name_and_say_what_is_extrapolated() -> None:
    assert gpu_kind("NVIDIA A100-SXM4-80GB").limit_response == "measured"
    assert {kind.name for kind in KINDS if kind.limit_response == "extrapolated"} == {
        "H100",
        "B200",
    }
    with pytest.raises(NotFound, match="Radeon"):
        gpu_kind("Radeon")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_hangs_together(kind: object) -> None:
    assert kind in KINDS
    known = gpu_kind(str(getattr(kind, "name", "")))
    assert known.law.idle_w <= known.law.static_w < known.limit_range.min_w
    assert known.law.static_w + known.prefill_dynamic_w > 0.9 * known.limit_range.max_w
    assert known.overhead.node_power_w(0.0) > 0
