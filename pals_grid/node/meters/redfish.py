"""Node power by Redfish, from the node's baseboard controller over HTTPS.

Of a chassis, ``EnvironmentMetrics`` (``PowerWatts.Reading``; DMTF DSP0268, EnvironmentMetrics
1.1) is used where it is there, else the older ``Power`` (``PowerControl[].PowerConsumedWatts``).
Certificates are always verified; a baseboard with one of its own needs its CA in a file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
import requests

from pals_grid.core.errors import (
    ConfigurationError,
    DeviceError,
    DevicePermission,
    DeviceUnsupported,
)
from pals_grid.node.meters.source import checked_w

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

TIMEOUT_S = (3.0, 5.0)
MAX_BYTES = 1 << 20
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
#: Chassis of this kind are parts of a node or hold several: their power is not the node's.
_NOT_A_NODE = {"Component", "Module", "Card", "Cartridge", "Drawer", "Rack", "Row", "Pod", "Zone"}


class _Link(msgspec.Struct):
    path: str = msgspec.field(name="@odata.id")


class _Members(msgspec.Struct):
    members: list[_Link] = msgspec.field(name="Members")


class _Chassis(msgspec.Struct):
    id: str = msgspec.field(name="Id")
    kind: str | None = msgspec.field(name="ChassisType", default=None)
    metrics: _Link | None = msgspec.field(name="EnvironmentMetrics", default=None)
    power: _Link | None = msgspec.field(name="Power", default=None)


class _Reading(msgspec.Struct):
    reading: float | None = msgspec.field(name="Reading", default=None)


class _Metrics(msgspec.Struct):
    power_watts: _Reading | None = msgspec.field(name="PowerWatts", default=None)


class _Control(msgspec.Struct):
    consumed_w: float | None = msgspec.field(name="PowerConsumedWatts", default=None)
    context: str | None = msgspec.field(name="PhysicalContext", default=None)


class _Power(msgspec.Struct):
    controls: list[_Control] = msgspec.field(name="PowerControl", default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the node's power stands."""

    chassis: str
    path: str
    is_metrics: bool


M = TypeVar("M", bound=msgspec.Struct)


class RedfishSource:
    """The baseboard's reading of one chassis.

    ``url`` is the controller's, such as https://10.0.0.7; ``chassis`` the Id of the chassis that
    is the node, needed where several give a power. ``auth`` is user and password.

    Raises:
        ConfigurationError: when ``url`` is not one, or would send the password in the clear.
    """

    name = "redfish"
    is_whole = True
    poll_s = 2.0

    def __init__(
        self,
        url: str,
        auth: tuple[str, str] | None = None,
        *,
        ca_file: Path | None = None,
        chassis: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ConfigurationError(f"node_meter_url: must be an https address, got {url!r}")
        if parts.username is not None:
            raise ConfigurationError("node_meter_url: must hold no password; it goes into a file")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ConfigurationError(
                f"node_meter_url: must begin with https:// unless it is this machine's, got {url!r}"
            )
        self._url = url.rstrip("/") + "/"
        self._chassis = chassis
        self._session = requests.Session()
        self._session.auth = auth
        self._session.trust_env = False  # no proxy and no .netrc between a node and its baseboard
        self._session.verify = str(ca_file) if ca_file is not None else True
        self._place: _Place | None = None

    def read_w(self) -> float:
        """Read the power; the first time the chassis is looked for.

        Raises:
            DeviceError: when there is no answer, a refusal, or no reading in it.
        """
        if self._place is None:
            self._place = self._find()
            log.info("redfish: power of chassis %s, %s", self._place.chassis, self._place.path)
        try:
            return checked_w(self._read(self._place), "redfish power")
        except DeviceUnsupported:
            self._place = None  # other firmware, other paths
            raise

    def _find(self) -> _Place:
        found: list[tuple[_Chassis, _Place]] = []
        for link in self._get("redfish/v1/Chassis", _Members).members:
            chassis = self._get(link.path, _Chassis)
            if self._chassis is not None and chassis.id != self._chassis:
                continue
            place = self._try(chassis)
            if place is not None:
                found.append((chassis, place))
        if not found:
            which = "no chassis gives" if self._chassis is None else f"{self._chassis} gives no"
            raise DeviceUnsupported(f"redfish: {which} power reading")
        nodes = [place for chassis, place in found if chassis.kind not in _NOT_A_NODE]
        if len(found) == 1:
            return found[0][1]
        if len(nodes) == 1:
            return nodes[0]
        names = ", ".join(chassis.id for chassis, _ in found)
        raise DeviceUnsupported(f"redfish: several chassis give power ({names}): name the node's")

    def _try(self, chassis: _Chassis) -> _Place | None:
        for link, is_metrics in ((chassis.metrics, True), (chassis.power, False)):
            if link is None:
                continue
            place = _Place(chassis.id, link.path, is_metrics)
            try:
                self._read(place)
            except DeviceUnsupported:
                continue
            return place
        return None

    def _read(self, place: _Place) -> float:
        if place.is_metrics:
            sensor = self._get(place.path, _Metrics).power_watts
            if sensor is None or sensor.reading is None:
                raise DeviceUnsupported(f"{place.path}: PowerWatts has no Reading")
            return sensor.reading
        controls = [
            control
            for control in self._get(place.path, _Power).controls
            if control.consumed_w is not None
        ]
        # Some list CPUs and memory beside the whole.
        whole = [control for control in controls if control.context in {None, "", "Chassis"}]
        for control in [*whole, *controls][:1]:
            assert control.consumed_w is not None
            return control.consumed_w
        raise DeviceUnsupported(f"{place.path}: PowerControl has no PowerConsumedWatts")

    def _get(self, path: str, kind: type[M]) -> M:
        url = urljoin(self._url, path)
        if urlsplit(url)[:2] != urlsplit(self._url)[:2]:
            raise DeviceError(f"redfish: {path!r} leads to another host")
        try:
            with self._session.get(
                url, timeout=TIMEOUT_S, allow_redirects=False, stream=True
            ) as answer:
                body = b""
                for chunk in answer.iter_content(1 << 16):
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise DeviceError(f"redfish: GET {url}: must be at most {MAX_BYTES} bytes")
        except (requests.RequestException, OSError) as error:
            raise DeviceError(f"redfish: GET {url}: {error}") from error
        if answer.status_code in {401, 403}:
            raise DevicePermission(f"redfish: GET {url}: {answer.status_code} {answer.reason}")
        if answer.status_code == 404:
            raise DeviceUnsupported(f"redfish: GET {url}: 404 {answer.reason}")
        if answer.status_code != 200:
            raise DeviceError(f"redfish: GET {url}: {answer.status_code} {answer.reason}")
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeviceError(f"redfish: GET {url}: {error}") from error


def read_auth(path: Path) -> tuple[str, str]:
    """Read ``user:password`` from a file that only its owner may read.

    Raises:
        ConfigurationError: when it is open to others, cannot be read, or holds something else;
            never quotes it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(
                f"node_meter_auth_file: must be readable by its owner alone (0600), got {path} "
                f"with {path.stat().st_mode & 0o777:04o}"
            )
        user, colon, password = path.read_text("utf-8").strip().partition(":")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"node_meter_auth_file: cannot be read: {path}") from error
    if not (user and colon and password) or "\n" in password:
        raise ConfigurationError(
            f"node_meter_auth_file: must hold one line user:password, got {path} without it"
        )
    return user, password
