"""Ports: what the inside asks of the outside. One to three methods each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

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


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One look at a GPU. ``energy_j`` is a counter that only rises."""

    power_draw_w: float
    energy_j: float
    power_limit_w: float
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None


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
class EngineSample:
    """One look at a serving engine. Names ending in ``_total`` are counters that only rise.

    ``max_num_seqs`` is None where the engine does not tell. Requests that may wait are
    ``requests_deferred`` while they do, apart from ``requests_waiting``, and part of
    ``requests_running`` once they run.
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
    """Power of the whole node, fans and CPUs included, and how it is known."""

    power_w: float
    origin: Origin


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
    """GET over HTTP with bounded time and size."""

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


@dataclass(frozen=True, slots=True)
class ConnectorOption:
    """One setting of a connector; ``default`` None means that it must be given."""

    name: str
    help: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class FetchContext:
    """What a connector gets besides its options."""

    http: HttpClient
    fetched_at: datetime
    secret: str | None = None


class Connector(Protocol):
    """One provider, made from its options, found by the entry point ``pals_grid.connectors``.

    ``__init__(options)`` raises InvalidValue for a missing, unknown or impossible option.
    """

    summary: ClassVar[str]
    options: ClassVar[tuple[ConnectorOption, ...]]
    needs_secret: ClassVar[bool]

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
