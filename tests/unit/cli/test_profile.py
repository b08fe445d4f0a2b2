from __future__ import annotations

import gzip
import hashlib
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("scipy")

from pals_grid.core.fleet import Origin
from pals_grid.powermodel.frontier_file import load_frontier_file
from pals_grid.powermodel.profile import ProfileRow
from pals_grid.powermodel.profile_csv import write_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from click.testing import Result

    Run = Callable[..., Result]


def _rows(model: str = "m", factor: float = 1.0) -> list[ProfileRow]:
    """SYNTHETIC: throughput goes with what the limit leaves above 60 W of a draw of 300 W."""
    return [
        ProfileRow(
            "A100-SXM4", 4, model, limit_w, batch,
            factor * 50 * batch * (min(limit_w, 300.0) - 60) / 240, 4 * min(limit_w, 300.0),
            input_per_output=5.0, origin=Origin.SIMULATED,
        )
        for limit_w in (100.0, 150.0, 250.0, 400.0)
        for batch in (1, 8)
    ]  # fmt: skip


def _save(path: Path, rows: Sequence[ProfileRow]) -> Path:
    stream = io.StringIO(newline="")
    write_profile(rows, stream)
    path.write_text(stream.getvalue())
    return path


def test_fit_writes_a_table_that_says_where_it_comes_from(run: Run, tmp_path: Path) -> None:
    profile = _save(tmp_path / "p.csv", _rows())
    out = tmp_path / "t.json"
    found = run("profile", "fit", str(profile), "--out", str(out), "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    table, provenance = load_frontier_file(out)
    assert told["points"] == len(table.points)
    assert table.origin is Origin.SIMULATED
    assert provenance.rows == 8
    assert provenance.predictor == "ensemble"
    assert provenance.source_sha256 == hashlib.sha256(profile.read_bytes()).hexdigest()
    assert provenance.throughput_mape_ratio < 0.05
    assert provenance.cross_validated_throughput_mape_ratio is not None


def test_fit_wants_one_model_and_learns_from_the_others(run: Run, tmp_path: Path) -> None:
    few = [row for row in _rows("few", 3.0) if row.power_limit_w == 400]
    packed = tmp_path / "p.csv.gz"
    packed.write_bytes(gzip.compress(_save(tmp_path / "p.csv", [*_rows(), *few]).read_bytes()))
    out = tmp_path / "t.json"
    call = ("profile", "fit", str(packed), "--out", str(out), "--predictor", "physics")
    asked = run(*call)
    assert asked.exit_code == 3
    assert "model: must be given: one of few, m" in asked.stderr
    assert run(*call, "--model", "none").exit_code == 3
    found = run(*call, "--model", "few")
    assert found.exit_code == 0, found.output
    assert "fitted on 2 simulated rows (physics)" in found.stdout
    assert load_frontier_file(out)[1].cross_validated_power_mape_ratio is None


def test_evaluate_prints_errors_overall_by_limit_and_by_model(run: Run, tmp_path: Path) -> None:
    high = [replace(row, tokens_per_s=2 * row.tokens_per_s) for row in _rows("new", 3.0)]
    train = _save(tmp_path / "a.csv", [*_rows(), *(r for r in high if r.power_limit_w == 400)])
    test = _save(tmp_path / "b.csv", [r for r in high if r.power_limit_w < 400])
    call = ("profile", "evaluate", "--train", str(train), "--test", str(test), "--add-cells", "1")
    found = run(*call, "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["predictor"] == "ensemble"
    assert told["overall"]["n"] == told["test_rows"] == 5
    assert set(told["by_limit_w"]) <= {"100", "150", "250"}
    assert set(told["by_model"]) == {"new"}
    assert set(told["predictors"]) == {"physics", "forest", "boosting", "ensemble"}
    assert told["predictors"]["ensemble"]["overall"] == told["overall"]
    assert len(told["added_cells"]["new"]) == 1
    assert told["unseen_models"] is None
    shown = run(*call, "--predictor", "forest")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("added to training of new: ")
    assert "boosting, overall" in shown.stdout


def test_evaluate_tells_models_that_training_never_saw_apart(run: Run, tmp_path: Path) -> None:
    train = _save(tmp_path / "a.csv", _rows())
    test = _save(tmp_path / "b.csv", _rows("far", 9.0))
    found = run("profile", "evaluate", "--train", str(train), "--test", str(test), "--json")
    told = json.loads(found.stdout)
    assert told["overall"] is None
    assert told["unseen_models"]["n"] == 8
    shown = run("profile", "evaluate", "--train", str(train), "--test", str(test))
    assert "models without a row in training" in shown.stdout


def test_evaluate_leaves_each_limit_out_in_turn(run: Run, tmp_path: Path) -> None:
    train = _save(tmp_path / "a.csv", _rows())
    found = run("profile", "evaluate", "--train", str(train), "--leave-one", "limit", "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["leave_one"] == "limit"
    assert {limit: each["n"] for limit, each in told["by_limit_w"].items()} == {
        "100": 2, "150": 2, "250": 2, "400": 2,
    }  # fmt: skip


def test_bad_input_is_named_and_has_its_exit_code(run: Run, tmp_path: Path) -> None:
    good = _save(tmp_path / "a.csv", _rows())
    text = good.read_text()
    for content, named in (
        (text.replace(",250.0,", ",-250,", 1).encode(), "bad.csv, line 6, power_limit_w: must be"),
        (b"", "bad.csv, line 1: must have the columns"),
        (text.splitlines()[0].encode(), "bad.csv: must have at least one row"),
        (b"\xff\xfe\x00", "bad.csv: must be UTF-8"),
        (gzip.compress(text.encode())[:40], "bad.csv: must be whole gzip"),
    ):
        bad = tmp_path / "bad.csv"
        bad.write_bytes(content)
        found = run("profile", "evaluate", "--train", str(good), "--test", str(bad))
        assert found.exit_code == 3, found.output
        assert named in found.stderr
    assert run("profile", "evaluate", "--train", str(good)).exit_code == 2
    out = ("--out", str(tmp_path / "none" / "t.json"))
    assert run("profile", "fit", str(good), *out).exit_code == 3
