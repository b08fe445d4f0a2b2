from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from pals_grid.cli.main import main
from pals_grid.evaluate.suite.catalog import SCENARIOS
from pals_grid.evaluate.suite.suite import Request, evaluate

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

pytest.importorskip("lightgbm")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", *arguments])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("evaluate")
    result = run(
        *("--quick", "--seeds", "1", "--jobs", "1"),
        *("--out", str(folder / "out"), "--markdown", str(folder / "evaluation.md")),
        *("--strategy", "static-max", "--strategy", "pals-grid", "--strategy", "oracle"),
        *("--strategy", "static-share", "--strategy", "clock-lock"),
    )
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.fixture(scope="module")
def document(written: tuple[Path, Result]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((written[0] / "out" / "evaluation.json").read_text())
    return found


def test_every_scenario_gives_results_bars_and_a_picture(
    written: tuple[Path, Result], document: dict[str, Any]
) -> None:
    assert [part["name"] for part in document["scenarios"]] == list(SCENARIOS)
    for part in document["scenarios"]:
        assert part["results"], part["name"]
        assert part["bars"], part["name"]
        assert part["origin"] == "simulated"
        picture = written[0] / "out" / f"evaluation-{part['name']}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_text_fits_and_says_what_it_is(written: tuple[Path, Result]) -> None:
    text = written[1].stdout
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "Everything here is simulated; load: synthetic" in text
    assert "QUICK" in text


def test_the_page_has_every_scenario_its_boundary_and_its_picture(
    written: tuple[Path, Result],
) -> None:
    page = (written[0] / "evaluation.md").read_text()
    for name, scenario in SCENARIOS.items():
        assert f"## {scenario.title} (`{name}`)" in page
        assert f"Power boundary: {scenario.boundary}" in page
        assert f"(images/evaluation-{name}.png)" in page
        assert (written[0] / "images" / f"evaluation-{name}.png").is_file()
    assert "NOT met" in page or "met" in page


def test_the_physics_shows_through(document: dict[str, Any]) -> None:
    """What holds for any sound controller and plant, not how good ours is."""
    found = {
        (part["name"], row["case"], row["strategy"]): row["metrics"]
        for part in document["scenarios"]
        for row in part["results"]
    }
    targeted = [key for key in found if key[0] == "efficiency" and key[2] == "oracle"]
    assert targeted
    for key in targeted:
        assert found[key]["gain_gpu"]["mean"] > 0.1
        assert found[key]["reached_ratio"]["mean"] >= 1.0
    (slo,) = [key for key in found if key[0] == "slo" and key[2] == "static-max"]
    best = found[slo[0], slo[1], "oracle"]
    assert best["tokens_per_j_gpu"]["mean"] > found[slo]["tokens_per_j_gpu"]["mean"]
    assert found["tracking", "steady", "static-share"]["overshoot_ratio"]["mean"] <= 0.02
    assert found["tracking", "steady", "static-share"]["binding_ratio"]["mean"] == 1.0


def test_the_same_seeds_give_the_same_figures_in_two_processes() -> None:
    asked = Request(("tracking",), ("static-share", "pals"), seeds=2, processes=1, quick=True)
    one = evaluate(asked)
    two = evaluate(replace(asked, processes=2))
    assert one.to_json() == two.to_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scenario", "none"), "scenario: must be one of efficiency, slo, "),
        (("--strategy", "none"), "strategy: must be one of static-max, "),
        (("--scenario", "burst", "--strategy", "batch-only"), "must be in one of the scenarios"),
        (("--seeds", "0"), "seeds: must be from 1 to 100, got 0"),
        (("--jobs", "0"), "jobs: must be from 1 to 256, got 0"),
        (("--markdown", "/nowhere/x.md"), "markdown: must be in a directory that exists"),
    ],
)
def test_bad_input_is_named(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 3
    assert message in result.stderr


def test_data_without_the_trace_is_refused(tmp_path: Path) -> None:
    result = run("--data", str(tmp_path))
    assert result.exit_code == 3
    assert "must hold llm-traces/AzureLLMInferenceTrace_conv_2023.csv" in result.stderr
