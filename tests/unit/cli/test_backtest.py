from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.unit.evaluate.backtest.small import write_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    Run = Callable[..., Result]

DAYS = ("--from", "2022-06-01", "--to", "2022-06-02")


def test_a_day_is_backtested_with_the_policies_asked_for(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    site = str(write_site(tmp_path))
    policies = ("--policy", "no-control", "--policy", "planner", "--policy", "foresight")
    out = ("--out", str(tmp_path / "out"), "--markdown", str(tmp_path / "page.md"))
    done = run("backtest", "--site", site, *DAYS, *policies, *out, "--jobs", "1", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    runs = found["sites"][0]["months"][0]["runs"]
    assert [item["policy"] for item in runs] == ["no-control", "planner", "foresight"]
    assert runs[1]["cost"] < runs[0]["cost"]
    assert json.loads((tmp_path / "out" / "backtest.json").read_text()) == found
    assert "Power boundary: node" in (tmp_path / "page.md").read_text()


def test_what_cannot_be_run_is_refused_at_once(run: Run, tmp_path: Path) -> None:
    site = str(write_site(tmp_path))
    unknown = run("backtest", "--site", site, *DAYS, "--policy", "luck")
    assert unknown.exit_code == 4
    assert "luck" in unknown.stderr
    backwards = run("backtest", "--site", site, "--from", "2022-06-02", "--to", "2022-06-01")
    assert backwards.exit_code == 3
    nowhere = run("backtest", "--site", site, *DAYS, "--markdown", str(tmp_path / "no" / "p.md"))
    assert nowhere.exit_code == 3
    (tmp_path / "bad.json").write_text("{}")
    bad = run("backtest", "--site", str(tmp_path / "bad.json"), *DAYS)
    assert bad.exit_code == 3
    assert "bad.json" in bad.stderr
