"""Intel GPUs through the xe driver's hwmon and frequency files; no library.

Files and units (Linux, ``Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon`` and
``drivers/gpu/drm/xe/xe_gt_throttle.c``): ``powerN_max`` is the sustained limit in uW, 0 when it
is off, clamped by the driver as it reads; ``powerN_rated_max`` the default; ``energyN_input`` a
counter in uJ; ``temp2_input`` the package in millidegrees. N is 1 for the card and 2 for the
package: the card's are used where the platform has them. Under the PCI device lie
``tile0/gt0/freq0/act_freq`` in MHz and ``.../throttle/reason_*``.

There is no file of the power drawn: it is the energy between two looks by its time. There is no
least limit either: ``MIN_RATIO`` stands in for it. A GPU is known by its PCI address, for hwmon
numbers move.
"""

from __future__ import annotations

import errno
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission, DeviceUnsupported
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import ClockReason, GpuSample, PowerLimitRange
from pals_grid.node.gpu_driver import open_each, set_power_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from pals_grid.core.commands import ActuationResult

MIN_RATIO = 0.5
"""ASSUMED: no limit below this share of the rated power is asked for; the driver tells none."""
TOLERANCE_W = 1.0
"""The register counts in fractions of a watt; what reads back is rounded."""
LEAST_SPAN_S = 0.1
"""Power is taken over this long at least: the counter moves in steps."""
_MICRO = 1e6
_THROTTLE_WORDS = (
    ("reason_pl", ClockReason.POWER_LIMIT),  # pl1, pl2, pl4
    ("reason_thermal", ClockReason.THERMAL),
    ("reason_prochot", ClockReason.THERMAL),
    ("reason_ratl", ClockReason.THERMAL),
    ("reason_vr_thermalert", ClockReason.THERMAL),
)
_ERRNO_TYPES: dict[int, type[DeviceError]] = {
    errno.EACCES: DevicePermission,
    errno.EPERM: DevicePermission,
    errno.EROFS: DevicePermission,
    errno.EOPNOTSUPP: DeviceUnsupported,
    errno.ENODATA: DeviceUnsupported,
    errno.ENXIO: DeviceUnsupported,
    errno.ENOENT: DeviceLost,
    errno.ENODEV: DeviceLost,
    errno.ENOTDIR: DeviceLost,
}


class Sysfs:
    """Whole numbers in files below ``root``."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        self.root = root

    def read(self, path: Path) -> int:
        """Read a file.

        Raises:
            DeviceError: by errno; also where it holds no whole number.
        """
        try:
            return int(path.read_text())
        except OSError as error:
            raise _typed(error, path) from error
        except ValueError as error:
            raise DeviceError(f"{path}: must hold a whole number: {error}") from error

    def write(self, path: Path, value: int) -> None:
        """Write a file.

        Raises:
            DeviceError: by errno.
        """
        try:
            path.write_text(f"{value}\n")
        except OSError as error:
            raise _typed(error, path) from error

    def hwmons(self) -> list[tuple[str, Path]]:
        """PCI address and hwmon folder of each GPU that the xe driver runs, by address."""
        found: list[tuple[str, Path]] = []
        for name in sorted(self.root.glob("class/hwmon/hwmon*/name")):
            try:
                if name.read_text().strip() == "xe":
                    found.append(((name.parent / "device").resolve().name, name.parent))
            except OSError:
                continue  # it went away while we looked
        return sorted(found)


def open_gpus(
    sysfs: Sysfs | None = None,
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> tuple[XeGpu, ...]:
    """Return the GPUs of this machine that have a power limit; the others are logged.

    Raises:
        DeviceLost: when the xe driver runs no GPU.
        DeviceError: when none of several can be described.
    """
    sysfs = sysfs or Sysfs()
    addresses = [address for address, _ in sysfs.hwmons()]
    if not addresses:
        raise DeviceLost(f"no GPU of the xe driver below {sysfs.root}/class/hwmon")
    open_one = partial(XeGpu, sysfs, monotonic_s=monotonic_s, wait=wait)
    return open_each({f"Intel GPU {address}": partial(open_one, address) for address in addresses})


class XeGpu:
    """One GPU behind the node's port, by its PCI ``address``.

    The driver gives no UUID and no product name: ``uuid`` is driver and address, ``model`` PCI
    vendor and device. ``limit_range`` is from half the rated power to the rated power.
    Raises DeviceError on construction when it has no limit or no energy counter.
    """

    energy_origin = Origin.MEASURED

    def __init__(
        self,
        sysfs: Sysfs,
        address: str,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sysfs = sysfs
        self._address = address
        self._monotonic_s = monotonic_s
        self._find()
        self.uuid: Final = f"XE-{address}"
        self.model: Final = self._read_model()
        self.limit_range: Final = self._read_range()
        self._mark = (monotonic_s(), self._energy_j())
        self._power_w = 0.0
        wait(LEAST_SPAN_S)
        self._draw_w(self._energy_j())

    def observe(self) -> GpuSample:
        """Read energy, limit, temperature, clock and throttle reasons.

        Raises:
            DeviceError: by errno.
        """
        try:
            return self._observe()
        except DeviceLost:
            self._find()  # it may be back under another number
            return self._observe()

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Write the sustained limit in uW, then judge by what reads back.

        0 would switch the limit off, and is therefore never written.
        """
        return set_power_limit(
            power_limit_w, self.limit_range, TOLERANCE_W, self._write_limit, self._limit_w
        )

    def _observe(self) -> GpuSample:
        energy_j = self._energy_j()
        temperature = self._optional(self._hwmon / "temp2_input")
        clock = self._optional(self._gt / "act_freq")
        return GpuSample(
            power_draw_w=self._draw_w(energy_j),
            energy_j=energy_j,
            power_limit_w=self._limit_w(),
            temperature_c=None if temperature is None else temperature / 1000,
            sm_clock_mhz=None if clock is None else float(clock),
            clock_reasons=self._clock_reasons(),
        )

    def _find(self) -> None:
        """Find folder and channel anew."""
        for address, hwmon in self._sysfs.hwmons():
            if address == self._address:
                self._hwmon = hwmon
                break
        else:
            raise DeviceLost(f"Intel GPU {self._address}: the xe driver does not run it")
        for channel in (1, 2):
            self._channel = channel
            if self._file("power", "_max").exists() and self._file("energy", "_input").exists():
                break
        else:
            raise DeviceUnsupported(
                f"Intel GPU {self._address}: no power1_max or power2_max beside an energy counter"
            )
        self._gt = self._hwmon / "device" / "tile0" / "gt0" / "freq0"

    def _file(self, kind: str, end: str) -> Path:
        return self._hwmon / f"{kind}{self._channel}{end}"

    def _read_model(self) -> str:
        device = self._hwmon / "device"
        try:
            ids = [(device / name).read_text().strip() for name in ("vendor", "device")]
        except OSError as error:
            raise _typed(error, device) from error
        return "Intel GPU " + ":".join(text.removeprefix("0x") for text in ids)

    def _read_range(self) -> PowerLimitRange:
        """Rated power where the driver tells it, else the limit that is in force."""
        rated_uw = self._optional(self._file("power", "_rated_max"))
        high_w = (rated_uw or self._sysfs.read(self._file("power", "_max"))) / _MICRO
        if high_w <= 0:
            raise DeviceUnsupported(
                f"Intel GPU {self._address}: the limit is off and no rated power is told"
            )
        return PowerLimitRange(MIN_RATIO * high_w, high_w, high_w)

    def _write_limit(self, wanted_w: float) -> None:
        self._sysfs.write(self._file("power", "_max"), round(wanted_w * _MICRO))

    def _limit_w(self) -> float:
        """Return the limit; one that is off is the highest."""
        found_w = self._sysfs.read(self._file("power", "_max")) / _MICRO
        return found_w if found_w > 0 else self.limit_range.max_w

    def _energy_j(self) -> float:
        return self._sysfs.read(self._file("energy", "_input")) / _MICRO

    def _draw_w(self, energy_j: float) -> float:
        """Mean power since the last look that is ``LEAST_SPAN_S`` ago."""
        now_s = self._monotonic_s()
        then_s, then_j = self._mark
        if energy_j < then_j:  # the driver was loaded anew
            self._mark = now_s, energy_j
        elif now_s - then_s >= LEAST_SPAN_S - 1e-9:
            self._power_w = (energy_j - then_j) / (now_s - then_s)
            self._mark = now_s, energy_j
        return self._power_w

    def _clock_reasons(self) -> ClockReason | None:
        throttle = self._gt / "throttle"
        status = self._optional(throttle / "status")
        if not status:
            return None if status is None else ClockReason(0)
        found = ClockReason(0)
        for path in throttle.glob("reason_*"):
            if self._optional(path):
                found |= next(
                    (reason for word, reason in _THROTTLE_WORDS if path.name.startswith(word)),
                    ClockReason.OTHER,
                )
        return found or ClockReason.OTHER

    def _optional(self, path: Path) -> int | None:
        try:
            return self._sysfs.read(path)
        except DeviceError:
            return None  # a card that is gone is seen by its counter


def _typed(error: OSError, path: Path) -> DeviceError:
    kind = _ERRNO_TYPES.get(error.errno or 0, DeviceError)
    return kind(f"{path}: {error.strerror or error}")
