from __future__ import annotations

from pathlib import Path

import pytest

from pals_grid.core.errors import DeviceError, DevicePermission, DeviceUnsupported
from pals_grid.node.meters import rapl
from pals_grid.node.meters.rapl import RaplSource

RANGE_UJ = 262_143_328_850


class Tree:
    """Two packages with memory, and the zones that overlap with them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_s = 100.0
        for zone, name in (
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:2", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
        ):
            (root / zone).mkdir()
            (root / zone / "name").write_text(f"{name}\n")
            (root / zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
            self.set(zone, 1_000_000)

    def set(self, zone: str, energy_uj: int) -> None:
        (self.root / zone / "energy_uj").write_text(f"{energy_uj}\n")

    def add(self, zone: str, joules: float) -> None:
        path = self.root / zone / "energy_uj"
        self.set(zone, (int(path.read_text()) + round(joules * 1e6)) % RANGE_UJ)

    def run(self, seconds: float) -> None:
        self.now_s += seconds
        for zone, watt in (
            ("intel-rapl:0", 120.0),
            ("intel-rapl:0:0", 90.0),
            ("intel-rapl:0:1", 15.0),
            ("intel-rapl:1", 80.0),
            ("intel-rapl:2", 500.0),
            ("intel-rapl-mmio:0", 120.0),
        ):
            self.add(zone, watt * seconds)

    def source(self) -> RaplSource:
        return RaplSource(self.root, monotonic_s=lambda: self.now_s, wait=self.run)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_packages_and_memory_count_once(tree: Tree) -> None:
    source = tree.source()
    assert source.read_w() == pytest.approx(215.0)
    tree.run(1.0)
    assert source.read_w() == pytest.approx(215.0)
    assert not source.is_whole


def test_a_counter_that_begins_anew_costs_nothing(tree: Tree) -> None:
    source = tree.source()
    tree.set("intel-rapl:0", RANGE_UJ - 30_000_000)
    tree.set("intel-rapl:0:1", RANGE_UJ - 1)
    assert source.read_w() == pytest.approx(215.0)
    tree.run(1.0)
    assert source.read_w() == pytest.approx(215.0)


def test_a_long_pause_begins_anew(tree: Tree) -> None:
    source = tree.source()
    source.read_w()
    tree.now_s += 3600.0
    assert source.read_w() == pytest.approx(215.0)


def test_what_cannot_be_read_is_told(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceUnsupported, match="no RAPL package"):
        RaplSource(tree.root / "intel-rapl:0").read_w()
    (tree.root / "intel-rapl:1/energy_uj").write_text("")
    with pytest.raises(DeviceError, match="energy_uj: cannot be read"):
        tree.source().read_w()

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DevicePermission, match="only root"):
        rapl._read(tree.root / "energy_uj")


def test_no_time_and_no_energy_are_no_power(tree: Tree) -> None:
    source = RaplSource(tree.root, monotonic_s=lambda: 100.0, wait=lambda _: None)
    with pytest.raises(DeviceError, match="no time has gone by"):
        source.read_w()

    def stand_still(seconds: float) -> None:
        tree.now_s += seconds

    source = RaplSource(tree.root, monotonic_s=lambda: tree.now_s, wait=stand_still)
    with pytest.raises(DeviceError, match="RAPL power: must be above 0"):
        source.read_w()
