"""NVIDIA GPUs through NVML, by the ``nvidia-ml-py`` binding; nobody else imports ``pynvml``.

Milliwatts and millijoules stay inside. Devices are known by UUID: indices move. A limit is
written by version 1 of the call (the binding's version 2 drops the return code) and judged by
the enforced limit, which is the lowest that driver, VBIOS and baseboard together allow.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pynvml

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import DeviceError, DeviceLost, DevicePermission, DeviceUnsupported
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import GpuSample, PowerLimitRange

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE_W = 0.5

_UNSUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FREQ_NOT_SUPPORTED,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
        pynvml.NVML_ERROR_RESET_TYPE_NOT_SUPPORTED,
    }
)
_LOST = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_INSUFFICIENT_POWER,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
    }
)
# The rest passes or is our own mistake: the device is neither gone nor unable.
_OTHER = frozenset(
    {
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_ALREADY_INITIALIZED,
        pynvml.NVML_ERROR_INSUFFICIENT_SIZE,
        pynvml.NVML_ERROR_TIMEOUT,
        pynvml.NVML_ERROR_IRQ_ISSUE,
        pynvml.NVML_ERROR_CORRUPTED_INFOROM,
        pynvml.NVML_ERROR_OPERATING_SYSTEM,
        pynvml.NVML_ERROR_IN_USE,
        pynvml.NVML_ERROR_MEMORY,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES,
        pynvml.NVML_ERROR_NOT_READY,
        pynvml.NVML_ERROR_INVALID_STATE,
        pynvml.NVML_ERROR_UNKNOWN,
    }
)
ERROR_TYPES: dict[int, type[DeviceError]] = {
    pynvml.NVML_ERROR_NO_PERMISSION: DevicePermission,
    **dict.fromkeys(_UNSUPPORTED, DeviceUnsupported),
    **dict.fromkeys(_LOST, DeviceLost),
    **dict.fromkeys(_OTHER, DeviceError),
}


def translate(error: pynvml.NVMLError, call: str) -> DeviceError:
    """Turn an NVML error into this project's; a code that nobody knows is a DeviceError."""
    kind = ERROR_TYPES.get(error.value, DeviceError)
    return kind(f"{call}: {error} (NVML code {error.value})")


def open_gpus() -> tuple[NvmlGpu, ...]:
    """Start NVML and return the GPUs of this machine; the binding counts the starts.

    Raises:
        DeviceError: when the library or the driver does not answer.
    """
    _call("nvmlInit")
    gpus: list[NvmlGpu] = []
    for index in range(_call("nvmlDeviceGetCount")):
        handle = _call("nvmlDeviceGetHandleByIndex", index)
        gpus.append(NvmlGpu(_call("nvmlDeviceGetUUID", handle)))
    return tuple(gpus)


def close() -> None:
    """Stop NVML; a library that is gone already is no matter."""
    try:
        _call("nvmlShutdown")
    except DeviceError:
        return


class NvmlGpu:
    """One GPU. Raises DeviceError on construction when it cannot be described.

    Where the board has no energy counter, ``energy_j`` integrates power between looks and
    ``energy_origin`` says ``modelled``.
    """

    def __init__(self, uuid: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._uuid = uuid
        self._monotonic_s = monotonic_s
        self._handle = _call("nvmlDeviceGetHandleByUUID", uuid)
        self._model = str(_call("nvmlDeviceGetName", self._handle))
        self._limit_range = self._read_range()
        self._instant_power = True
        self._integral_j = 0.0
        self._before: tuple[float, float] | None = None
        self.energy_origin = Origin.MEASURED
        self._reads: dict[str, bool] = {}
        if self._optional("nvmlDeviceGetTotalEnergyConsumption") is None:
            self.energy_origin = Origin.MODELLED

    @property
    def uuid(self) -> str:
        """NVML's UUID."""
        return self._uuid

    @property
    def model(self) -> str:
        """Product name as NVML gives it."""
        return self._model

    @property
    def limit_range(self) -> PowerLimitRange:
        """What the board accepts."""
        return self._limit_range

    def observe(self) -> GpuSample:
        """Read power, energy, limit, temperature and clock.

        Raises:
            DeviceError: translated from NVML.
        """
        try:
            return self._observe()
        except DeviceLost:
            # It may be back under another index, or after a driver reload: look once more.
            self._handle = _reopen(self._uuid)
            return self._observe()

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Write the limit, then judge by the enforced one."""
        milliwatt = round(power_limit_w * 1000) if 0 < power_limit_w < 1e6 else -1
        if milliwatt < 0:
            return ActuationResult(
                Outcome.REFUSED, power_limit_w, None, "power_limit_w: must be from 0 to 1e6"
            )
        low, high = self._limit_range.min_w, self._limit_range.max_w
        milliwatt = min(max(milliwatt, round(low * 1000)), round(high * 1000))
        try:
            _call("nvmlDeviceSetPowerManagementLimit", self._handle, milliwatt)
            found_w = _call("nvmlDeviceGetEnforcedPowerLimit", self._handle) / 1000
        except DeviceError as error:
            return ActuationResult(Outcome.REFUSED, power_limit_w, None, str(error))
        if abs(found_w - power_limit_w) <= TOLERANCE_W:
            return ActuationResult(Outcome.APPLIED, power_limit_w, found_w)
        return ActuationResult(
            Outcome.CLAMPED, power_limit_w, found_w, f"the board accepts {low:g} to {high:g} W"
        )

    def _observe(self) -> GpuSample:
        power_w = self._power_w()
        return GpuSample(
            power_draw_w=power_w,
            energy_j=self._energy_j(power_w),
            power_limit_w=_call("nvmlDeviceGetEnforcedPowerLimit", self._handle) / 1000,
            temperature_c=self._optional("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=self._optional("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
        )

    def _power_w(self) -> float:
        """Instant power where the board has it, else the driver's average over about 1 s."""
        if self._instant_power:
            try:
                field = _call(
                    "nvmlDeviceGetFieldValues", self._handle, [pynvml.NVML_FI_DEV_POWER_INSTANT]
                )[0]
            except DeviceUnsupported:
                self._instant_power = False
            else:
                if field.nvmlReturn == pynvml.NVML_SUCCESS:
                    return float(field.value.uiVal) / 1000
                self._instant_power = field.nvmlReturn not in _UNSUPPORTED
        return float(_call("nvmlDeviceGetPowerUsage", self._handle)) / 1000

    def _energy_j(self, power_w: float) -> float:
        if self.energy_origin is Origin.MEASURED:
            return float(_call("nvmlDeviceGetTotalEnergyConsumption", self._handle)) / 1000
        now_s = self._monotonic_s()
        if self._before is not None:
            then_s, then_w = self._before
            self._integral_j += (now_s - then_s) * (then_w + power_w) / 2
        self._before = now_s, power_w
        return self._integral_j

    def _optional(self, call: str, *arguments: object) -> float | None:
        """Return a value that not every board has; asked no more after a first refusal."""
        if not self._reads.get(call, True):
            return None
        try:
            return float(_call(call, self._handle, *arguments))
        except DeviceUnsupported:
            self._reads[call] = False
            return None

    def _read_range(self) -> PowerLimitRange:
        low, high = _call("nvmlDeviceGetPowerManagementLimitConstraints", self._handle)
        default = _call("nvmlDeviceGetPowerManagementDefaultLimit", self._handle)
        return PowerLimitRange(low / 1000, high / 1000, default / 1000)


def _reopen(uuid: str) -> Any:  # noqa: ANN401 - an opaque handle of the binding
    try:
        return _call("nvmlDeviceGetHandleByUUID", uuid)
    except DeviceLost:
        _call("nvmlInit")
        return _call("nvmlDeviceGetHandleByUUID", uuid)


def _call(name: str, *arguments: object) -> Any:  # noqa: ANN401 - the binding has no types
    try:
        return getattr(pynvml, name)(*arguments)
    except pynvml.NVMLError as error:
        raise translate(error, name) from error
