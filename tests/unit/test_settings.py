from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from pals_grid.core.errors import ConfigurationError
from pals_grid.settings import Settings, load_settings


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    found = load_settings({"PALS_GRID_PORT": ""})
    assert found == Settings(data_dir=Path("/home/somebody/.local/share/pals-grid"))
    assert found.url == "http://127.0.0.1:8080"


def test_everything_is_read() -> None:
    found = load_settings(
        {
            "PALS_GRID_DATA_DIR": "/srv/grid",
            "PALS_GRID_DATABASE_URL": "postgres://u:p@db/grid",
            "PALS_GRID_HOST": "::",
            "PALS_GRID_PORT": "9000",
            "PALS_GRID_ALLOWED_HOSTS": "Grid.example, other.example,",
            "PALS_GRID_LOG_LEVEL": "DEBUG",
            "PALS_GRID_DEMO_ACTUATE": "1",
            "PALS_GRID_FEED_NETWORKS": "127.0.0.0/8, fd00:1::/32,",
            "PALS_GRID_FEED_FOLDERS": "/srv/prices",
            "PALS_GRID_FEED_CA_FILE": __file__,
            "PALS_GRID_FEED_RETRY_MIN_S": "10",
            "PALS_GRID_FEED_RETRY_MAX_S": "600",
            "PALS_GRID_FEED_BREAKER_FAILURES": "3",
        }
    )
    assert found == Settings(
        data_dir=Path("/srv/grid"),
        database_url="postgresql://u:p@db/grid",
        host="::",
        port=9000,
        allowed_hosts=("grid.example", "other.example"),
        log_level="debug",
        demo_actuate=True,
        feed_networks=(ip_network("127.0.0.0/8"), ip_network("fd00:1::/32")),
        feed_folders=(Path("/srv/prices"),),
        feed_ca_file=Path(__file__),
        feed_retry_min_s=10,
        feed_retry_max_s=600,
        feed_breaker_failures=3,
    )
    assert found.url == "http://[::1]:9000"
    assert found.token_file == Path("/srv/grid/node-token")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PALS_GRID_PORT", "0"),
        ("PALS_GRID_PORT", "65536"),
        ("PALS_GRID_PORT", "80.5"),
        ("PALS_GRID_PORT", "http"),
        ("PALS_GRID_DEMO_ACTUATE", "yes"),
        ("PALS_GRID_FEED_NETWORKS", "10.0.0.1/8"),
        ("PALS_GRID_FEED_NETWORKS", "intranet"),
        ("PALS_GRID_FEED_FOLDERS", "prices"),
        ("PALS_GRID_FEED_CA_FILE", "/no/such/file"),
        ("PALS_GRID_FEED_RETRY_MIN_S", "0"),
        ("PALS_GRID_FEED_RETRY_MAX_S", "29"),
        ("PALS_GRID_FEED_BREAKER_FAILURES", "0"),
        ("PALS_GRID_LOG_LEVEL", "loud"),
        ("PALS_GRID_ALLOWED_HOSTS", "*.example"),
        ("PALS_GRID_DATA_DIR", __file__),
    ],
)
def test_a_bad_value_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({name: value})
    assert name in str(caught.value)
    assert value in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://root:hunter2@db/x", "hunter2"])
def test_a_bad_database_url_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"PALS_GRID_DATABASE_URL": url})
    assert "PALS_GRID_DATABASE_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)
