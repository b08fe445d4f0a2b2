from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pals_grid.core.budget import Reason
from pals_grid.core.errors import InvalidValue
from pals_grid.evaluate.config import ReplayConfig
from pals_grid.evaluate.plot import plot_replay
from pals_grid.evaluate.render import render_text
from pals_grid.evaluate.result import ReplayResult, ReplayRow, ReplayRun, ReplaySlot

START = datetime(2022, 12, 1, tzinfo=UTC)
ROW = ReplayRow(
    start_at=START,
    node_energy_kwh=1.0,
    gpu_energy_kwh=0.5,
    idle_energy_kwh=0.1,
    cost=0.4,
    carbon_g=300.0,
    tokens_in=1e6,
    tokens_out=3.6e6,
    requests_finished=200,
    ttft_misses=10,
    itl_misses=0,
)
SLOT = ReplaySlot(START, 1200.0, Reason.DEMAND, "because", 400.0, None)


def run(name: str, row: ReplayRow) -> ReplayRun:
    total = replace(row, start_at=None)
    return ReplayRun(name, "somehow", (row,), total, 3, ((START, 1000.0),))


RESULT = ReplayResult(
    start_at=START,
    hours=1,
    currency="GBP",
    seed=1,
    plant="a plant",
    controlled=run("With", ROW),
    uncontrolled=run("Without", replace(ROW, node_energy_kwh=2.0, cost=None)),
    slots=(SLOT, replace(SLOT, start_at=START + timedelta(minutes=30))),
    plans=2,
    cpu_s=1.5,
)


def test_ratios_of_a_row() -> None:
    assert ROW.node_j_per_token == pytest.approx(1.0)
    assert ROW.gpu_j_per_token == pytest.approx(0.5)
    assert ROW.ttft_miss_ratio == 0.05
    assert ROW.itl_miss_ratio == 0
    assert ROW.idle_energy_ratio == pytest.approx(0.1)


def test_savings_are_shares_and_none_where_one_side_is_unknown() -> None:
    assert RESULT.saving_ratio("node_energy_kwh") == pytest.approx(0.5)
    assert RESULT.saving_ratio("cost") is None


def test_the_text_has_every_hour_the_total_the_savings_and_the_labels() -> None:
    lines = render_text(RESULT).splitlines()
    hour = next(line for line in lines if line.startswith("01 00:00"))
    assert hour.split() == [
        *("01", "00:00", "1.00", "0.50", "0.40", "0.30", "1.00", "3.60", "1.000", "0.500"),
        *("200", "10", "(5.0", "%)", "0", "(0.0", "%)"),
    ]
    assert sum(line.startswith("total") for line in lines) == 2
    assert "3 requests were still inside at the end." in lines
    assert any("energy (node)" in line and "50.0 %" in line for line in lines)
    assert any("synthetic" in line for line in lines)
    assert any("simulated" in line for line in lines)


def test_the_json_form_is_plain_and_keeps_unknown_as_null() -> None:
    document = json.loads(json.dumps(RESULT.to_json(), default=str))
    assert document["controlled"]["total"]["node_j_per_token"] == pytest.approx(1.0)
    assert document["uncontrolled"]["hours"][0]["cost"] is None
    assert document["saving_ratio"]["node_energy_kwh"] == pytest.approx(0.5)
    assert document["slots"][0]["reason"] == "demand"


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the plot extra")
    path = tmp_path / "replay.png"
    plot_replay(RESULT, path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("start_at", "hours", "field"),
    [
        (START.replace(tzinfo=None), 24, "start_at"),
        (START.replace(minute=30), 24, "start_at"),
        (START, 0, "hours"),
        (START, 1000, "hours"),
    ],
)
def test_an_impossible_replay_is_refused_by_field(
    start_at: datetime, hours: int, field: str
) -> None:
    nowhere = Path("nowhere")
    with pytest.raises(InvalidValue) as caught:
        ReplayConfig(nowhere, nowhere, nowhere, start_at, hours)
    assert caught.value.field == field
