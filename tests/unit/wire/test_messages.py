from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_grid.core.budget import Reason
from pals_grid.core.errors import InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.wire.messages import (
    CurvePoint,
    EngineRow,
    EngineStatus,
    EnvelopeInterval,
    EnvelopeSchedule,
    GpuDescription,
    GpuRow,
    GpuStatus,
    NodeStatus,
    RegisterReply,
    RegisterRequest,
    TelemetryAck,
    TelemetryBatch,
    decode,
    encode,
)

if TYPE_CHECKING:
    from msgspec import Struct

NAME = st.text(min_size=1, max_size=200)
WATTS = st.floats(0, 1e10)
JOULES = st.floats(0, 1e13)
AMOUNT = st.floats(0, 1e15)
COUNT = st.integers(0, 2**62)
AT = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
ORIGIN = st.sampled_from(Origin)

ENVELOPES = st.builds(
    EnvelopeInterval,
    start_at=AT,
    end_at=AT,
    power_min_w=WATTS,
    power_max_w=WATTS,
    target_tokens_per_s=AMOUNT,
    reason=st.sampled_from(Reason),
    event_id=st.none() | COUNT,
)
ENGINE_ROWS = st.builds(
    EngineRow,
    engine=NAME,
    model=NAME,
    start_at=AT,
    end_at=AT,
    ticks=COUNT,
    gpu_energy_j=JOULES,
    node_energy_j=JOULES,
    idle_energy_j=JOULES,
    energy_origin=ORIGIN,
    node_energy_origin=ORIGIN,
    power_draw_w=WATTS,
    power_draw_max_w=WATTS,
    power_limit_w=WATTS,
    power_envelope_w=WATTS,
    ticks_over_envelope=COUNT,
    max_num_seqs=COUNT,
    requests_running=AMOUNT,
    requests_waiting=AMOUNT,
    tokens_in=AMOUNT,
    tokens_out=AMOUNT,
    requests_finished=COUNT,
    ttft_misses=COUNT,
    itl_misses=COUNT,
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
GPU_ROWS = st.builds(
    GpuRow,
    gpu_uuid=NAME,
    start_at=AT,
    end_at=AT,
    energy_j=JOULES,
    power_draw_w=WATTS,
    power_limit_w=WATTS,
    temperature_c=st.none() | FINITE,
    sm_clock_mhz=st.none() | FINITE,
)
MESSAGES: st.SearchStrategy[Struct] = st.one_of(
    st.builds(
        RegisterRequest,
        name=NAME,
        hardware=NAME,
        agent_version=NAME,
        origin=ORIGIN,
        gpus=st.lists(
            st.builds(
                GpuDescription,
                uuid=NAME,
                model=NAME,
                limit_min_w=WATTS,
                limit_max_w=WATTS,
                limit_default_w=WATTS,
            ),
            max_size=3,
        ),
        models=st.lists(NAME, max_size=3),
        power_min_w=WATTS,
        power_max_w=WATTS,
        curve=st.lists(
            st.builds(CurvePoint, tokens_per_s=AMOUNT, power_w=WATTS), min_size=1, max_size=3
        ),
    ),
    st.builds(
        RegisterReply,
        node_id=COUNT,
        node_token=NAME,
        site=NAME,
        ttft_slo_s=FINITE,
        itl_slo_s=FINITE,
    ),
    st.builds(
        EnvelopeSchedule,
        node_id=COUNT,
        version=COUNT,
        issued_at=AT,
        safe_power_w=WATTS,
        intervals=st.lists(ENVELOPES, max_size=3),
    ),
    st.builds(
        TelemetryBatch,
        spool_id=NAME,
        seq=COUNT,
        engine_rows=st.lists(ENGINE_ROWS, max_size=2),
        gpu_rows=st.lists(GPU_ROWS, max_size=2),
    ),
    st.builds(
        TelemetryAck,
        spool_id=NAME,
        seq=COUNT,
        engine_rows_inserted=COUNT,
        gpu_rows_inserted=COUNT,
    ),
    st.builds(
        NodeStatus,
        at=AT,
        mode=NAME,
        envelope_version=COUNT,
        power_envelope_w=WATTS,
        node_power_w=WATTS,
        node_power_origin=ORIGIN,
        gpu_power_w=WATTS,
        tick_lag_ms=FINITE,
        engines=st.lists(
            st.builds(
                EngineStatus,
                engine=NAME,
                model=NAME,
                power_limit_w=WATTS,
                power_draw_w=WATTS,
                max_num_seqs=COUNT,
                requests_running=COUNT,
                requests_waiting=COUNT,
                tokens_out_per_s=AMOUNT,
                gpu_energy_j_per_token=st.none() | FINITE,
                reason=st.text(max_size=20),
            ),
            max_size=2,
        ),
        gpus=st.lists(
            st.builds(
                GpuStatus,
                gpu_uuid=NAME,
                power_draw_w=WATTS,
                power_limit_w=WATTS,
                temperature_c=st.none() | FINITE,
            ),
            max_size=2,
        ),
    ),
)


@given(message=MESSAGES)
def test_what_is_sent_is_what_is_read(message: Struct) -> None:
    assert decode(encode(message), type(message)) == message


START = datetime(2026, 3, 2, 12, tzinfo=UTC)
SCHEDULE = EnvelopeSchedule(
    node_id=1,
    version=3,
    issued_at=START,
    safe_power_w=500.0,
    intervals=[
        EnvelopeInterval(
            start_at=START,
            end_at=START + timedelta(hours=1),
            power_min_w=100.0,
            power_max_w=900.0,
            target_tokens_per_s=10.0,
            reason=Reason.DEMAND,
        )
    ],
)


def altered(**change: object) -> bytes:
    """Return the schedule's JSON with fields of the message, or of its interval, replaced."""
    document = json.loads(encode(SCHEDULE))
    for key, value in change.items():
        target = document if key in document else document["intervals"][0]
        target[key] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"safe_power_w": -1}, "safe_power_w", -1),
        ({"safe_power_w": "much"}, "safe_power_w", "much"),
        ({"power_max_w": -5.5}, "intervals[0].power_max_w", -5.5),
        ({"reason": "whim"}, "intervals[0].reason", "whim"),
        ({"start_at": "2026-03-02T12:00:00"}, "intervals[0].start_at", "2026-03-02T12:00:00"),
        ({"protocol_version": 2}, "protocol_version", 2),
    ],
)
def test_a_bad_field_is_named_with_its_value(
    change: dict[str, object], field: str, value: object
) -> None:
    with pytest.raises(InvalidValue) as caught:
        decode(altered(**change), EnvelopeSchedule)
    assert (caught.value.field, caught.value.value) == (field, value)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"node_id": 1}'])
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode(payload, EnvelopeSchedule)


def test_no_number_that_json_cannot_hold_is_accepted() -> None:
    for word in (b"NaN", b"Infinity", b"1e999"):
        payload = encode(SCHEDULE).replace(b"500.0", word)
        with pytest.raises(InvalidValue):
            decode(payload, EnvelopeSchedule)


def test_a_new_optional_field_of_a_newer_writer_is_ignored() -> None:
    document = json.loads(encode(SCHEDULE)) | {"colour": "green"}
    assert decode(json.dumps(document).encode(), EnvelopeSchedule) == SCHEDULE


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidValue, match="UTF-8"):
        decode(b'{"name": "\xff"}', RegisterRequest)
