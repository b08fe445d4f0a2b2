"""The ``amdsmi`` binding as its API reference describes it, with the simulated plant below.

Only what the agent calls. Shapes, units, "N/A" and errors are the binding's (release 7.0);
readings are the plant's and therefore simulated.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.sim.gpu import SimGpu

RESOLUTION_UJ = 15.259
"""MI200's and MI300's counter: 2**-16 J."""


class Handle:
    def __init__(self, gpu: SimGpu, name: str) -> None:
        self.gpu = gpu
        self.name = name
        self.is_partition = False


class FakeAmdSmi:
    """Stands where the module would; ``fails_with`` maps a function's name to a status."""

    class AmdSmiException(Exception):
        pass

    class AmdSmiTemperatureType(IntEnum):
        HOTSPOT = 1

    class AmdSmiTemperatureMetric(IntEnum):
        CURRENT = 0

    class AmdSmiClkType(IntEnum):
        GFX = 0

    def __init__(self, gpus: Sequence[SimGpu]) -> None:
        self.handles = [Handle(gpu, f"74a1ff-0000-{i}") for i, gpu in enumerate(gpus)]
        self.fails_with: dict[str, int] = {}
        self.missing: set[str] = set()
        self.generation = "mi300"
        self.started = False
        self.writes: list[int] = []
        self._ppt = 0

        class AmdSmiLibraryException(self.AmdSmiException):  # type: ignore[misc,name-defined]
            def __init__(self, code: int) -> None:
                super().__init__(code)
                self.err_code = code

            def __str__(self) -> str:
                return f"Error code:\n\t{self.err_code} | AMDSMI_STATUS"

        self.AmdSmiLibraryException = AmdSmiLibraryException

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("amdsmi_"):
            if name in self.missing:
                raise AttributeError(name)
            code = self.fails_with.get(name, self.fails_with.get("*"))
            if code is not None:
                return self._failing(code)
        return super().__getattribute__(name)

    def _failing(self, code: int) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise self.AmdSmiLibraryException(code)

        return fail

    def amdsmi_init(self) -> None:
        self.started = True

    def amdsmi_get_processor_handles(self) -> list[Handle]:
        if not self.started:
            raise self.AmdSmiLibraryException(32)
        return list(self.handles)

    def amdsmi_get_gpu_device_uuid(self, handle: Handle) -> str:
        return handle.name

    def amdsmi_get_gpu_asic_info(self, handle: Handle) -> dict[str, object]:
        return {"market_name": handle.gpu.model, "vendor_id": "0x1002"}

    def amdsmi_get_power_info(self, handle: Handle) -> dict[str, object]:
        power_w = round(handle.gpu.observe().power_draw_w)
        if self.generation == "mi300":
            return {"current_socket_power": power_w, "average_socket_power": "N/A"}
        return {"current_socket_power": "N/A", "average_socket_power": power_w}

    def amdsmi_get_power_cap_info(self, handle: Handle) -> dict[str, int]:
        if handle.is_partition:
            raise self.AmdSmiLibraryException(2)
        limits = handle.gpu.limit_range
        return {
            "power_cap": round(handle.gpu.observe().power_limit_w) * 10**6,
            "default_power_cap": round(limits.default_w * 1e6),
            "dpm_cap": 0,
            "min_power_cap": round(limits.min_w * 1e6),
            "max_power_cap": round(limits.max_w * 1e6),
        }

    def amdsmi_set_power_cap(self, handle: Handle, sensor: int, cap_uw: int) -> None:
        assert isinstance(cap_uw, int)
        limits = handle.gpu.limit_range
        if sensor != 0 or not limits.min_w <= cap_uw / 1e6 <= limits.max_w:
            raise self.AmdSmiLibraryException(1)
        self.writes.append(cap_uw)
        handle.gpu.apply_power_limit(cap_uw // 10**6)  # the driver keeps whole watts

    def amdsmi_get_energy_count(self, handle: Handle) -> dict[str, float]:
        ticks = 10**6 + int(handle.gpu.observe().energy_j * 1e6 / RESOLUTION_UJ)
        return {
            "energy_accumulator": ticks,
            "counter_resolution": RESOLUTION_UJ,
            "timestamp": ticks,
        }

    def amdsmi_get_temp_metric(self, handle: Handle, kind: int, metric: int) -> int:
        assert (kind, metric) == (1, 0)
        return 40 + round(handle.gpu.observe().power_draw_w / 20)

    def amdsmi_get_clock_info(self, handle: Handle, kind: int) -> dict[str, object]:
        assert kind == 0
        clock = round(handle.gpu.observe().sm_clock_mhz or 0)
        return {"clk": clock, "min_clk": 132, "max_clk": 2100, "clk_locked": False}

    def amdsmi_get_gpu_metrics_info(self, handle: Handle) -> dict[str, object]:
        sample = handle.gpu.observe()
        capped = sample.power_draw_w > 0.95 * sample.power_limit_w
        self._ppt += capped
        if self.generation != "mi300":
            return {"throttle_status": capped, "ppt_residency_acc": "N/A"}
        return {
            "throttle_status": "N/A",
            "ppt_residency_acc": self._ppt,
            "prochot_residency_acc": 0,
            "socket_thm_residency_acc": 0,
            "vr_thm_residency_acc": "N/A",
            "hbm_thm_residency_acc": 0,
        }
