"""Does a GPU's power add up to its energy, and what does looking cost? Reads, writes nothing.

Power is integrated by the trapezoid rule between looks, and compared with the energy counter over
the same stretch. On boards that sample power for a part of the time only (A100 and H100: 25 %,
arXiv 2312.02741) the ratio holds for a steady load, not for a short one. The counter moves every
20 to 100 ms, so a minute is known to about 0.2 %.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.core.ports import Gpu, GpuSample


@dataclass(frozen=True, slots=True)
class TelemetryCheck:
    """One GPU over ``seconds``; costs are per look, of this process.

    ``ratio`` is integrated power over the counter's energy. ``clock_reason_ratios`` tells for
    which part of the looks a reason held; it is empty where none did or the GPU does not tell.
    """

    uuid: str
    model: str
    seconds: float
    looks: int
    counter_j: float
    integrated_j: float
    ratio: float
    power_mean_w: float
    power_limit_w: float
    observe_cpu_mean_us: float
    observe_wall_p50_us: float
    observe_wall_p99_us: float
    sm_clock_mean_mhz: float | None
    temperature_max_c: float | None
    clock_reason_ratios: dict[str, float]

    def as_json(self) -> dict[str, object]:
        """Return plain values."""
        return asdict(self)

    def as_markdown(self) -> str:
        """One row of the table whose head is ``MARKDOWN_HEAD``."""
        reasons = ", ".join(
            f"{name} {100 * ratio:.0f} %" for name, ratio in self.clock_reason_ratios.items()
        )
        clock = "–" if self.sm_clock_mean_mhz is None else f"{self.sm_clock_mean_mhz:.0f}"
        return (
            f"| {self.model} | {self.seconds:.0f} | {self.power_mean_w:.1f} | {clock} | "
            f"{self.ratio:.4f} | {self.observe_cpu_mean_us:.0f} | {self.observe_wall_p99_us:.0f} | "
            f"{reasons or 'none'} |"
        )


MARKDOWN_HEAD = (
    "| GPU | s | W mean | SM MHz mean | integrated / counter | CPU us per look | wall us p99 | "
    "clock reasons |\n|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    sample: GpuSample
    cpu_s: float
    wall_s: float


def check_telemetry(
    gpu: Gpu,
    seconds: float = 60.0,
    period_s: float = 0.1,
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
    cpu_s: Callable[[], float] = time.thread_time,
) -> TelemetryCheck:
    """Look at ``gpu`` every ``period_s`` for ``seconds``.

    Raises:
        DeviceError: when it cannot be read.
        InvalidValue: when there is no stretch to look at, or its counter stood still.
    """
    if not 0 < period_s <= seconds <= 3600:
        raise InvalidValue("seconds", seconds, "must be from period_s to 3600")
    looks = [_look(gpu, monotonic_s, cpu_s)]
    begin_s = looks[0].at_s
    while looks[-1].at_s - begin_s < seconds:
        # On a grid: a late look is not paid for by the next.
        due_s = begin_s + period_s * (math.floor((looks[-1].at_s - begin_s) / period_s + 1e-6) + 1)
        wait(max(0.0, due_s - monotonic_s()))
        looks.append(_look(gpu, monotonic_s, cpu_s))
    counter_j = looks[-1].sample.energy_j - looks[0].sample.energy_j
    if counter_j <= 0:
        raise InvalidValue("counter_j", counter_j, "must have risen")
    return _summed(gpu, looks, counter_j)


def _look(gpu: Gpu, monotonic_s: Callable[[], float], cpu_s: Callable[[], float]) -> _Look:
    begin_cpu_s, begin_s = cpu_s(), monotonic_s()
    sample = gpu.observe()
    end_s = monotonic_s()
    return _Look(end_s, sample, cpu_s() - begin_cpu_s, end_s - begin_s)


def _summed(gpu: Gpu, looks: Sequence[_Look], counter_j: float) -> TelemetryCheck:
    integrated_j = sum(
        (now.at_s - then.at_s) * (now.sample.power_draw_w + then.sample.power_draw_w) / 2
        for then, now in itertools.pairwise(looks)
    )
    seconds = looks[-1].at_s - looks[0].at_s
    walls = sorted(look.wall_s for look in looks)
    samples = [look.sample for look in looks]
    clocks = [s.sm_clock_mhz for s in samples if s.sm_clock_mhz is not None]
    heats = [s.temperature_c for s in samples if s.temperature_c is not None]
    held = Counter(
        label for s in samples if s.clock_reasons is not None for label in s.clock_reasons.labels
    )
    return TelemetryCheck(
        uuid=gpu.uuid,
        model=gpu.model,
        seconds=seconds,
        looks=len(looks),
        counter_j=counter_j,
        integrated_j=integrated_j,
        ratio=integrated_j / counter_j,
        power_mean_w=counter_j / seconds,
        power_limit_w=samples[-1].power_limit_w,
        observe_cpu_mean_us=1e6 * sum(look.cpu_s for look in looks) / len(looks),
        observe_wall_p50_us=1e6 * walls[len(walls) // 2],
        observe_wall_p99_us=1e6 * walls[min(len(walls) - 1, math.ceil(0.99 * len(walls)))],
        sm_clock_mean_mhz=sum(clocks) / len(clocks) if clocks else None,
        temperature_max_c=max(heats, default=None),
        clock_reason_ratios={name: count / len(looks) for name, count in sorted(held.items())},
    )
