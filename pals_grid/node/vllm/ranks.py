"""The agent's hands on a channel directory: one file per rank, one per front end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission
from pals_grid.node.vllm.channel import FrontFile, RankFile, require_private

if TYPE_CHECKING:
    from pathlib import Path

    from pals_grid.node.vllm.layout import LatencyTotals

F = TypeVar("F", RankFile, FrontFile)


class ChannelDirectory:
    """Keeps the files of living makers open; ``refresh`` finds new ones and lets dead ones go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ranks: dict[str, RankFile] = {}
        self._fronts: dict[str, FrontFile] = {}
        self.error: DeviceError | None = None

    def refresh(self) -> None:
        """Look again. What stands in the way of opening a file is kept in ``error``."""
        self.error = None
        names = []
        try:
            require_private(self.path)
            names = sorted(entry.name for entry in self.path.iterdir())
        except DeviceError as error:
            self.error = error
        except PermissionError as error:
            self.error = DevicePermission(f"{self.path}: {error.strerror}")
        except OSError as error:
            self.error = DeviceLost(f"{self.path}: {error.strerror}")
        self._refresh(self.ranks, [n for n in names if n.startswith("rank-")], RankFile)
        self._refresh(self._fronts, [n for n in names if n.startswith("front-")], FrontFile)

    def latencies(self) -> dict[str, LatencyTotals]:
        """Return what each front end says, by a name that no other process will have."""
        found = {}
        for name, front in self._fronts.items():
            totals = front.latency.read()
            if totals is not None:
                found[f"{name}@{front.maker.started_ticks}"] = totals
        return found

    def require_ranks(self) -> dict[str, RankFile]:
        """Return the ranks that live.

        Raises:
            DeviceLost: when there is none; says why.
            DevicePermission: when this user may not know.
        """
        if not self.ranks:
            kind = DeviceLost if self.error is None else type(self.error)
            why = self.error or "no scheduler runs there"
            raise kind(f"vLLM's channel {self.path}: {why}")
        return self.ranks

    def close(self) -> None:
        """Let go of every file."""
        for file in (*self.ranks.values(), *self._fronts.values()):
            file.close()
        self.ranks.clear()
        self._fronts.clear()

    def _refresh(self, files: dict[str, F], names: list[str], kind: type[F]) -> None:
        for name in [name for name, file in files.items() if not file.is_alive()]:
            files.pop(name).close()
        for name in names:
            if name in files:
                continue
            with contextlib.suppress(FileNotFoundError):
                try:
                    file = kind.open(self.path / name, kind.SIZE)
                except DeviceError as error:
                    self.error = error
                    continue
                if file.is_alive():
                    files[name] = file
                else:
                    file.close()
