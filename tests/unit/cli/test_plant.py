from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pals_grid.cli.main import main
from pals_grid.cli.plant import command
from pals_grid.powermodel import measured
from pals_grid.powermodel.fitted import encode_fit, packaged_fit

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, shared_data: Path) -> Path:
    target = tmp_path / measured.A100_TABLE
    target.parent.mkdir()
    shutil.copy(shared_data / "power-perf" / measured.A100_TABLE, target)
    return tmp_path


def test_validate_prints_stable_json(folder: Path) -> None:
    result = CliRunner().invoke(command, ["validate", "--data", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    plain = json.loads(result.stdout)
    (report,) = plain["sets"]
    assert report["set"] == "pals_author_a100"
    assert report["errors"]["throughput"]["mean_pct"] < 2
    assert list(report["by_limit_w"]) == ["100", "150", "250", "350", "400"]
    assert plain["response_to_limit"]["B200"] == "extrapolated"
    assert plain["cross_validation"] == []


def test_validate_takes_a_fit_of_its_own(folder: Path) -> None:
    own = folder / "fit.json"
    own.write_bytes(encode_fit(packaged_fit()))
    result = CliRunner().invoke(command, ["validate", "--data", str(folder), "--fit", str(own)])
    assert result.exit_code == 0, result.output
    assert "126 rows, 0 unknown" in result.stdout


def test_cross_validation_keeps_its_progress_off_the_output(folder: Path) -> None:
    arguments = ["validate", "--data", str(folder), "--cross-validate", "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["cross_validation"]) == 9


def test_fit_writes_the_same_file_again(shared_data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    for path in (first, second):
        arguments = ["fit", "--data", str(shared_data / "power-perf"), "--out", str(path)]
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, result.output
        assert "165 groups" in result.stdout
    assert first.read_bytes() == second.read_bytes()


def test_a_fit_cannot_go_into_a_folder_that_is_not_there(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "none" / "fit.json"
    arguments = ["fit", "--data", str(shared_data / "power-perf"), "--out", str(path)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code != 0
    assert "directory that exists" in str(result.exception)


def _without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make imports of these fail as where they are not installed."""
    ours = "pals_grid.powermodel.train."
    for name in list(sys.modules):
        if name.startswith((ours, *(f"{package}." for package in packages))):
            monkeypatch.delitem(sys.modules, name)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("package", ["numpy", "scipy"])
def test_a_fit_without_its_packages_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    _without(monkeypatch, package)
    profile = tmp_path / "profile.csv"
    profile.write_text("")
    for arguments in (
        ["plant", "fit", "--data", str(tmp_path), "--out", str(tmp_path / "fit.json")],
        ["profile", "fit", str(profile), "--out", str(tmp_path / "table.json")],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, result.output
        wanted = f"error: {package} is not installed: pip install 'pals-grid[train]'\n"
        assert result.stderr == wanted
