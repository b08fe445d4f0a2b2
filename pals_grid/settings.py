"""What the operator sets, read once from the environment and passed in from there on."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from pals_grid.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network

_LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between two installations.

    ``database_url`` None means the embedded Postgres below ``data_dir``.
    ``allowed_hosts`` are names that the service answers to besides loopback and ``host``.
    ``feed_networks`` are what feeds may ask besides the public internet, ``feed_folders`` where
    files of feeds may lie (None: anywhere), ``feed_ca_file`` the certificates that feeds trust
    instead of the usual ones. A provider that does not answer is asked again after
    ``feed_retry_min_s`` up to ``feed_retry_max_s``, and all its feeds are held back after
    ``feed_breaker_failures`` in a row. ``plans_at_once`` sites are planned at a time.
    """

    data_dir: Path
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] = ()
    log_level: str = "info"
    demo_actuate: bool = False
    feed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    feed_folders: tuple[Path, ...] | None = None
    feed_ca_file: Path | None = None
    feed_retry_min_s: int = 30
    feed_retry_max_s: int = 3600
    feed_breaker_failures: int = 5
    plans_at_once: int = 2

    @property
    def url(self) -> str:
        """Where a browser or a node on this machine reaches the service."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - names the wildcard, binds nothing
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def token_file(self) -> Path:
        """Where ``up`` leaves the enrolment token for the nodes of this machine."""
        return self.data_dir / "node-token"

    @property
    def logs_dir(self) -> Path:
        """Where ``up`` keeps its logs."""
        return self.data_dir / "logs"


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings; an empty variable counts as unset.

    Raises:
        ConfigurationError: names the variable, its bound and the value.
    """
    retry_min_s = _whole(environ, "PALS_GRID_FEED_RETRY_MIN_S", 30, 1, 3600)
    return Settings(
        data_dir=_data_dir(environ),
        database_url=_database_url(environ),
        host=_text(environ, "PALS_GRID_HOST", "127.0.0.1"),
        port=_whole(environ, "PALS_GRID_PORT", 8080, 1, 65_535),
        allowed_hosts=_names(environ, "PALS_GRID_ALLOWED_HOSTS"),
        log_level=_choice(environ, "PALS_GRID_LOG_LEVEL", "info", _LOG_LEVELS),
        demo_actuate=_choice(environ, "PALS_GRID_DEMO_ACTUATE", "0", ("0", "1")) == "1",
        feed_networks=_networks(environ, "PALS_GRID_FEED_NETWORKS"),
        feed_folders=_folders(environ, "PALS_GRID_FEED_FOLDERS"),
        feed_ca_file=_file(environ, "PALS_GRID_FEED_CA_FILE"),
        feed_retry_min_s=retry_min_s,
        feed_retry_max_s=_whole(
            environ, "PALS_GRID_FEED_RETRY_MAX_S", max(3600, retry_min_s), retry_min_s, 86_400
        ),
        feed_breaker_failures=_whole(environ, "PALS_GRID_FEED_BREAKER_FAILURES", 5, 1, 1000),
        plans_at_once=_whole(environ, "PALS_GRID_PLANS_AT_ONCE", 2, 1, 6),
    )


def _text(environ: Mapping[str, str], name: str, default: str) -> str:
    return environ.get(name, "").strip() or default


def _refuse(name: str, bound: str, value: object) -> ConfigurationError:
    return ConfigurationError(f"{name}: {bound}, got {value!r}")


def _data_dir(environ: Mapping[str, str]) -> Path:
    given = _text(environ, "PALS_GRID_DATA_DIR", "")
    if given:
        path = Path(given).expanduser()
        if path.exists() and not path.is_dir():
            raise _refuse("PALS_GRID_DATA_DIR", "must be a directory", given)
        return path.absolute()
    base = _text(environ, "XDG_DATA_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "share") / "pals-grid"


def _database_url(environ: Mapping[str, str]) -> str | None:
    url = _text(environ, "PALS_GRID_DATABASE_URL", "")
    if not url:
        return None
    scheme, separator, _ = url.partition("://")
    if scheme not in {"postgresql", "postgresql+psycopg", "postgres"}:
        # The rest of the value may hold a password, so at most the scheme is shown.
        value = f"{scheme}://..." if separator else "no scheme"
        raise _refuse("PALS_GRID_DATABASE_URL", "must begin with postgresql://", value)
    return url.replace("postgres://", "postgresql://", 1) if scheme == "postgres" else url


def _whole(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = _text(environ, name, "")
    if not text:
        return default
    bound = f"must be a whole number from {low} to {high}"
    try:
        value = int(text)
    except ValueError as error:
        raise _refuse(name, bound, text) from error
    if not low <= value <= high:
        raise _refuse(name, bound, text)
    return value


def _choice(environ: Mapping[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = _text(environ, name, default).lower()
    if value not in allowed:
        raise _refuse(name, f"must be one of {', '.join(allowed)}", value)
    return value


def _names(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    parts = tuple(part.strip().lower() for part in environ.get(name, "").split(","))
    names = tuple(part for part in parts if part)
    for part in names:
        if "/" in part or "*" in part:
            raise _refuse(name, "must be host names separated by commas", part)
    return names


def _parts(environ: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in environ.get(name, "").split(",") if part.strip()]


def _networks(environ: Mapping[str, str], name: str) -> tuple[IPv4Network | IPv6Network, ...]:
    found = []
    for part in _parts(environ, name):
        try:
            found.append(ip_network(part))
        except ValueError as error:
            bound = "must be networks such as 10.1.0.0/16 separated by commas"
            raise _refuse(name, bound, part) from error
    return tuple(found)


def _folders(environ: Mapping[str, str], name: str) -> tuple[Path, ...] | None:
    found = tuple(Path(part) for part in _parts(environ, name))
    for folder in found:
        if not folder.is_absolute():
            raise _refuse(name, "must be absolute folders separated by commas", str(folder))
    return found or None


def _file(environ: Mapping[str, str], name: str) -> Path | None:
    text = _text(environ, name, "")
    if text and not Path(text).is_file():
        raise _refuse(name, "must be a file", text)
    return Path(text) if text else None
