"""A sysfs tree of the xe driver in a temporary folder, driven by the simulated plant.

``XeTree`` plays the driver: before a file is read the plant's readings go into the tree, and a
write is taken, clamped and shown as the driver would. Readings are simulated.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pals_grid.core.errors import DevicePermission
from pals_grid.node.intel import Sysfs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pals_grid.sim.gpu import SimGpu

REGISTER_W = 0.125
"""The limit's register counts in eighths of a watt."""


class XeTree(Sysfs):
    def __init__(self, root: Path, gpus: Sequence[SimGpu], *, channel: int = 1) -> None:
        super().__init__(root)
        self.gpus = gpus
        self.channel = channel
        self.denied = False
        self.offset = 3  # hwmon numbers have nothing to do with the GPU's
        for index, gpu in enumerate(gpus):
            device = self.device(index)
            (device / "tile0/gt0/freq0/throttle").mkdir(parents=True)
            (device / "vendor").write_text("0x8086\n")
            (device / "device").write_text("0xe20b\n")
            self.link(index)
            self.put(index, f"power{channel}_rated_max", round(gpu.limit_range.max_w * 1e6))
        foreign = root / "class/hwmon/hwmon0"
        foreign.mkdir()
        (foreign / "name").write_text("coretemp\n")
        self.refresh()

    def device(self, index: int) -> Path:
        return self.root / f"devices/pci0000:00/0000:{index + 3:02x}:00.0"

    def hwmon(self, index: int) -> Path:
        return self.root / f"class/hwmon/hwmon{index + self.offset}"

    def link(self, index: int) -> None:
        self.hwmon(index).mkdir(parents=True, exist_ok=True)
        (self.hwmon(index) / "name").write_text("xe\n")
        (self.hwmon(index) / "device").symlink_to(self.device(index))

    def renumber(self) -> None:
        """Load the driver anew: the folders get other numbers."""
        before, self.offset = self.offset, self.offset + 10
        for index in range(len(self.gpus)):
            (self.root / f"class/hwmon/hwmon{index + before}").rename(self.hwmon(index))

    def put(self, index: int, name: str, value: int) -> None:
        (self.hwmon(index) / name).write_text(f"{value}\n")

    def refresh(self) -> None:
        for index, gpu in enumerate(self.gpus):
            sample = gpu.observe()
            limit_w = round(sample.power_limit_w / REGISTER_W) * REGISTER_W
            self.put(index, f"power{self.channel}_max", round(limit_w * 1e6))
            self.put(index, f"energy{self.channel}_input", round(sample.energy_j * 1e6))
            self.put(index, "temp2_input", 1000 * (40 + round(sample.power_draw_w / 20)))
            freq = self.device(index) / "tile0/gt0/freq0"
            (freq / "act_freq").write_text(f"{round(sample.sm_clock_mhz or 0)}\n")
            capped = int(sample.power_draw_w > 0.95 * sample.power_limit_w)
            (freq / "throttle/status").write_text(f"{capped}\n")
            (freq / "throttle/reason_pl1").write_text(f"{capped}\n")
            (freq / "throttle/reason_thermal").write_text("0\n")

    def read(self, path: Path) -> int:
        if path.parent.exists():
            self.refresh()
        return super().read(path)

    def write(self, path: Path, value: int) -> None:
        if self.denied:
            raise DevicePermission(f"{path}: {errno.EACCES}")
        super().write(path, value)
        for index, gpu in enumerate(self.gpus):
            if path == self.hwmon(index) / f"power{self.channel}_max":
                gpu.apply_power_limit(min(value / 1e6, gpu.limit_range.max_w))
