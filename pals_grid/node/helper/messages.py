"""Messages between an agent and the privileged helper: JSON, one in each packet, version 1.

Everything that a peer sends is bounded here; what does not fit is no message.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from pals_grid.core.commands import Outcome

HELPER_VERSION = 1
MAX_MESSAGE_BYTES = 64 * 1024
MAX_GPUS = 64
MAX_HOLDS = 128

Uuid = Annotated[str, Meta(min_length=1, max_length=200)]
Instant = Annotated[datetime, Meta(tz=True)]
Watts = Annotated[float, Meta(ge=0, le=1e6)]
Mhz = Annotated[float, Meta(gt=0, le=1e5)]


class Hello(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="hello"):
    """The first message: asks for control of the GPUs."""

    version: int = HELPER_VERSION
    name: Annotated[str, Meta(min_length=1, max_length=200)]


class Hold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time ``[start_at, end_at)`` in which the site's limit binds: an event, or its connection.

    ``limit_w``, per GPU, keeps the node inside what it was granted for that time.
    """

    start_at: Instant
    end_at: Instant
    limit_w: Watts


class Beat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="beat"):
    """The agent lives, and this is what holds without it.

    ``uuids`` are the GPUs that it steers. ``safe_limit_w``, per GPU, is inside all that the node
    was granted until ``lease_until``; it holds after a reboot, until an agent is there.
    """

    uuids: Annotated[list[Uuid], Meta(max_length=MAX_GPUS)]
    holds: Annotated[list[Hold], Meta(max_length=MAX_HOLDS)] = []
    safe_limit_w: Watts | None = None
    lease_until: Instant | None = None


class SetPowerLimit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="power"):
    """Set one GPU's power limit."""

    uuid: Uuid
    power_limit_w: Watts


class SetClockLimit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="clock"):
    """Hold one GPU's SM clock at or below a value; None releases it."""

    uuid: Uuid
    sm_clock_mhz: Mhz | None


class Release(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="release"):
    """The agent stops: restore, now or when the hold that is active ends."""


class Welcome(Struct, frozen=True, kw_only=True, tag="welcome"):
    """Control is granted over these GPUs."""

    version: int = HELPER_VERSION
    uuids: list[str]


class Refusal(Struct, frozen=True, kw_only=True, tag="refusal"):
    """Control is not granted; ``reason`` names who has it, or what does not fit."""

    version: int = HELPER_VERSION
    reason: str


class Taken(Struct, frozen=True, kw_only=True, tag="taken"):
    """The beat counts."""


class Wrote(Struct, frozen=True, kw_only=True, tag="wrote"):
    """What became of a write, as ``core.commands.ActuationResult``."""

    outcome: Outcome
    requested: float
    read_back: float | None
    detail: str = ""
    retry_after_s: float | None = None


class Released(Struct, frozen=True, kw_only=True, tag="released"):
    """Restored but for ``failures``; or held until ``held_until``, and restored then."""

    failures: list[str]
    held_until: datetime | None = None


Request = Hello | Beat | SetPowerLimit | SetClockLimit | Release
Reply = Welcome | Refusal | Taken | Wrote | Released

M = TypeVar("M")

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def decode_request(packet: bytes) -> Request:
    """Read what an agent sent.

    Raises:
        msgspec.DecodeError: when it is no request, says where.
    """
    return _decode(_requests, packet)


def decode_reply(packet: bytes) -> Reply:
    """Read what the helper sent.

    Raises:
        msgspec.DecodeError: when it is no reply, says where.
    """
    return _decode(_replies, packet)


def _decode(decoder: msgspec.json.Decoder[M], packet: bytes) -> M:
    if len(packet) > MAX_MESSAGE_BYTES:
        raise msgspec.DecodeError(f"must have at most {MAX_MESSAGE_BYTES} bytes")
    try:
        return decoder.decode(packet)
    except RecursionError as error:
        raise msgspec.DecodeError("must not be nested so deeply") from error
