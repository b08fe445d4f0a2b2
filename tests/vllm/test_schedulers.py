"""The real schedulers of many vLLM versions under 10,000 random targets, over a fake model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

REPOSITORY = Path(__file__).parents[2]
SOURCES = Path(sys.prefix) / "versions"
CHANGES = 10_000
INSTALLED = "installed"
VERSIONS = [*sorted(path.name for path in SOURCES.glob("0.*[0-9]") if path.is_dir()), INSTALLED]


def run(version: str, changes: int, seed: int) -> subprocess.CompletedProcess[str]:
    path = [str(SOURCES / version)] if version != INSTALLED else []
    return subprocess.run(
        [sys.executable, "-m", "tests.vllm.scheduler_run", str(changes), str(seed)],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "VLLM_LOGGING_LEVEL": "ERROR",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Start all versions, two at a time."""
    each = -(-CHANGES // len(VERSIONS))
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        yield {
            version: pool.submit(run, version, each, seed) for seed, version in enumerate(VERSIONS)
        }
        pool.shutdown(cancel_futures=True)


def test_the_matrix_has_versions_from_both_ends() -> None:
    assert VERSIONS[0] == "0.12.0"
    assert len(VERSIONS) >= 9


@pytest.mark.parametrize("version", VERSIONS)
def test_random_targets_change_no_token_leak_no_block_and_take_effect(
    version: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]]
) -> None:
    done = runs[version].result()
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["version"].split("+")[0] == version or version == INSTALLED
    assert found["changes"] >= CHANGES // len(VERSIONS)
    assert found["steps_park"] <= 2
    assert found["steps_preempt"] <= 2
    assert found["park_half_s"] <= 1.0
    assert found["park_half_told_s"] > 0.1
    assert found["lapse_s"] <= 5.0
