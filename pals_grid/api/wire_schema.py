"""OpenAPI for the bodies that the wire's own decoder reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pals_grid.wire.messages import (
    EnvelopeSchedule,
    NodeStatus,
    RegisterReply,
    RegisterRequest,
    StatusReply,
    TelemetryAck,
    TelemetryBatch,
)

if TYPE_CHECKING:
    from fastapi import FastAPI

MESSAGES = (
    EnvelopeSchedule,
    NodeStatus,
    RegisterReply,
    RegisterRequest,
    StatusReply,
    TelemetryAck,
    TelemetryBatch,
)
_REF = "#/components/schemas/{name}"


def _content(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}}}


def takes(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """``openapi_extra`` of a route whose body is ``kind``."""
    return {"requestBody": {"required": True, "content": _content(kind)}}


def answers(status: int, kind: type[msgspec.Struct]) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that answers with ``kind``."""
    return {status: {"description": kind.__name__, "content": _content(kind)}}


def describe_wire(app: FastAPI) -> None:
    """Add the wire's schemas to the components of ``app``'s OpenAPI document."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        _, components = msgspec.json.schema_components(MESSAGES, ref_template=_REF)
        for name, schema in components.items():
            schemas.setdefault(name, schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend it
