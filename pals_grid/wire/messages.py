"""Messages between node and service, version 1: JSON by msgspec, unknown fields ignored.

A reader accepts messages of its own major version; new optional fields do not change it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from pals_grid.core.budget import Reason
from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin

PROTOCOL_VERSION = 1

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Instant = Annotated[datetime, Meta(tz=True)]
Watts = Annotated[float, Meta(ge=0, le=1e10)]
Joules = Annotated[float, Meta(ge=0, le=1e13)]
Count = Annotated[int, Meta(ge=0, le=2**62)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]


class GpuDescription(Struct, frozen=True, kw_only=True):
    """A GPU as its node reports it."""

    uuid: Name
    model: Name
    limit_min_w: Watts
    limit_max_w: Watts
    limit_default_w: Watts


class CurvePoint(Struct, frozen=True, kw_only=True):
    """One point of a node's power curve, at node boundary."""

    tokens_per_s: Amount
    power_w: Watts


class RegisterRequest(Struct, frozen=True, kw_only=True):
    """A node introduces itself; the same name at the same site is the same node."""

    protocol_version: int = PROTOCOL_VERSION
    name: Name
    hardware: Name
    agent_version: Name
    origin: Origin
    gpus: Annotated[list[GpuDescription], Meta(max_length=64)]
    models: Annotated[list[Name], Meta(max_length=64)]
    power_min_w: Watts
    power_max_w: Watts
    curve: Annotated[list[CurvePoint], Meta(min_length=1, max_length=512)]


class RegisterReply(Struct, frozen=True, kw_only=True):
    """The node's identity and its own token, which is shown only here."""

    protocol_version: int = PROTOCOL_VERSION
    node_id: int
    node_token: str
    site: str
    ttft_slo_s: float
    itl_slo_s: float


class EnvelopeInterval(Struct, frozen=True, kw_only=True):
    """What the node may draw over ``[start_at, end_at)``, at node boundary."""

    start_at: Instant
    end_at: Instant
    power_min_w: Watts
    power_max_w: Watts
    target_tokens_per_s: Amount
    reason: Reason
    event_id: int | None = None


class EnvelopeSchedule(Struct, frozen=True, kw_only=True):
    """The whole horizon. After its last interval the node falls to ``safe_power_w``."""

    protocol_version: int = PROTOCOL_VERSION
    node_id: int
    version: Count
    issued_at: Instant
    safe_power_w: Watts
    intervals: list[EnvelopeInterval]


class EngineRow(Struct, frozen=True, kw_only=True):
    """Five seconds of one engine on one node.

    ``gpu_energy_j`` is from the GPUs' counters, ``node_energy_j`` the engine's share of the
    whole node, ``idle_energy_j`` the part of ``node_energy_j`` spent with no request running.
    ``power_limit_w`` and ``power_draw_w`` sum over the engine's GPUs, mean over the row.
    ``requests_arrived`` counts those that wait, too: demand, where tokens are what was served.
    """

    engine: Name
    model: Name
    start_at: Instant
    end_at: Instant
    ticks: Count
    gpu_energy_j: Joules
    node_energy_j: Joules
    idle_energy_j: Joules
    energy_origin: Origin
    node_energy_origin: Origin
    power_draw_w: Watts
    power_draw_max_w: Watts
    power_limit_w: Watts
    power_envelope_w: Watts
    ticks_over_envelope: Count
    max_num_seqs: Count
    requests_running: Amount
    requests_waiting: Amount
    tokens_in: Amount
    tokens_out: Amount
    requests_finished: Count
    ttft_misses: Count
    itl_misses: Count
    requests_arrived: Count = 0


class GpuRow(Struct, frozen=True, kw_only=True):
    """Five seconds of one GPU."""

    gpu_uuid: Name
    start_at: Instant
    end_at: Instant
    energy_j: Joules
    power_draw_w: Watts
    power_limit_w: Watts
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None


class TelemetryBatch(Struct, frozen=True, kw_only=True):
    """Rows as spooled. ``(spool_id, seq)`` names a batch; sending it again changes nothing."""

    protocol_version: int = PROTOCOL_VERSION
    spool_id: Name
    seq: Count
    engine_rows: Annotated[list[EngineRow], Meta(max_length=5000)]
    gpu_rows: Annotated[list[GpuRow], Meta(max_length=50_000)]


class TelemetryAck(Struct, frozen=True, kw_only=True):
    """The batch is committed; ``*_inserted`` counts the rows that were new."""

    spool_id: str
    seq: int
    engine_rows_inserted: int
    gpu_rows_inserted: int


class GpuStatus(Struct, frozen=True, kw_only=True):
    """A GPU at the last tick.

    ``clock_reasons`` says why its clock is not at its highest; None where the GPU does not tell.
    """

    gpu_uuid: Name
    power_draw_w: Watts
    power_limit_w: Watts
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    clock_reasons: Annotated[list[Name], Meta(max_length=32)] | None = None


class EngineStatus(Struct, frozen=True, kw_only=True):
    """An engine at the last tick; rates over the last five seconds.

    ``requests_deferred`` may wait and do; ``tokens_deferred`` is their estimated output.
    ``sm_clock_limit_mhz`` is the SM clock that the GPUs shall be held to; None leaves it free.
    """

    engine: Name
    model: Name
    power_limit_w: Watts
    power_draw_w: Watts
    max_num_seqs: Count
    requests_running: Count
    requests_waiting: Count
    tokens_out_per_s: Amount
    gpu_energy_j_per_token: float | None
    reason: str
    requests_deferred: Count = 0
    tokens_deferred: Amount = 0.0
    sm_clock_limit_mhz: float | None = None


class NodeStatus(Struct, frozen=True, kw_only=True):
    """The node now; sent every second, also as its sign of life.

    ``mode`` is ``following`` (its schedule), ``safe`` (no schedule holds), or ``observing``
    (dry run: nothing is written). ``node_power_source`` names the meter or model that
    ``node_power_w`` comes from. A node with ``takes_grants`` obeys live grants;
    ``grant_epoch, grant_sequence`` name the newest that it has on disk, ``0, 0`` none.
    """

    protocol_version: int = PROTOCOL_VERSION
    at: Instant
    mode: Name
    envelope_version: Count
    power_envelope_w: Watts
    node_power_w: Watts
    node_power_origin: Origin
    gpu_power_w: Watts
    tick_lag_ms: float
    engines: list[EngineStatus]
    gpus: list[GpuStatus]
    node_power_source: Annotated[str, Meta(max_length=200)] = ""
    takes_grants: bool = False
    grant_epoch: Count = 0
    grant_sequence: Count = 0


class PowerGrant(Struct, frozen=True, kw_only=True):
    """What the node may draw for ``lease_s``, counted from when it sent the status.

    See ``core.grant.Grant``, which this carries.
    """

    epoch: Count
    sequence: Count
    power_w: Watts
    lease_s: Annotated[float, Meta(gt=0, le=3600)]


class StatusReply(Struct, frozen=True, kw_only=True):
    """Answers a status. Without a grant the node keeps to what it has."""

    protocol_version: int = PROTOCOL_VERSION
    grant: PowerGrant | None = None


M = TypeVar("M", bound=Struct)


def encode(message: Struct) -> bytes:
    """JSON of a message."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[M]) -> M:
    """Read a message, all bounds checked.

    Raises:
        InvalidValue: names the field and the bound, or the version that cannot be read.
    """
    try:
        message = msgspec.json.decode(payload, type=kind)
    except RecursionError as error:
        raise InvalidValue(kind.__name__, "...", "must not be nested so deeply") from error
    except UnicodeDecodeError as error:
        text = payload[:80].decode("utf-8", "replace")
        raise InvalidValue(kind.__name__, text, "must be UTF-8") from error
    except msgspec.DecodeError as error:
        text = str(error)
        bound, _, path = text.partition(" - at `")
        field = path.rstrip("`").removeprefix("$.") or kind.__name__
        raise InvalidValue(field, _value_at(payload, path), bound) from error
    version = getattr(message, "protocol_version", PROTOCOL_VERSION)
    if version != PROTOCOL_VERSION:
        raise InvalidValue("protocol_version", version, f"must be {PROTOCOL_VERSION}")
    return message


def _value_at(payload: bytes, path: str) -> object:
    """Return the value that msgspec's path ``$.a[0].b`` points at, for the error message."""
    try:
        value: object = msgspec.json.decode(payload)
        for part in (
            path.rstrip("`").removeprefix("$").replace("[", ".").replace("]", "").split(".")
        ):
            if part and isinstance(value, dict):
                value = value[part]
            elif part and isinstance(value, list):
                value = value[int(part)]
    except (msgspec.DecodeError, KeyError, IndexError, ValueError):
        return payload[:80].decode("utf-8", "replace")
    text = repr(value)
    return value if len(text) <= 80 else text[:80]
