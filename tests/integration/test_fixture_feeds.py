"""From the providers' recorded answers over real HTTP to values, stored values and a plan."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from pals_grid.core.errors import FeedDataInvalid, FeedRejected, InvalidValue
from pals_grid.core.fleet import Origin
from pals_grid.core.intervals import Interval, parse_instant
from pals_grid.core.ports import FetchContext
from pals_grid.core.series import Observation, Quantity, ValueKind
from pals_grid.core.site import SitePolicy
from pals_grid.feeds.addresses import AddressRule, read_network
from pals_grid.feeds.cache import Answers
from pals_grid.feeds.guard import fetch_guarded
from pals_grid.feeds.http import RequestsHttp
from pals_grid.feeds.registry import ConnectorRegistry
from pals_grid.planner.linear import plan_power_budget
from pals_grid.service.context import Context
from pals_grid.service.feeds import (
    FeedRequest,
    add_feed,
    fetch_feed,
    load_feed,
    load_series,
    preview_feed,
)
from pals_grid.service.nodes import issue_enrolment_token, register_node
from pals_grid.service.paging import Page
from pals_grid.service.plans import load_plan, load_plan_evidence
from pals_grid.service.sites import create_site
from pals_grid.sim.clock import SimClock
from pals_grid.store.engine import Database
from pals_grid.wire.messages import CurvePoint, GpuDescription, RegisterRequest

TOKEN = "the-right-token"
REGISTRY = ConnectorRegistry()
HTTP = RequestsHttp(rule=AddressRule((read_network("127.0.0.0/8"),)))
# The Octopus and NESO recordings meet here.
EVENING_AT = parse_instant("evening", "2020-05-24T20:40Z")
TARIFF_PATH = "/v1/products/AGILE-18-02-21/electricity-tariffs/E-1R-AGILE-18-02-21-D"
EIA_PATH = "/v2/electricity/rto/fuel-type-data/data/"
ENTSOE_FILES = {
    "10YNL----------L": "A44_NL_2024-09-02_A03_PT60M.xml",
    "10YBE----------2": "A44_BE_2024-10-08_A03_PT60M.xml",
    "10Y1001A1001A82H": "A44_DE-LU_2024-10-06_07_seq1_PT60M_seq2_PT15M.xml",
    "10YSE-1--------K": "A75_SE4_production.xml",
}


class Providers(BaseHTTPRequestHandler):
    """Every provider behind one address, each under its own paths."""

    asked: ClassVar[list[str]] = []

    def __init__(self, data: Path, *arguments: object) -> None:
        self._data = data
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        Providers.asked.append(self.path)
        parts = urlsplit(self.path)
        status, found = self._find(parts.path, parse_qs(parts.query))
        body = found if isinstance(found, bytes) else (self._data / found).read_bytes()
        # The recorded first page leads to a second one at the provider's own address.
        body = body.replace(
            b"https://api.octopus.energy", f"http://{self.headers['Host']}".encode()
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _find(self, path: str, query: dict[str, list[str]]) -> tuple[int, str | bytes]:
        if path.startswith(TARIFF_PATH):
            last = b'{"next": null, "results": []}'
            return 200, last if "page" in query else "fixtures/octopus/agile_D_2020-05-24_25.json"
        if path.startswith("/intensity/"):
            name = "intensity_fw24h_2020-05-24" if path.endswith("/fw48h") else "gb_with_dates"
            return 200, f"fixtures/neso_carbon/{name}.json"
        if path.startswith("/regional/intensity/"):
            return 200, "fixtures/neso_carbon/pc_with_dates.json"
        if path in {"/api", EIA_PATH}:
            return self._find_entsoe(query) if path == "/api" else self._find_eia(query)
        if path.startswith("/series/"):
            return 200, path.removeprefix("/")
        return 404, b'{"detail": "Not found."}'

    def _find_entsoe(self, query: dict[str, list[str]]) -> tuple[int, str | bytes]:
        if query["securityToken"] != [TOKEN]:
            return 401, f"Unauthorized: {query['securityToken'][0]}".encode()
        if query["documentType"] == ["A75"]:
            return 200, "fixtures/entsoe/A75_NL_2024-09-02_PT15M_A03.xml"
        name = ENTSOE_FILES.get(query["in_Domain"][0])
        return 200, f"fixtures/entsoe/{name or 'ACK_invalid_request_handmade.xml'}"

    def _find_eia(self, query: dict[str, list[str]]) -> tuple[int, str | bytes]:
        if query["api_key"] != [TOKEN]:
            return 403, f'{{"error": "no such key: {query["api_key"][0]}"}}'.encode()
        return 200, b'{"response": {"total": "0", "frequency": "hourly", "data": []}}'

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keep the test output clean."""


@pytest.fixture
def address(shared_data: Path) -> Iterator[str]:
    Providers.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Providers, shared_data))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    host, port = server.server_address[:2]
    yield f"http://{host!s}:{port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(name: str, options: dict[str, str], now: datetime, hours: float) -> list[Observation]:
    window = Interval(now, now + timedelta(hours=hours))
    context = FetchContext(HTTP, now, TOKEN)
    return fetch_guarded(REGISTRY.create(name, options), window, context)


def octopus_options(address: str) -> dict[str, str]:
    return {"product": "AGILE-18-02-21", "region": "D", "base_url": f"{address}/v1"}


# --- connectors over HTTP ------------------------------------------------------------------


def test_octopus_over_http(address: str) -> None:
    found = fetch("octopus_agile", octopus_options(address), EVENING_AT, 24)
    assert len(found) == 49
    assert (found[0].start_at, found[0].value) == (
        parse_instant("first", "2020-05-24T20:30Z"),
        88.3,
    )
    (asked,) = Providers.asked
    assert asked.startswith(
        "/v1/products/AGILE-18-02-21/electricity-tariffs/E-1R-AGILE-18-02-21-D/"
    )
    assert asked.endswith("?period_from=2020-05-24T20%3A30Z&period_to=2020-05-25T21%3A00Z")
    longer = fetch("octopus_agile", octopus_options(address), EVENING_AT, 48)
    assert longer[-1].end_at == parse_instant("last", "2020-05-25T22:00Z")
    assert Providers.asked[-1].endswith("/standard-unit-rates/?page=2")
    gone = octopus_options(address) | {"product": "AGILE-99"}
    with pytest.raises(FeedRejected, match=r"no product 'AGILE-99'.*Not found"):
        fetch("octopus_agile", gone, EVENING_AT, 24)


def test_neso_over_http(address: str) -> None:
    found = fetch("neso", {"base_url": address}, EVENING_AT, 24)
    assert [item.value for item in found[:3]] == [146.0, 148.0, 148.0]
    assert {item.kind for item in found} == {ValueKind.FORECAST}
    assert Providers.asked == ["/intensity/2020-05-24T20:30Z/fw48h"]
    new_year = parse_instant("new year", "2019-12-31T23:45Z")
    past = {"base_url": address, "postcode": "EN2"}
    regional = fetch("neso", past, new_year - timedelta(days=365), 24)
    assert len(regional) == 49
    assert Providers.asked[-1].endswith("/fw48h/postcode/EN2")


def test_entsoe_over_http(address: str) -> None:
    base = {"base_url": f"{address}/api"}
    day_at = parse_instant("day", "2024-09-01T22:00Z")
    dutch = fetch("entsoe", base | {"zone": "NL"}, day_at, 24)
    assert (len(dutch), dutch[0].value, dutch[-1].value) == (24, 91.24, 104.0)
    german = fetch("entsoe", base | {"zone": "DE-LU"}, datetime(2024, 10, 5, 22, tzinfo=UTC), 48)
    assert (len(german), min(item.value for item in german)) == (48, -0.01)
    assert fetch("entsoe", base | {"zone": "FR"}, day_at, 24) == []
    with pytest.raises(FeedDataInvalid, match=r"'A75'|in_Domain"):
        fetch("entsoe", base | {"zone": "10YSE-1--------K"}, day_at, 24)


def test_entsoe_never_shows_the_token(address: str) -> None:
    connector = REGISTRY.create("entsoe", {"zone": "NL", "base_url": f"{address}/api"})
    window = Interval(EVENING_AT, EVENING_AT + timedelta(hours=1))
    with pytest.raises(FeedRejected, match=r"HTTP 401 .*securityToken=\*\*\*.*: Unauthorized") as e:
        fetch_guarded(connector, window, FetchContext(HTTP, EVENING_AT, "wrong-token"))
    assert "wrong-token" not in str(e.value)


def test_the_generation_mix_over_http(address: str) -> None:
    options = {"base_url": f"{address}/api", "zone": "NL", "document": "A75"}
    night_at = parse_instant("night", "2024-09-01T22:00Z")
    day = Interval(night_at, night_at + timedelta(hours=24))
    context = FetchContext(HTTP, day.end_at, TOKEN)
    found = fetch_guarded(REGISTRY.create("entsoe", options), day, context)
    assert len(found) == 96
    assert {item.unit for item in found} == {"gCO2eq/kWh"}


def test_eia_never_shows_the_key(address: str) -> None:
    hour_at = parse_instant("hour", "2022-10-31T12:00Z")
    options = {"respondent": "PGE", "base_url": f"{address}/v2"}
    connector = REGISTRY.create("eia", options)
    window = Interval(hour_at - timedelta(hours=2), hour_at)
    with pytest.raises(FeedRejected, match=r"HTTP 403 .*api_key=\*\*\*.*no such key: \*") as e:
        fetch_guarded(connector, window, FetchContext(HTTP, hour_at, "wrong-key"))
    assert "wrong-key" not in str(e.value)
    assert fetch_guarded(connector, window, FetchContext(HTTP, hour_at, TOKEN)) == []


def test_a_long_series_over_http(address: str) -> None:
    options = {
        "quantity": "price",
        "unit": "p/kWh",
        "url": f"{address}/series/price_agile_GB_2022-11_2023-12_halfhour.csv.gz",
        "start_column": "Period from",
        "end_column": "Period to",
        "value_column": "Agile Import price (p/kWh)",
        "time_format": "%d/%m/%Y %H:%M",
        "timezone": "Europe/London",
    }
    found = fetch("file", options, datetime(2023, 6, 1, tzinfo=UTC), 24)
    assert len(found) == 48
    assert {item.unit for item in found} == {"GBP/MWh"}


# --- into the store and a plan -------------------------------------------------------------


def make_context(database: Database, now: datetime) -> Context:
    clock = SimClock(now)
    return Context(database, clock, REGISTRY, HTTP, plan_power_budget, answers=Answers(clock))


def make_site(context: Context, currency: str, carbon_price_per_tonne: float = 80) -> None:
    policy = SitePolicy(
        slug="hall",
        name="Hall",
        grid_connection_w=20_000,
        minimum_w=2_000,
        safe_limit_w=5_000,
        currency=currency,
        carbon_price_per_tonne=carbon_price_per_tonne,
        deferrable_ratio=0.3,
        demand_tokens_per_s=400,
        horizon_s=24 * 3600,
    )
    create_site(context, policy)
    request = RegisterRequest(
        name="node-1",
        hardware="simulated",
        agent_version="0",
        origin=Origin.SIMULATED,
        gpus=[
            GpuDescription(
                uuid="gpu-1",
                model="simulated",
                limit_min_w=100,
                limit_max_w=700,
                limit_default_w=700,
            )
        ],
        models=["model"],
        power_min_w=1_000,
        power_max_w=10_000,
        curve=[
            CurvePoint(power_w=1_000, tokens_per_s=0),
            CurvePoint(power_w=10_000, tokens_per_s=1_000),
        ],
    )
    register_node(context, issue_enrolment_token(context, "hall"), request)


def test_price_and_carbon_are_fetched_stored_and_planned_with(
    address: str, database: Database
) -> None:
    context = make_context(database, EVENING_AT)
    make_site(context, "GBP")
    price = FeedRequest("hall", "price", "octopus_agile", octopus_options(address))
    carbon = FeedRequest("hall", "carbon", "neso", {"base_url": address})
    shown = preview_feed(context, price)
    outcomes = [fetch_feed(context, add_feed(context, item).id) for item in (price, carbon)]

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert outcomes[0].stored == outcomes[0].fetched == len(shown)
    plan = load_plan(context, "hall")
    assert {item.quantity for item in plan.inputs} == {
        Quantity.PRICE,
        Quantity.AVERAGE_INTENSITY,
    }
    first = plan.budget.intervals[0]
    assert (first.price_per_mwh, first.carbon_g_per_kwh) == (88.3, 146.0)
    assert all(item.limit_w <= 20_000 for item in plan.budget.intervals)
    evidence = {item.feed.name: item for item in load_plan_evidence(context, "hall", plan.version)}
    assert [item.value for item in evidence["carbon"].observations][:3] == [146.0, 148.0, 148.0]


def test_the_same_answer_again_stores_nothing(address: str, database: Database) -> None:
    context = make_context(database, EVENING_AT)
    make_site(context, "GBP")
    feed = add_feed(context, FeedRequest("hall", "carbon", "neso", {"base_url": address}))
    assert fetch_feed(context, feed.id).stored == 49
    assert fetch_feed(context, feed.id).stored == 0
    # The past and the time ahead, each asked for once; the second fetch was served from memory.
    assert len(Providers.asked) == 2
    view = load_feed(context, feed.id)
    assert view.current is not None
    assert (view.current.value, view.stale, view.coverage_24h_ratio) == (146.0, False, 1.0)


def test_a_wrong_token_and_a_wrong_currency_leave_the_store_as_it_was(
    address: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = parse_instant("day", "2024-09-02T06:00Z")
    context = make_context(database, now)
    make_site(context, "GBP")
    options = {"zone": "NL", "base_url": f"{address}/api"}
    request = FeedRequest("hall", "price", "entsoe", options, "env:ENTSOE_TEST_TOKEN")
    feed = add_feed(context, request)
    for token, problem in (("wrong-token", "HTTP 401"), (TOKEN, "GBP")):
        monkeypatch.setenv("ENTSOE_TEST_TOKEN", token)
        outcome = fetch_feed(context, feed.id)
        assert outcome.error is not None
        assert problem in outcome.error
        assert token not in outcome.error
    whole = Interval(now - timedelta(days=2), now + timedelta(days=2))
    assert load_series(context, feed.id, whole, None, Page()).items == ()
    with pytest.raises(InvalidValue, match="GBP"):
        preview_feed(context, request)


def test_day_ahead_prices_reach_a_site_in_euro(
    address: str, database: Database, tmp_path: Path
) -> None:
    context = make_context(database, parse_instant("day", "2024-09-02T06:00Z"))
    make_site(context, "EUR", carbon_price_per_tonne=0)
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    options = {"zone": "NL", "base_url": f"{address}/api"}
    feed = add_feed(context, FeedRequest("hall", "price", "entsoe", options, f"file:{secret}"))
    assert fetch_feed(context, feed.id).error is None
    prices = {
        item.interval.start_at: item.price_per_mwh
        for item in load_plan(context, "hall").budget.intervals
    }
    assert prices[parse_instant("last", "2024-09-02T21:00Z")] == 104.0
    assert prices[parse_instant("after", "2024-09-02T22:00Z")] is None


def test_carbon_of_the_generation_mix_is_stored_and_planned_with(
    address: str, database: Database, tmp_path: Path
) -> None:
    now = parse_instant("day", "2024-09-02T20:00Z")
    context = make_context(database, now)
    make_site(context, "EUR")
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    options = {"zone": "NL", "document": "A75", "base_url": f"{address}/api"}
    feed = add_feed(context, FeedRequest("hall", "carbon", "entsoe", options, f"file:{secret}"))
    outcome = fetch_feed(context, feed.id)
    # The recording goes on for two hours; the first fetch asks for six before.
    assert (outcome.error, outcome.stored) == (None, 4 * 8)
    assert load_feed(context, feed.id).feed.quantity is Quantity.AVERAGE_INTENSITY
    first = load_plan(context, "hall").budget.intervals[0]
    assert first.carbon_g_per_kwh is not None
    assert first.carbon_g_per_kwh == pytest.approx(549.84, abs=0.005)
