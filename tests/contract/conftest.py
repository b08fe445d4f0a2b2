"""A board that does not exist: nvml_shim.c, compiled, below the real binding."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("nvml_shim.c")


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: the NVML shim cannot be built")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", library, SOURCE],
        check=True,
    )
    return library


@pytest.fixture
def shim(nvml_library: Path) -> Iterator[ctypes.CDLL]:
    """The shim in its first state, loaded as the binding's library."""
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    library = ctypes.CDLL(str(nvml_library))
    library.shim_reset()
    before = pynvml.nvmlLib
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield library
    pynvml.nvmlLib = before
    pynvml._nvmlGetFunctionPointer_cache.clear()
