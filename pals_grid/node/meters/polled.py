"""A node meter that asks its source in a thread of its own and never makes a tick wait.

Between two readings the last one is carried on by the change of GPU power since, taken with the
model's slope: a controller on a figure that is seconds old would answer to what it has done
already. The GPU power that belongs to a reading is its mean over one polling interval before it,
since a baseboard averages too. A reading that is too old is not used: the model's figure stands
in, and its source's name says so.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pals_grid.core.errors import DeviceError, DevicePermission
from pals_grid.core.fleet import Origin
from pals_grid.core.ports import NodePower
from pals_grid.node.node_meter import LINEAR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pals_grid.node.meters.source import PowerSource
    from pals_grid.powermodel.overhead import NodeOverhead

log = logging.getLogger(__name__)

STALE_POLLS = 3
LEAST_STALE_S = 10.0
GIVE_UP_AFTER = 5
LONGEST_PAUSE_S = 60.0
REFUSED_PAUSE_S = 300.0
"""A baseboard may lock an account after a few wrong passwords."""
COVERS_RATIO = 0.8
"""A whole node that reads below this share of its own GPUs does not read the whole node."""
_LOOKS_KEPT = 256


@dataclass(frozen=True, slots=True)
class _Reading:
    source: PowerSource
    power_w: float
    at_s: float


class PolledNodeMeter:
    """Asks the first of ``sources`` that answers; ``rest_w`` goes with a source of CPUs alone.

    After five failures in a row all sources are tried again. ``observe_node_power`` belongs to
    the control loop's thread, ``poll`` to the meter's.
    """

    def __init__(
        self,
        sources: Sequence[PowerSource],
        overhead: NodeOverhead,
        rest_w: float = 0.0,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = tuple(sources)
        self._overhead = overhead
        self._rest_w = rest_w
        self._monotonic_s = monotonic_s
        self._looks: deque[tuple[float, float]] = deque(maxlen=_LOOKS_KEPT)
        self._reading: _Reading | None = None
        self._seen: _Reading | None = None
        self._gpu_power_then_w = 0.0
        self._current: PowerSource | None = None
        self._failures = 0
        self._was_part = False
        self._silent: set[str] = set()
        self._refused_until_s: dict[str, float] = {}
        self._stop = threading.Event()

    def start(self) -> PolledNodeMeter:
        """Start the thread; it is a daemon, for a request cannot be interrupted."""
        threading.Thread(target=self._run, name="pals-grid-node-meter", daemon=True).start()
        return self

    def close(self) -> None:
        """Ask the thread to end; does not wait."""
        self._stop.set()

    def observe_node_power(self, gpu_power_w: float) -> NodePower:
        """Power of the whole node in watts, from the last reading; never waits."""
        now_s = self._monotonic_s()
        self._looks.append((now_s, gpu_power_w))
        reading = self._reading
        if reading is None:
            return self._modelled(gpu_power_w, LINEAR)
        source = reading.source
        if reading is not self._seen:
            self._seen = reading
            self._gpu_power_then_w = self._mean_w(reading.at_s - source.poll_s, reading.at_s)
            self._judge(reading)
        if now_s - reading.at_s > max(LEAST_STALE_S, STALE_POLLS * source.poll_s):
            return self._modelled(gpu_power_w, f"{LINEAR} ({source.name} is silent)")
        slope = 1 + self._overhead.per_gpu_w_ratio
        if not source.is_whole:
            power_w = self._rest_w + slope * (gpu_power_w + reading.power_w)
            return NodePower(power_w, Origin.MODELLED, f"{source.name} and {LINEAR}")
        if self._was_part:
            return self._modelled(gpu_power_w, f"{LINEAR} ({source.name} is not the whole node)")
        power_w = reading.power_w + slope * (gpu_power_w - self._gpu_power_then_w)
        return NodePower(max(gpu_power_w, power_w), Origin.MEASURED, source.name)

    def poll(self) -> float:
        """Ask once; returns how long to wait before the next time, in seconds."""
        candidates = self._sources if self._current is None else (self._current,)
        refused = True
        for source in candidates:
            until_s = self._refused_until_s.get(source.name, -math.inf)
            if len(candidates) > 1 and self._monotonic_s() < until_s:
                continue
            try:
                power_w = source.read_w()
            except DeviceError as error:
                if isinstance(error, DevicePermission):
                    self._refused_until_s[source.name] = self._monotonic_s() + REFUSED_PAUSE_S
                else:
                    refused = False
                self._note_failure(source, error)
                continue
            if self._current is not source or source.name in self._silent:
                log.info("node power is read from %s: %.0f W", source.name, power_w)
            self._failures = 0
            self._silent.discard(source.name)
            self._current = source
            self._reading = _Reading(source, power_w, self._monotonic_s())
            return source.poll_s
        return self._pause_s(candidates, refused=refused)

    def _note_failure(self, source: PowerSource, error: DeviceError) -> None:
        if source.name not in self._silent:
            self._silent.add(source.name)
            log.warning("node power from %s: %s", source.name, error)

    def _pause_s(self, candidates: Sequence[PowerSource], *, refused: bool) -> float:
        """Longer after each failure in a row; all sources are candidates again after five."""
        self._failures += 1
        shortest_s = min(source.poll_s for source in candidates)
        if refused and len(candidates) < len(self._sources):
            self._current = None  # another one may let us in
            return shortest_s
        if self._failures % GIVE_UP_AFTER == 0:
            self._current = None
        if refused:
            return REFUSED_PAUSE_S
        return min(LONGEST_PAUSE_S, shortest_s * 2.0 ** min(self._failures - 1, 10))

    def _judge(self, reading: _Reading) -> None:
        is_part = self._is_part(reading)
        if is_part and not self._was_part:
            log.warning(
                "node power from %s: %.0f W is less than the GPUs' own %.0f W: not the whole node",
                reading.source.name,
                reading.power_w,
                self._gpu_power_then_w,
            )
        self._was_part = is_part

    def _is_part(self, reading: _Reading) -> bool:
        return reading.source.is_whole and self._gpu_power_then_w * COVERS_RATIO > reading.power_w

    def _mean_w(self, from_s: float, to_s: float) -> float:
        """Mean GPU power over the looks of a stretch; the last look where none fell into it."""
        inside = [power_w for at_s, power_w in self._looks if from_s <= at_s <= to_s]
        return sum(inside) / len(inside) if inside else self._looks[-1][1]

    def _modelled(self, gpu_power_w: float, source: str) -> NodePower:
        return NodePower(self._overhead.node_power_w(gpu_power_w), Origin.MODELLED, source)

    def _run(self) -> None:
        delay_s = 0.0
        while not self._stop.wait(delay_s):
            try:
                delay_s = self.poll()
            except Exception:
                log.exception("node power meter: it is asked again in a minute")
                delay_s = 60.0
