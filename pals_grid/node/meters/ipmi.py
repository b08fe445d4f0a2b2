"""Node power by IPMI DCMI, through ``ipmitool dcmi power reading`` on the node itself.

The command prints the instantaneous reading in watts and whether measuring is activated (DCMI
1.5, "Get Power Reading"; ipmitool's ``lib/ipmi_dcmi.c``). It needs /dev/ipmi0 and its right.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from pals_grid.core.errors import DeviceError, DevicePermission, DeviceUnsupported
from pals_grid.node.meters.source import checked_w

TIMEOUT_S = 5.0
DEVICES = ("dev/ipmi0", "dev/ipmi/0", "dev/ipmidev/0")
_WATTS = re.compile(r"^\s*Instantaneous power reading:\s*(\d+)\s*Watts", re.MULTILINE)
_STATE = re.compile(r"^\s*Power reading state is:\s*(\w+)", re.MULTILINE)


class IpmiSource:
    """The baseboard's own reading; a program is started for each."""

    name = "ipmi dcmi"
    is_whole = True
    poll_s = 2.0

    def __init__(self, program: str = "ipmitool", timeout_s: float = TIMEOUT_S) -> None:
        self._program = program
        self._timeout_s = timeout_s

    def read_w(self) -> float:
        """Start the program and read its output.

        Raises:
            DeviceError: when it is not there, fails, is late, or gives no reading.
        """
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command without a shell
                [self._program, "dcmi", "power", "reading"],
                capture_output=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=self._timeout_s,
                env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        except FileNotFoundError as error:
            raise DeviceUnsupported(f"{self._program} is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                f"{self._program} gave no answer within {self._timeout_s:g} s"
            ) from error
        except OSError as error:
            raise DevicePermission(f"{self._program} cannot be started: {error}") from error
        text = done.stdout.decode("ascii", "replace")
        if done.returncode != 0:
            said = " ".join(done.stderr.decode("ascii", "replace").split())[:200]
            kind = DevicePermission if "ermission" in said else DeviceError
            raise kind(f"{self._program} ended with {done.returncode}: {said}")
        return parse_reading(text)


def parse_reading(text: str) -> float:
    """Return the watts of ``ipmitool dcmi power reading``.

    Raises:
        DeviceError: when there is no reading, measuring is off, or it reads 0.
    """
    state = _STATE.search(text)
    if state is not None and state[1] != "activated":
        raise DeviceUnsupported(f"DCMI power reading is {state[1]}")
    watts = _WATTS.search(text)
    if watts is None:
        raise DeviceError(f"DCMI gives no instantaneous power reading: {text.strip()[:200]!r}")
    return checked_w(float(watts[1]), "DCMI power reading")


def find_ipmi(root: Path = Path("/")) -> IpmiSource | None:
    """Return a source where both the program and the kernel's device are there."""
    program = shutil.which("ipmitool", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None or not any((root / device).exists() for device in DEVICES):
        return None
    return IpmiSource(program)
