from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import FrontierTable, OperatingPoint, Origin
from pals_grid.powermodel.frontier_file import (
    Provenance,
    load_frontier,
    load_frontier_file,
    write_frontier,
)

if TYPE_CHECKING:
    from pathlib import Path

PROVENANCE = Provenance(
    fitted_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    predictor="ensemble",
    rows=24,
    source_sha256="ab" * 32,
    throughput_mape_ratio=0.01,
    power_mape_ratio=0.005,
    cross_validated_throughput_mape_ratio=0.03,
    cross_validated_power_mape_ratio=None,
)
TABLE = FrontierTable(
    gpu_model="A100-SXM4",
    gpu_count=4,
    model="m",
    input_per_output=5.5,
    origin=Origin.MEASURED,
    points=tuple(
        OperatingPoint(limit_w, batch, limit_w * batch / 10, 3.6 * limit_w, 0.2, 0.03, clock)
        for clock in (None, 900.0)
        for limit_w in (100.0, 200.0)
        for batch in (1, 8)
    ),
)


def _write(path: Path, **changes: Any) -> None:  # noqa: ANN401 - any JSON
    write_frontier(path, TABLE, PROVENANCE)
    document = json.loads(path.read_bytes())
    for key, value in changes.items():
        place = document
        *way, last = key.split("__")
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value
    path.write_text(json.dumps(document))


def test_a_table_comes_back_with_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_frontier(path, TABLE, PROVENANCE)
    assert load_frontier(path) == TABLE
    assert load_frontier_file(path) == (TABLE, PROVENANCE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize(
    ("change", "value", "named"),
    [
        ("format_version", 2, "format_version: must be 1, got 2"),
        ("surprise", 1, "must be a frontier table.*surprise"),
        ("points", [], "must be a frontier table"),
        ("origin", "guessed", "must be a frontier table"),
        ("gpu_count", 0, "must be a frontier table"),
        ("provenance__source_sha256", "abc", "must be a frontier table"),
        ("provenance__fitted_at", "2026-03-01T12:00:00", "must be a frontier table"),
        ("points__1__tokens_per_s", 0.0, r"points\[1\].tokens_per_s: must be above 0"),
        ("points__1__itl_s", -0.1, r"points\[1\].itl_s: must be above 0"),
        ("points__0__gpu_power_w", 1000.0, r"points\[0\].gpu_power_w: must be 440 at most"),
        ("points__1__max_num_seqs", 1, r"points\[1\]: must be there once"),
        ("points__2__tokens_per_s", 1.0, "at 200 W x 1: must be 10 or more"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, change: str, value: object, named: str) -> None:
    path = tmp_path / "table.json"
    _write(path, **{change: value})
    with pytest.raises(InvalidValue, match=named):
        load_frontier(path)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"format_version": "1"}', b"\xff\xfe"])
def test_another_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(raw)
    with pytest.raises(InvalidValue, match=r"table\.json: must be a frontier table"):
        load_frontier(path)


def test_a_table_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    broken = replace(TABLE, points=(replace(TABLE.points[0], ttft_s=float("nan")),))
    with pytest.raises(InvalidValue, match="ttft_s"):
        write_frontier(path, broken, PROVENANCE)
    assert not path.exists()
