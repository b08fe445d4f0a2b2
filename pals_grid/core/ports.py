"""Ports: what the inside asks of the outside. One to three methods each."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from pals_grid.core.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from pals_grid.core.commands import ActuationResult
    from pals_grid.core.fleet import Origin
    from pals_grid.core.intervals import Interval
    from pals_grid.core.series import Observation, Quantity


class Clock(Protocol):
    """Wall time in UTC and a monotonic time in seconds."""

    def now(self) -> datetime: ...

    def monotonic_s(self) -> float: ...


# --- devices -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PowerLimitRange:
    """What a GPU accepts, in watts."""

    min_w: float
    max_w: float
    default_w: float


class ClockReason(IntFlag):
    """Why a GPU's clock is not at its highest now; several may hold, 0 is none.

    ``POWER_LIMIT`` is our own lever at work, ``POWER_BRAKE`` the board's or rack's own emergency,
    ``CLOCK_LIMIT`` a lock or an application clock, ``HARDWARE`` a slowdown whose cause the device
    does not tell apart.
    """

    IDLE = 1
    POWER_LIMIT = 2
    POWER_BRAKE = 4
    THERMAL = 8
    HARDWARE = 16
    CLOCK_LIMIT = 32
    OTHER = 64

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of those that hold, for people and metrics."""
        return tuple(str(one.name).lower() for one in ClockReason if one in self)


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One look at a GPU. ``energy_j`` is a counter that only rises.

    ``clock_reasons`` is None where the device does not tell.
    """

    power_draw_w: float
    energy_j: float
    power_limit_w: float
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    clock_reasons: ClockReason | None = None


class Gpu(Protocol):
    """A GPU, known by ``uuid``."""

    @property
    def uuid(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def limit_range(self) -> PowerLimitRange: ...

    def observe(self) -> GpuSample:
        """Read the device.

        Raises:
            DeviceError: when it cannot be read.
        """
        ...

    def apply_power_limit(self, power_limit_w: float) -> ActuationResult:
        """Write the limit and read it back; never raises for a refusal."""
        ...


@dataclass(frozen=True, slots=True)
class ClockRange:
    """SM clocks that a GPU can be held to, in MHz."""

    min_mhz: float
    max_mhz: float


@runtime_checkable
class ClockLock(Protocol):
    """A GPU whose SM clock can be held below its highest."""

    @property
    def clock_range(self) -> ClockRange: ...

    def apply_clock_limit(self, sm_clock_mhz: float | None) -> ActuationResult:
        """Hold the SM clock at or below a value, None to release it; never raises for a refusal.

        The result is in MHz; released, ``requested`` and ``read_back`` are the highest clock.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One look at a serving engine. Names ending in ``_total`` are counters that only rise.

    ``max_num_seqs`` is None where the engine does not tell. Requests that may wait are
    ``requests_deferred`` while they do, apart from ``requests_waiting``, and part of
    ``requests_running`` once they run. ``prompt_tokens_waiting`` counts the prompt tokens that
    are admitted or queued and not yet processed; ``itl_p99_s`` and ``ttft_p99_s`` are over the
    last few seconds. ``prefills_total`` counts first tokens, ``prefill_s_total`` sums the time
    from a request's admission to its first token. These five are None where the engine does not
    tell.
    """

    requests_running: int
    requests_waiting: int
    tokens_in_total: float
    tokens_out_total: float
    requests_finished_total: int
    ttft_misses_total: int
    itl_misses_total: int
    max_num_seqs: int | None
    requests_deferred: int = 0
    requests_running_deferrable: int = 0
    prompt_tokens_waiting: float | None = None
    ttft_p99_s: float | None = None
    itl_p99_s: float | None = None
    prefills_total: int | None = None
    prefill_s_total: float | None = None


class Engine(Protocol):
    """A serving engine (vLLM, or the simulated one)."""

    @property
    def model(self) -> str: ...

    def observe(self) -> EngineSample:
        """Read the engine.

        Raises:
            DeviceError: when it does not answer.
        """
        ...

    def apply_max_num_seqs(self, max_num_seqs: int) -> ActuationResult:
        """Set the batch size and read it back; never raises for a refusal."""
        ...


@runtime_checkable
class DeferrableSlots(Protocol):
    """An engine that knows which requests may wait, and can be told how many of them to run."""

    def apply_deferrable_seqs(self, deferrable_seqs: int) -> None:
        """Let at most so many deferrable requests in; those inside run to their end."""
        ...


@dataclass(frozen=True, slots=True)
class NodePower:
    """Power of the whole node, fans and CPUs included, and how it is known.

    ``source`` names the meter or the model that it comes from; shown and reported.
    """

    power_w: float
    origin: Origin
    source: str = ""


class NodeMeter(Protocol):
    """Whole-node power from GPU power."""

    def observe_node_power(self, gpu_power_w: float) -> NodePower: ...


# --- feeds ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer with any status; ``url`` has its secrets removed."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient(Protocol):
    """HTTP with bounded time and size: what connectors read, and the forms that log them in."""

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """Fetch ``url``.

        Raises:
            FeedUnavailable: when there is no answer in time, or it is too large.
        """
        ...

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Post an HTML form to ``url``; for logins, so its answer is never cached.

        Raises:
            FeedUnavailable: when there is no answer in time, or it is too large.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """What a provider allows: so many requests in any ``per_s`` seconds, by all replicas."""

    requests: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When a provider publishes: new values about every ``every_s``, at most ``late_s`` late."""

    every_s: float
    late_s: float


@dataclass(frozen=True, slots=True)
class ConnectorOption:
    """One setting of a connector; ``default`` None means that it must be given."""

    name: str
    help: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class FetchContext:
    """What a connector gets besides its options.

    ``file_folders`` are where files of this machine may be read; None is anywhere.
    """

    http: HttpClient
    fetched_at: datetime
    secret: str | None = None
    tokens: Tokens = field(default_factory=Tokens)
    file_folders: tuple[Path, ...] | None = None


class Connector(Protocol):
    """One provider, made from its options, found by the entry point ``pals_grid.connectors``.

    ``__init__(options)`` raises InvalidValue for a missing, unknown or impossible option.
    """

    summary: ClassVar[str]
    options: ClassVar[tuple[ConnectorOption, ...]]
    needs_secret: ClassVar[bool]
    pace: ClassVar[Pace | None]

    @property
    def rhythm(self) -> Rhythm | None:
        """When new values are expected; None where nobody can say."""
        ...

    @property
    def quantity(self) -> Quantity: ...

    def fetch(self, window: Interval, context: FetchContext) -> list[Observation]:
        """Fetch the values over ``window``, gaps left as gaps, ordered by start.

        Raises:
            FeedUnavailable, FeedRejected, FeedDataInvalid: see ``core.errors``.
        """
        ...

    def parse(self, payload: bytes, known_at: datetime) -> list[Observation]:
        """Normalise one recorded payload.

        Raises:
            FeedRejected: when the payload is the provider's own error.
            FeedDataInvalid: when it is not this provider's format or holds impossible values.
        """
        ...


@runtime_checkable
class PayloadQuantity(Protocol):
    """A connector of several kinds of document, which can tell which of them a payload is."""

    def quantity_of(self, payload: bytes) -> Quantity:
        """Return what ``parse`` reads from this payload; never raises."""
        ...
