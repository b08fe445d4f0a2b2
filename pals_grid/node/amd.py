"""AMD GPUs through AMD SMI's Python binding, ``amdsmi``; nobody else imports it.

Units of the binding, on Linux bare metal (ROCm's "AMD SMI Python API reference" and amdsmi.h
7.0): power in W, power caps in uW, energy as accumulator times ``counter_resolution`` in uJ,
temperatures in degrees Celsius, clocks in MHz. Whatever a board does not have reads "N/A".

A board that is divided into compute partitions shows one processor each; power and cap belong to
the first, and the others are left out. Why a clock is low comes from ``gpu_metrics``: the
library's own ``amdsmi_get_violation_status`` sleeps for 100 ms, which a tick cannot afford.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission, DeviceUnsupported
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import ClockReason, GpuSample, PowerLimitRange
from pals_grid.node.gpu_driver import (
    EnergyIntegral,
    OptionalReads,
    Reopening,
    open_each,
    set_power_limit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pals_grid.core.commands import ActuationResult

log = logging.getLogger(__name__)

TOLERANCE_W = 1.5
"""The driver keeps whole watts."""
MIN_RATIO = 0.25
"""ASSUMED, where the driver tells 0 W as the least cap: no cap below this share of the highest is
asked for."""
_MICRO = 1e6

_UNSUPPORTED = {
    2: "NOT_SUPPORTED",
    3: "NOT_YET_IMPLEMENTED",
    5: "FAIL_LOAD_SYMBOL",
    44: "NON_AMD_CPU",
    45: "NO_ENERGY_DRV",
    46: "NO_MSR_DRV",
    47: "NO_HSMP_DRV",
    48: "NO_HSMP_SUP",
    49: "NO_HSMP_MSG_SUP",
    55: "SETTING_UNAVAILABLE",
}
_LOST = {
    4: "FAIL_LOAD_MODULE",
    6: "DRM_ERROR",
    18: "INIT_ERROR",
    31: "NOT_FOUND",
    32: "NOT_INIT",
    34: "DRIVER_NOT_LOADED",
    51: "NO_DRV",
    52: "FILE_NOT_FOUND",
}
# The rest passes or is our own mistake: the device is neither gone nor unable.
_OTHER = {
    1: "INVAL",
    7: "API_FAILED",
    8: "TIMEOUT",
    9: "RETRY",
    11: "INTERRUPT",
    12: "IO",
    13: "ADDRESS_FAULT",
    14: "FILE_ERROR",
    15: "OUT_OF_RESOURCES",
    16: "INTERNAL_EXCEPTION",
    17: "INPUT_OUT_OF_BOUNDS",
    19: "REFCOUNT_OVERFLOW",
    20: "DIRECTORY_NOT_FOUND",
    30: "BUSY",
    33: "NO_SLOT",
    39: "MORE_DATA",
    40: "NO_DATA",
    41: "INSUFFICIENT_SIZE",
    42: "UNEXPECTED_SIZE",
    43: "UNEXPECTED_DATA",
    50: "HSMP_TIMEOUT",
    53: "ARG_PTR_NULL",
    54: "AMDGPU_RESTART_ERR",
    56: "CORRUPTED_EEPROM",
    0xFFFFFFFE: "MAP_ERROR",
    0xFFFFFFFF: "UNKNOWN_ERROR",
}
ERROR_TYPES: dict[int, type[DeviceError]] = {
    10: DevicePermission,  # NO_PERM
    **dict.fromkeys(_UNSUPPORTED, DeviceUnsupported),
    **dict.fromkeys(_LOST, DeviceLost),
    **dict.fromkeys(_OTHER, DeviceError),
}
"""By ``amdsmi_status_t`` of amdsmi.h 7.0."""

_POWER_KEYS = ("socket_power", "current_socket_power", "average_socket_power")
_RESIDENCIES = {
    "ppt_residency_acc": ClockReason.POWER_LIMIT,
    "prochot_residency_acc": ClockReason.HARDWARE,
    "socket_thm_residency_acc": ClockReason.THERMAL,
    "vr_thm_residency_acc": ClockReason.THERMAL,
    "hbm_thm_residency_acc": ClockReason.THERMAL,
}


def load_amdsmi() -> Any:  # noqa: ANN401 - the binding has no types
    """Import the binding.

    Raises:
        DeviceLost: when the binding or its library is not there.
    """
    try:
        with contextlib.redirect_stdout(None):  # it prints where it did not find its library
            return importlib.import_module("amdsmi")
    except (ImportError, OSError, KeyError, AttributeError) as error:
        raise DeviceLost(f"amdsmi cannot be loaded: {error}") from error


def translate(error: Exception, name: str) -> DeviceError:
    """Turn an error of the binding into this project's; an unknown one is a DeviceError."""
    code = getattr(error, "err_code", None)
    kind = ERROR_TYPES.get(code, DeviceError) if isinstance(code, int) else DeviceError
    text = " ".join(str(error).split())
    return kind(f"{name}: {text} (AMD SMI status {code})")


def open_gpus(
    smi: Any = None,  # noqa: ANN401 - as above
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> tuple[AmdGpu, ...]:
    """Start AMD SMI and return the GPUs of this machine; ``smi`` is the binding.

    Raises:
        DeviceError: when the library or the driver does not answer, or no GPU of several does.
    """
    smi = smi or load_amdsmi()
    _call(smi, "amdsmi_init")

    def open_one(handle: Any) -> AmdGpu | None:  # noqa: ANN401 - opaque
        try:
            uuid = str(_call(smi, "amdsmi_get_gpu_device_uuid", handle))
            return AmdGpu(smi, uuid, handle, monotonic_s=monotonic_s)
        except DeviceUnsupported as error:
            log.info("AMD processor without a power cap is left out: %s", error)
            return None

    handles = enumerate(_call(smi, "amdsmi_get_processor_handles"))
    return open_each({f"AMD GPU at index {at}": partial(open_one, one) for at, one in handles})


class AmdGpu:
    """One GPU behind the node's port. Raises DeviceError when it cannot be described."""

    def __init__(
        self,
        smi: Any,  # noqa: ANN401 - as above
        uuid: str,
        handle: Any,  # noqa: ANN401 - opaque
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._smi = smi
        self._handle = handle
        self._integral = EnergyIntegral(monotonic_s)
        self._reopening = Reopening(monotonic_s)
        self._optional_reads = OptionalReads(uuid)
        self._residencies: dict[str, int] = {}
        asic = self._ask("amdsmi_get_gpu_asic_info")
        self.uuid: Final = uuid
        self.model: Final = str(asic["market_name"])
        caps = self._ask("amdsmi_get_power_cap_info")
        low, high = _number(caps, "min_power_cap"), _number(caps, "max_power_cap")
        default = _number(caps, "default_power_cap") or high
        if low is None or not high or not default:
            raise DeviceUnsupported(f"AMD GPU {uuid}: has no power cap of its own: {caps}")
        low = low or MIN_RATIO * high
        self.limit_range: Final = PowerLimitRange(low / _MICRO, high / _MICRO, default / _MICRO)
        self.energy_origin = Origin.MEASURED
        if self._counter_j() is None:
            self.energy_origin = Origin.MODELLED

    def observe(self) -> GpuSample:
        """Read power, energy, cap, hotspot temperature, graphics clock and throttling.

        Raises:
            DeviceError: translated from AMD SMI.
        """
        return self._reopening.look(self._observe, self._reopen)

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Write the cap in uW, then judge by the one that reads back."""
        return set_power_limit(
            power_limit_w, self.limit_range, TOLERANCE_W, self._write_cap, self._cap_w
        )

    def _observe(self) -> GpuSample:
        power_w = self._power_w()
        return GpuSample(
            power_draw_w=power_w,
            energy_j=self._energy_j(power_w),
            power_limit_w=self._cap_w(),
            temperature_c=self._temperature_c(),
            sm_clock_mhz=self._clock_mhz(),
            clock_reasons=self._clock_reasons(),
        )

    def _power_w(self) -> float:
        info = self._ask("amdsmi_get_power_info")
        for key in _POWER_KEYS:
            found = _number(info, key)
            if found is not None:
                return found
        raise DeviceError(f"amdsmi_get_power_info: no power among {info}")

    def _write_cap(self, wanted_w: float) -> None:
        self._ask("amdsmi_set_power_cap", 0, round(wanted_w * _MICRO))

    def _cap_w(self) -> float:
        cap = _number(self._ask("amdsmi_get_power_cap_info"), "power_cap")
        if cap is None:
            raise DeviceError("amdsmi_get_power_cap_info: power_cap is not there")
        return cap / _MICRO

    def _counter_j(self) -> float | None:
        count = self._optional("amdsmi_get_energy_count")
        if count is None:
            return None
        accumulator = _number(count, "energy_accumulator")
        resolution = _number(count, "counter_resolution")
        if not accumulator or not resolution:  # a counter that stands at 0 does not count
            return None
        return accumulator * resolution / _MICRO

    def _energy_j(self, power_w: float) -> float:
        if self.energy_origin is Origin.MEASURED:
            found = self._counter_j()
            if found is None:
                raise DeviceError("amdsmi_get_energy_count: the counter is gone")
            return found
        return self._integral.add(power_w)

    def _temperature_c(self) -> float | None:
        smi = self._smi
        found = self._optional(
            "amdsmi_get_temp_metric",
            smi.AmdSmiTemperatureType.HOTSPOT,
            smi.AmdSmiTemperatureMetric.CURRENT,
        )
        return float(found) if isinstance(found, int | float) else None

    def _clock_mhz(self) -> float | None:
        found = self._optional("amdsmi_get_clock_info", self._smi.AmdSmiClkType.GFX)
        return None if found is None else _number(found, "clk")

    def _clock_reasons(self) -> ClockReason | None:
        """Residencies that grew since the last look; else the one bit of older boards."""
        metrics = self._optional("amdsmi_get_gpu_metrics_info")
        if metrics is None:
            return None
        now = {
            key: int(value) for key in _RESIDENCIES if (value := _number(metrics, key)) is not None
        }
        before, self._residencies = self._residencies, now
        if now:
            found = ClockReason(0)
            for key, reason in _RESIDENCIES.items():
                if key in now and key in before and now[key] > before[key]:
                    found |= reason
            return found
        for key in ("indep_throttle_status", "throttle_status"):
            if isinstance(metrics.get(key), bool):
                return ClockReason.OTHER if metrics[key] else ClockReason(0)
        return None

    def _reopen(self) -> None:
        handles = _call(self._smi, "amdsmi_get_processor_handles")
        for handle in handles:
            with contextlib.suppress(DeviceError):
                if _call(self._smi, "amdsmi_get_gpu_device_uuid", handle) == self.uuid:
                    self._handle = handle
                    return
        raise DeviceLost(f"AMD GPU {self.uuid}: is not among the {len(handles)} processors")

    def _ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as above
        return _call(self._smi, name, self._handle, *arguments)

    def _optional(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as above
        return self._optional_reads.read(name, lambda: self._ask(name, *arguments))


def _number(fields: Mapping[str, object], key: str) -> float | None:
    """Return a figure; None where the binding says "N/A" or gives another release's fields."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _call(smi: Any, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as above
    try:
        function = getattr(smi, name)
    except AttributeError as error:
        raise DeviceUnsupported(f"{name}: this amdsmi does not have it") from error
    try:
        return function(*arguments)
    except smi.AmdSmiException as error:
        raise translate(error, name) from error
