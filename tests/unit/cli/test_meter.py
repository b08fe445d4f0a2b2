from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pals_grid.cli import meter
from pals_grid.cli.meter import collect_pairs
from pals_grid.core.errors import DeviceError
from pals_grid.node import devices
from pals_grid.node.fake import FakeGpu
from pals_grid.node.meters import choose

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from click.testing import Result

    Run = Callable[..., Result]


class Source:
    poll_s = 2.0

    def __init__(self, name: str, answer: float | None, *, is_whole: bool = True) -> None:
        self.name = name
        self.is_whole = is_whole
        self.answer = answer

    def read_w(self) -> float:
        if self.answer is None:
            raise DeviceError("no answer")
        return self.answer


def test_every_source_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [Source("redfish", None), Source("rapl", 215.0, is_whole=False)]
    monkeypatch.setattr(choose, "make_sources", lambda _: sources)
    found = json.loads(run("meter", "read", "--json").stdout)
    assert found == [
        {"source": "redfish", "power_w": None, "note": "no answer"},
        {"source": "rapl", "power_w": 215.0, "note": "CPUs, memory"},
    ]
    sources[1].answer = None
    silent = run("meter", "read")
    assert silent.exit_code == 5
    assert "no source of the node's power answers" in silent.stderr


def test_a_node_without_a_meter_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "make_sources", lambda _: [])
    found = run("meter", "read")
    assert (found.exit_code, found.stderr.count("this machine has none")) == (3, 1)
    monkeypatch.setattr(choose, "make_sources", lambda _: [Source("rapl", 1.0, is_whole=False)])
    assert "must read the whole node" in run("meter", "fit").stderr


def test_readings_lie_beside_the_mean_gpu_power_before_them() -> None:
    now_s = 0.0
    gpu = FakeGpu(demand_w=100.0, limit_w=400.0)

    def wait(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        gpu.demand_w = 300.0 if now_s >= 2 else 100.0 if now_s < 1 else 200.0

    pairs = collect_pairs(Source("m", 700.0), [gpu, gpu], 4.0, monotonic_s=lambda: now_s, wait=wait)
    assert pairs == [(300.0, 700.0), (600.0, 700.0)]


def test_the_fit_prints_the_agent_s_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(100.0 * i, 420.0 + 115.0 * i) for i in range(1, 21)]
    monkeypatch.setattr(choose, "make_sources", lambda _: [Source("ipmi dcmi", 1.0)])
    monkeypatch.setattr(devices, "open_gpus", lambda _: (FakeGpu(),))
    monkeypatch.setattr(meter, "collect_pairs", lambda *_: pairs)
    found = run("meter", "fit")
    assert found.stdout.startswith("--node-base-w 420.0 --node-per-gpu-w-ratio 0.15\n")
    assert "20 readings of ipmi dcmi, GPUs at 100.0 to 2000.0 W, off by 0.0 W" in found.stdout
    assert json.loads(run("meter", "fit", "--json").stdout)["node_base_w"] == 420.0
