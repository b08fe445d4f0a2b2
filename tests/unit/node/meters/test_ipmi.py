from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import DeviceError, DevicePermission, DeviceUnsupported
from pals_grid.node.meters.ipmi import IpmiSource, find_ipmi, parse_reading
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT = """
    Instantaneous power reading:                  1337 Watts
    Minimum during sampling period:                400 Watts
    Maximum during sampling period:               2120 Watts
    Average power reading over sample period:     1202 Watts
    IPMI timestamp:                           Mon Jan  5 12:00:00 2026
    Sampling period:                          00000001 Seconds.
    Power reading state is:                   {state}

"""


def script(folder: Path, body: str) -> str:
    path = folder / "ipmitool"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_the_programs_output_is_read(tmp_path: Path) -> None:
    text = OUTPUT.format(state="activated")
    program = script(tmp_path, f"test \"$*\" = 'dcmi power reading' && cat <<'END'\n{text}END")
    assert IpmiSource(program, PATIENCE_S).read_w() == 1337.0


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (OUTPUT.format(state="deactivated"), DeviceUnsupported, "is deactivated"),
        (OUTPUT.format(state="activated").replace("1337", "0"), DeviceError, "must be above 0"),
        ("", DeviceError, "no instantaneous power reading"),
        ("Instantaneous power reading: many Watts", DeviceError, "no instantaneous"),
        ("    Instantaneous power reading: 99999999 Watts", DeviceError, "at most 1e\\+06 W"),
    ],
)
def test_output_without_a_reading_is_told(text: str, kind: type[DeviceError], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse_reading(text)


def test_a_program_that_fails_is_late_or_missing_is_told(tmp_path: Path) -> None:
    denied = "echo 'Could not open device at /dev/ipmi0: Permission denied' >&2; exit 1"
    with pytest.raises(DevicePermission, match="ended with 1: Could not open"):
        IpmiSource(script(tmp_path, denied), PATIENCE_S).read_w()
    with pytest.raises(DeviceError, match="ended with 3"):
        IpmiSource(script(tmp_path, "exit 3"), PATIENCE_S).read_w()
    with pytest.raises(DeviceError, match=r"no answer within 0\.2 s"):
        IpmiSource(script(tmp_path, "exec sleep 60"), timeout_s=0.2).read_w()
    with pytest.raises(DeviceUnsupported, match="is not installed"):
        IpmiSource(str(tmp_path / "nowhere")).read_w()
    unmarked = tmp_path / "plain"
    unmarked.write_text("")
    with pytest.raises(DevicePermission, match="cannot be started"):
        IpmiSource(str(unmarked)).read_w()


def test_it_is_offered_only_where_program_and_device_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/ipmitool")
    assert find_ipmi(tmp_path) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ipmi0").write_text("")
    assert find_ipmi(tmp_path) is not None
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert find_ipmi(tmp_path) is None
