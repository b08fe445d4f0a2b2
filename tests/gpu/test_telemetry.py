"""Telemetry of a real NVIDIA GPU under a load of this test's own. Reads; sets nothing.

``PALS_GRID_GPU`` names the GPU (a UUID; default: the first), ``PALS_GRID_TORCH_PYTHON`` an
interpreter with PyTorch for CUDA, ``PALS_GRID_MEASUREMENTS`` the folder for the result.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pals_grid.core.errors import DeviceError
from pals_grid.core.fleet import Origin
from pals_grid.node.telemetry_check import MARKDOWN_HEAD, check_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pals_grid.node.nvml import NvmlGpu
    from pals_grid.node.telemetry_check import TelemetryCheck

pytestmark = pytest.mark.gpu

LOAD = Path(__file__).with_name("load.py")
FOLDER = Path(__file__).parents[2] / "docs" / "measurements"
BAR_RATIO = 0.02
SETTLE_S = 15.0
SECONDS = 60.0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> NvmlGpu:
    """A real GPU through a binding that cannot write any more."""
    nvml = pytest.importorskip("pals_grid.node.nvml", reason="nvidia-ml-py is not installed")
    nvml_call = pytest.importorskip("pals_grid.node.nvml_call")
    forbid_writes(nvml_call.pynvml, monkeypatch)
    try:
        found: tuple[NvmlGpu, ...] = nvml.open_gpus()
    except DeviceError as error:
        pytest.skip(f"no NVIDIA GPU here: {error}")
    if not found:
        pytest.skip("no NVIDIA GPU here: NVML shows none")
    wanted = os.environ.get("PALS_GRID_GPU", found[0].uuid)
    chosen = [gpu for gpu in found if wanted == gpu.uuid]
    assert chosen, f"PALS_GRID_GPU: must be one of {[gpu.uuid for gpu in found]}, got {wanted!r}"
    return chosen[0]


def forbid_writes(binding: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """Let every function that could change a device fail before it reaches the library."""
    real = binding._nvmlGetFunctionPointer

    def guarded(name: str) -> object:
        assert not re.match(r"nvml\w*?(Set|Reset|Clear|Create|Destroy|Modify)[A-Z]", name), name
        return real(name)

    monkeypatch.setattr(binding, "_nvmlGetFunctionPointer", guarded)


def find_torch() -> str:
    tried = [os.environ.get("PALS_GRID_TORCH_PYTHON"), sys.executable, shutil.which("python3")]
    for python in [path for path in tried if path]:
        code = "import torch; raise SystemExit(not torch.cuda.is_available())"
        if subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("no interpreter with PyTorch for CUDA; set PALS_GRID_TORCH_PYTHON")


@contextmanager
def loaded(python: str, uuid: str) -> Iterator[None]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid}
    with subprocess.Popen(
        [python, str(LOAD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], 300.0)
            assert ready, "the load did not begin within 300 s"
            assert process.stdout.readline() == b"ready\n"
            yield
            assert process.poll() is None, "the load ended before the measurement did"
        finally:
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def keep(check: TelemetryCheck) -> None:
    folder = Path(os.environ.get("PALS_GRID_MEASUREMENTS", FOLDER))
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", check.model.lower()).strip("-")
    at = datetime.now(tz=UTC).strftime("%Y-%m-%d")
    path = folder / f"gpu-telemetry-{slug}-{at}.json"
    path.write_text(json.dumps({"measured_on": at, **check.as_json()}, indent=1) + "\n")
    path.with_suffix(".md").write_text(f"{MARKDOWN_HEAD}\n{check.as_markdown()}\n")
    sys.stderr.write(f"\n{MARKDOWN_HEAD}\n{check.as_markdown()}\nkept in {path}\n")


def test_integrated_power_is_the_counters_energy(gpu: NvmlGpu) -> None:
    if gpu.energy_origin is not Origin.MEASURED:
        pytest.skip(f"{gpu.model} has no energy counter to compare with")
    before_w = gpu.observe().power_limit_w
    with loaded(find_torch(), gpu.uuid):
        time.sleep(SETTLE_S)
        check = check_telemetry(gpu, SECONDS)
    keep(check)
    assert gpu.observe().power_limit_w == before_w
    assert check.power_mean_w > 0.3 * gpu.limit_range.max_w, "the load is no load"
    assert abs(check.ratio - 1) <= BAR_RATIO
