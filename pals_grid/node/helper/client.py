"""The agent's side of the helper: GPUs that are read directly and written through the socket.

A helper that is away is a refused write with the reason, and is looked for again by itself.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import msgspec

from pals_grid.core.commands import ActuationResult, Outcome
from pals_grid.core.errors import DeviceError
from pals_grid.core.ports import ClockLock
from pals_grid.node.helper.messages import (
    MAX_MESSAGE_BYTES,
    Hello,
    Refusal,
    Release,
    Released,
    SetClockLimit,
    SetPowerLimit,
    Taken,
    Welcome,
    Wrote,
    decode_reply,
)
from pals_grid.node.helper.through import ReadThroughGpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pals_grid.core.ports import ClockRange, Gpu
    from pals_grid.node.hardware import NodeHardware
    from pals_grid.node.helper.messages import (
        Beat,
        Request,
    )

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 1.0
BEAT_S = 2.0
BACKOFF_MAX_S = 5.0

R = TypeVar("R", Taken, Wrote, Released, Welcome)


class HelperAway(DeviceError):
    """The helper cannot be reached, or grants no control: ask again later."""


class HelperClient:
    """One agent's connection to the helper at ``path``. One thread uses it."""

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._path = path
        self._name = name
        self._monotonic_s = monotonic_s
        self._answer_within_s = answer_within_s
        self._socket: socket.socket | None = None
        self._beat: Beat | None = None
        self._beat_at_s = -math.inf
        self._retry_at_s = -math.inf
        self._backoff_s = 0.0
        self._away: str | None = None

    def beat(self, beat: Beat) -> str | None:
        """Say what holds without this agent: when that changed, and every 2 s.

        Connects where needed. Returns a line when the helper was lost or found, for the log.
        """
        now_s = self._monotonic_s()
        was_away = self._away
        if self._socket is None or beat != self._beat or now_s - self._beat_at_s >= BEAT_S:
            fresh, self._beat = self._socket is None, beat
            try:
                if fresh:
                    self._connect()
                else:
                    self._send_beat()
            except HelperAway as error:
                return None if str(error) == was_away else f"helper: {error}"
        return "helper: it answers again" if was_away is not None else None

    def set_power_limit(self, uuid: str, power_limit_w: float) -> ActuationResult:
        """Have a limit written."""
        if not 0 <= power_limit_w <= 1e6:
            detail = f"power_limit_w: must be from 0 to 1e6, got {power_limit_w:g}"
            return ActuationResult(Outcome.REFUSED, power_limit_w, None, detail)
        return self._write(SetPowerLimit(uuid=uuid, power_limit_w=power_limit_w), power_limit_w)

    def set_clock_limit(
        self, uuid: str, sm_clock_mhz: float | None, highest_mhz: float
    ) -> ActuationResult:
        """Have an SM clock locked, or released."""
        asked = highest_mhz if sm_clock_mhz is None else sm_clock_mhz
        if not 0 < asked <= 1e5:
            detail = f"sm_clock_mhz: must be above 0, up to 1e5, got {asked:g}"
            return ActuationResult(Outcome.REFUSED, asked, None, detail)
        return self._write(SetClockLimit(uuid=uuid, sm_clock_mhz=sm_clock_mhz), asked)

    def release(self) -> tuple[str, ...]:
        """Give control back: the helper restores; returns a line for each limit not proven.

        While a hold is active it restores when that ends, which is no failure.
        """
        try:
            if self._socket is None:
                self._retry_at_s = -math.inf
                self._connect()
            released = self._call(Release(), Released)
        except HelperAway as error:
            return (f"the helper restores by itself, but did not say so: {error}",)
        self._close()
        if released.held_until is not None:
            log.warning("limits are held until %s, and restored then", released.held_until)
        return tuple(released.failures)

    def close(self) -> None:
        """Hang up without a word, as a crash would."""
        self._close()

    def _write(self, request: SetPowerLimit | SetClockLimit, asked: float) -> ActuationResult:
        try:
            if self._socket is None:
                self._connect()
            wrote = self._call(request, Wrote)
        except HelperAway as error:
            wait_s = max(0.0, self._retry_at_s - self._monotonic_s())
            return ActuationResult(Outcome.REFUSED, asked, None, str(error), wait_s)
        return ActuationResult(
            wrote.outcome, asked, wrote.read_back, wrote.detail, wrote.retry_after_s
        )

    def _connect(self) -> None:
        """Connect, take control, say what holds.

        Raises:
            HelperAway: says why; soon after an attempt without making another.
        """
        if self._monotonic_s() < self._retry_at_s:
            raise HelperAway(self._away or "the helper is away")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        connection.settimeout(self._answer_within_s)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise self._lost(f"{self._path}: {error.strerror or error}") from error
        self._socket = connection
        self._call(Hello(name=self._name), Welcome)
        self._send_beat()
        self._backoff_s, self._away = 0.0, None

    def _send_beat(self) -> None:
        if self._beat is not None:
            self._call(self._beat, Taken)
            self._beat_at_s = self._monotonic_s()

    def _call(self, request: Request, expected: type[R]) -> R:
        """Ask and take the answer.

        Raises:
            HelperAway: where there is none in time, or another one.
        """
        if self._socket is None:
            raise HelperAway(self._away or "the helper is away")
        try:
            self._socket.send(msgspec.json.encode(request))
            packet = self._socket.recv(MAX_MESSAGE_BYTES)
            reply = decode_reply(packet) if packet else None
        except TimeoutError as error:
            raise self._lost(f"no answer in {self._answer_within_s:g} s") from error
        except (OSError, msgspec.DecodeError) as error:
            raise self._lost(str(error)) from error
        if isinstance(reply, expected):
            return reply
        if isinstance(reply, Refusal):
            raise self._lost(reply.reason)
        raise self._lost("it closed the connection" if reply is None else f"answered {reply}")

    def _lost(self, why: str) -> HelperAway:
        self._close()
        self._backoff_s = min(BACKOFF_MAX_S, max(0.25, 2 * self._backoff_s))
        self._retry_at_s = self._monotonic_s() + self._backoff_s
        self._away = f"no limit can be written: {why}"
        return HelperAway(self._away)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class HelperGpu(ReadThroughGpu):
    """A GPU that is read directly and written by the helper."""

    def __init__(self, gpu: Gpu, client: HelperClient) -> None:
        super().__init__(gpu)
        self._client = client

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Have it written."""
        return self._client.set_power_limit(self._gpu.uuid, power_limit_w)


class HelperClockGpu(HelperGpu):
    """The same for a GPU whose SM clock can be locked."""

    def __init__(self, gpu: Gpu, lock: ClockLock, client: HelperClient) -> None:
        super().__init__(gpu, client)
        self._lock = lock

    @property
    def clock_range(self) -> ClockRange:
        """The GPU's."""
        return self._lock.clock_range

    def apply_clock_limit(self, sm_clock_mhz: float | None) -> ActuationResult:
        """Have it locked or released."""
        highest_mhz = self._lock.clock_range.max_mhz
        return self._client.set_clock_limit(self._gpu.uuid, sm_clock_mhz, highest_mhz)


class HelperOriginals:
    """Original limits where the helper keeps them: it stores each before it writes."""

    def __init__(self, client: HelperClient) -> None:
        self._client = client

    def remember(self, limits_w: dict[str, float], clocks: Iterable[str] = ()) -> None:
        """Leave it to the helper."""

    def forget_clocks(self, uuids: Iterable[str]) -> None:
        """Leave it to the helper."""

    def restore(self, gpus: Iterable[Gpu]) -> tuple[str, ...]:
        """Have the helper restore, now or when the active hold ends."""
        del gpus
        return self._client.release()


def write_through(gpu: Gpu, client: HelperClient) -> HelperGpu:
    """Return ``gpu`` with its writes sent to the helper."""
    return (
        HelperClockGpu(gpu, gpu, client) if isinstance(gpu, ClockLock) else HelperGpu(gpu, client)
    )


def use_helper(hardware: NodeHardware, client: HelperClient) -> NodeHardware:
    """Return the node with every GPU's writes sent to the helper."""
    units = tuple(
        replace(unit, gpus=tuple(write_through(gpu, client) for gpu in unit.gpus))
        for unit in hardware.units
    )
    return replace(hardware, units=units)
