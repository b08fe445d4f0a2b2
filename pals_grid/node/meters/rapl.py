"""Power of CPU packages and memory by RAPL, from the kernel's powercap files.

``intel-rapl:N`` are the packages (AMD's too), ``intel-rapl:N:M`` named ``dram`` the memory beside
them; ``energy_uj`` counts microjoules and begins anew after ``max_energy_range_uj`` (Linux,
``Documentation/power/powercap/powercap.rst``). Since 2020 only root may read the counter. GPUs,
fans, network and power supplies are not in it, so the figure is never a whole node's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.errors import DeviceError, DevicePermission, DeviceUnsupported
from pals_grid.node.meters.source import checked_w

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path("/sys/class/powercap")
FIRST_SPAN_S = 0.5
LONGEST_S = 60.0
"""A counter may pass its end more than once in a longer pause: it is begun anew."""


@dataclass(frozen=True, slots=True)
class _Zone:
    path: Path
    range_uj: int


class RaplSource:
    """Sums packages and memory; ``root`` holds the zones."""

    name = "rapl"
    is_whole = False
    poll_s = 1.0

    def __init__(
        self,
        root: Path = ROOT,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._monotonic_s = monotonic_s
        self._wait = wait
        self._zones: list[_Zone] = []
        self._before: tuple[float, list[int]] | None = None

    def read_w(self) -> float:
        """Mean power since the last reading; the first waits for half a second.

        Raises:
            DeviceError: when the zones are not there or cannot be read.
        """
        if not self._zones:
            self._zones = self._find_zones()
        if self._before is None or self._monotonic_s() - self._before[0] > LONGEST_S:
            self._before = self._look()
            self._wait(FIRST_SPAN_S)
        then_s, then_uj = self._before
        now_s, now_uj = self._before = self._look()
        if now_s <= then_s:
            raise DeviceError("RAPL: no time has gone by")
        used_uj = sum(
            now - then if now >= then else now - then + zone.range_uj
            for zone, then, now in zip(self._zones, then_uj, now_uj, strict=True)
        )
        return checked_w(used_uj / 1e6 / (now_s - then_s), "RAPL power")

    def _look(self) -> tuple[float, list[int]]:
        return self._monotonic_s(), [_read(zone.path / "energy_uj") for zone in self._zones]

    def _find_zones(self) -> list[_Zone]:
        # intel-rapl-mmio:N is the same package by another door, psys and core overlap with it.
        found = [
            _Zone(path, _read(path / "max_energy_range_uj"))
            for path in sorted(self._root.glob("intel-rapl:*"))
            if _name(path).startswith("package-") or _name(path) == "dram"
        ]
        if not found:
            raise DeviceUnsupported(f"no RAPL package below {self._root}")
        return found


def _name(path: Path) -> str:
    try:
        return (path / "name").read_text().strip()
    except OSError:
        return ""


def _read(path: Path) -> int:
    try:
        return int(path.read_text())
    except PermissionError as error:
        raise DevicePermission(f"{path}: only root may read it") from error
    except (OSError, ValueError) as error:
        raise DeviceError(f"{path}: cannot be read: {error}") from error
