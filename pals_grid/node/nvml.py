"""NVIDIA GPUs through NVML, by the ``nvidia-ml-py`` binding.

Milliwatts and millijoules stay inside. Devices are known by UUID: indices move. A limit is
written by version 1 of the call (the binding's version 2 drops the return code) and judged by
the enforced limit, which is the lowest that driver, VBIOS and baseboard together allow.

An SM clock is locked from the board's lowest clock up to the one asked for, so an idle board may
still go down. NVML tells no lock that is in force: what can be seen is the SM clock itself, and
a clock that reads at or below the lock is taken for its proof.

A GPU in MIG mode is one GPU here: power, energy and limit belong to the whole board, and its
instances (``mig_uuids``) are only listed. An instance's UUID opens its parent.
"""

from __future__ import annotations

import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import pynvml

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import DeviceError, DeviceLost, DeviceUnsupported
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import ClockRange, ClockReason, GpuSample, PowerLimitRange
from pals_grid.node.gpu_driver import (
    EnergyIntegral,
    OptionalReads,
    Reopening,
    open_each,
    set_power_limit,
)
from pals_grid.node.nvml_call import call, is_uninitialised, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOLERANCE_W = 0.5
CLOCK_STEP_MHZ = 15.0

_POWER_FIELDS = (pynvml.NVML_FI_DEV_POWER_INSTANT, pynvml.NVML_FI_DEV_POWER_AVERAGE)
_REASON_CALLS = (
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",  # its name in drivers before 535
)
_REASONS = {
    pynvml.nvmlClocksEventReasonGpuIdle: ClockReason.IDLE,
    pynvml.nvmlClocksEventReasonUserDefinedClocks: ClockReason.CLOCK_LIMIT,
    pynvml.nvmlClocksEventReasonSwPowerCap: ClockReason.POWER_LIMIT,
    pynvml.nvmlClocksEventReasonHwSlowdown: ClockReason.HARDWARE,
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: ClockReason.THERMAL,
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: ClockReason.THERMAL,
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: ClockReason.POWER_BRAKE,
}


def open_gpus(*, monotonic_s: Callable[[], float] = time.monotonic) -> tuple[NvmlGpu, ...]:
    """Start NVML and return the GPUs of this machine; the binding counts the starts.

    Raises:
        DeviceError: when the library or the driver does not answer, or no GPU of several does.
    """
    call("nvmlInit")

    def open_at(index: int) -> NvmlGpu:
        handle = call("nvmlDeviceGetHandleByIndex", index)
        return open_gpu(str(call("nvmlDeviceGetUUID", handle)), monotonic_s=monotonic_s)

    count = call("nvmlDeviceGetCount")
    return open_each({f"NVIDIA GPU at index {at}": partial(open_at, at) for at in range(count)})


def open_gpu(uuid: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> NvmlGpu:
    """Open one GPU, with a clock lock where the board tells its SM clocks.

    ``uuid`` may be a MIG instance's: then its parent is opened.

    Raises:
        DeviceError: when it cannot be described.
    """
    handle = call("nvmlDeviceGetHandleByUUID", uuid)
    if uuid.startswith("MIG-"):
        handle = call("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
        uuid = str(call("nvmlDeviceGetUUID", handle))
    try:
        clocks = _supported_clocks_mhz(handle)
    except DeviceError:
        return NvmlGpu(uuid, monotonic_s=monotonic_s)
    return NvmlClockGpu(uuid, clocks, monotonic_s=monotonic_s)


def close() -> None:
    """Stop NVML; a library that is gone already is no matter."""
    try:
        call("nvmlShutdown")
    except DeviceError:
        return


class NvmlGpu:
    """One GPU. Raises DeviceError on construction when it cannot be described.

    Where the board has no energy counter, ``energy_j`` integrates power between looks and
    ``energy_origin`` says ``modelled``. ``mig_uuids`` are the UUIDs of its MIG instances, in the
    order of their indices; ``is_mig`` holds also while there are none.
    """

    def __init__(self, uuid: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._handle = call("nvmlDeviceGetHandleByUUID", uuid)
        self.uuid: Final = uuid
        self.model: Final = str(call("nvmlDeviceGetName", self._handle))
        self.limit_range: Final = self._read_range()
        self._power_fields = list(_POWER_FIELDS)
        self._integral = EnergyIntegral(monotonic_s)
        self._reopening = Reopening(monotonic_s)
        self._optional_reads = OptionalReads(uuid)
        self.energy_origin = Origin.MEASURED
        if self._optional("nvmlDeviceGetTotalEnergyConsumption") is None:
            self.energy_origin = Origin.MODELLED
        self.is_mig, self.mig_uuids = _mig_instances(self._handle)

    def observe(self) -> GpuSample:
        """Read power, energy, limit, temperature, clock and the clock's event reasons.

        Raises:
            DeviceError: translated from NVML.
        """
        return self._reopening.look(self._observe, self._reopen)

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Write the limit, then judge by the enforced one."""
        return set_power_limit(
            power_limit_w, self.limit_range, TOLERANCE_W, self._write_limit, self._limit_w
        )

    def _write_limit(self, wanted_w: float) -> None:
        call("nvmlDeviceSetPowerManagementLimit", self._handle, round(wanted_w * 1000))

    def _limit_w(self) -> float:
        return float(call("nvmlDeviceGetEnforcedPowerLimit", self._handle)) / 1000

    def _reopen(self) -> None:
        self._handle = _find_again(self.uuid)

    def _observe(self) -> GpuSample:
        power_w = self._power_w()
        return GpuSample(
            power_draw_w=power_w,
            energy_j=self._energy_j(power_w),
            power_limit_w=self._limit_w(),
            temperature_c=self._optional("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=self._optional("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
            clock_reasons=self._clock_reasons(),
        )

    def _power_w(self) -> float:
        """Instant power where the board has it, else the driver's average over about 1 s.

        A call with fields succeeds although a field fails: each has a return code of its own.
        """
        while self._power_fields:
            try:
                fields = call("nvmlDeviceGetFieldValues", self._handle, self._power_fields[:1])
            except DeviceUnsupported:
                self._power_fields.clear()
                break
            if fields[0].nvmlReturn == pynvml.NVML_SUCCESS:
                return float(fields[0].value.uiVal) / 1000
            if not isinstance(_field_error(fields[0].nvmlReturn), DeviceUnsupported):
                break  # it may come back: ask again at the next look
            del self._power_fields[0]
        return float(call("nvmlDeviceGetPowerUsage", self._handle)) / 1000

    def _energy_j(self, power_w: float) -> float:
        if self.energy_origin is Origin.MEASURED:
            return float(call("nvmlDeviceGetTotalEnergyConsumption", self._handle)) / 1000
        return self._integral.add(power_w)

    def _clock_reasons(self) -> ClockReason | None:
        for name in _REASON_CALLS:
            bits = self._optional(name)
            if bits is not None:
                return _reasons(int(bits))
        return None

    def _optional(self, name: str, *arguments: object) -> float | None:
        return self._optional_reads.read(name, lambda: float(call(name, self._handle, *arguments)))

    def _read_range(self) -> PowerLimitRange:
        low, high = call("nvmlDeviceGetPowerManagementLimitConstraints", self._handle)
        default = call("nvmlDeviceGetPowerManagementDefaultLimit", self._handle)
        return PowerLimitRange(low / 1000, high / 1000, default / 1000)


class NvmlClockGpu(NvmlGpu):
    """A GPU whose SM clock can be locked; ``clocks_mhz`` are those that it can be held to."""

    def __init__(
        self,
        uuid: str,
        clocks_mhz: Sequence[int],
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(uuid, monotonic_s=monotonic_s)
        self._clocks_mhz = sorted(clocks_mhz)

    @property
    def clock_range(self) -> ClockRange:
        """Lowest and highest SM clock."""
        return ClockRange(float(self._clocks_mhz[0]), float(self._clocks_mhz[-1]))

    def apply_clock_limit(self, sm_clock_mhz: float | None) -> ActuationResult:
        """Lock at the highest clock of the board that is no higher than asked, or release.

        PARTIAL where the driver took the lock and the SM clock still reads above it, or not at
        all. A release is judged by the driver's answer alone: an idle board reads low anyway.
        """
        low, high = self._clocks_mhz[0], self._clocks_mhz[-1]
        asked = float(high) if sm_clock_mhz is None else sm_clock_mhz
        if not 0 < asked < 1e5:
            return ActuationResult(
                Outcome.REFUSED, asked, None, "sm_clock_mhz: must be from 0 to 1e5"
            )
        held = max((clock for clock in self._clocks_mhz if clock <= asked), default=low)
        try:
            if sm_clock_mhz is None:
                call("nvmlDeviceResetGpuLockedClocks", self._handle)
                return ActuationResult(Outcome.APPLIED, asked, float(high))
            call("nvmlDeviceSetGpuLockedClocks", self._handle, low, held)
        except DeviceError as error:
            return ActuationResult(Outcome.REFUSED, asked, None, str(error))
        return self._judge_lock(asked, float(held))

    def _judge_lock(self, asked: float, held: float) -> ActuationResult:
        try:
            found = float(call("nvmlDeviceGetClockInfo", self._handle, pynvml.NVML_CLOCK_SM))
        except DeviceError as error:
            return ActuationResult(Outcome.PARTIAL, asked, None, f"not proven: {error}")
        if found > held + CLOCK_STEP_MHZ:
            return ActuationResult(Outcome.PARTIAL, asked, found, "the SM clock is still above it")
        if not 0 <= asked - held <= CLOCK_STEP_MHZ:
            bounds = self.clock_range
            detail = f"the board goes from {bounds.min_mhz:g} to {bounds.max_mhz:g} MHz"
            return ActuationResult(Outcome.CLAMPED, asked, held, detail)
        return ActuationResult(Outcome.APPLIED, asked, held)


def _supported_clocks_mhz(handle: Any) -> list[int]:  # noqa: ANN401 - an opaque handle
    """SM clocks at the board's fastest memory clock, up to the highest that it may run at."""
    memory = max(call("nvmlDeviceGetSupportedMemoryClocks", handle), default=0)
    most = call("nvmlDeviceGetMaxClockInfo", handle, pynvml.NVML_CLOCK_SM)
    clocks = call("nvmlDeviceGetSupportedGraphicsClocks", handle, memory)
    found = [clock for clock in clocks if 0 < clock <= most]
    if not found:
        raise DeviceUnsupported("the board tells no SM clocks")
    return found


def _mig_instances(handle: Any) -> tuple[bool, tuple[str, ...]]:  # noqa: ANN401 - as above
    """Whether the board is in MIG mode, and the UUIDs of its instances."""
    try:
        current, _ = call("nvmlDeviceGetMigMode", handle)
    except DeviceUnsupported:
        return False, ()
    if current != pynvml.NVML_DEVICE_MIG_ENABLE:
        return False, ()
    uuids: list[str] = []
    for index in range(call("nvmlDeviceGetMaxMigDeviceCount", handle)):
        try:
            instance = call("nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        except DeviceLost:  # "not found": no instance in this place
            continue
        uuids.append(str(call("nvmlDeviceGetUUID", instance)))
    return True, tuple(uuids)


@lru_cache(maxsize=64)
def _reasons(bits: int) -> ClockReason:
    found = ClockReason(0)
    for bit, reason in _REASONS.items():
        if bits & bit:
            found |= reason
            bits &= ~bit
    return found | ClockReason.OTHER if bits else found


def _field_error(code: int) -> DeviceError:
    return translate(pynvml.NVMLError(code), "nvmlDeviceGetFieldValues")


def _find_again(uuid: str) -> Any:  # noqa: ANN401 - as above
    try:
        return call("nvmlDeviceGetHandleByUUID", uuid)
    except DeviceLost as error:
        if not is_uninitialised(error):
            raise
        call("nvmlInit")
        return call("nvmlDeviceGetHandleByUUID", uuid)
