from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import FeedUnavailable
from pals_grid.service.nodes import authenticate_node
from pals_grid.service.telemetry import ingest
from tests.unit.service.world import T0, batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.unit.cli.conftest import Serving

    Run = Callable[..., Result]

START = "2026-03-02T13:00:00Z"


def test_feeds_are_added_listed_tested_and_fetched(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    serving.world.price.say(50.0, 60.0)
    about = ("--url", serving.url, "--connector", "price", "--option", "zone=NO1")
    tested = run("feed", "test", *about)
    assert tested.exit_code == 0, tested.output
    assert tested.stdout.splitlines()[1].split() == [
        "2026-03-02", "12:00Z", "2026-03-02", "12:30Z", "50", "EUR/MWh", "forecast",
    ]  # fmt: skip
    added = run("feed", "add", *about, "--name", "agile", "--json")
    feed = json.loads(added.stdout)
    assert feed["options"] == {"zone": "NO1"}
    fetched = run("feed", "fetch", str(feed["id"]), "--url", serving.url)
    assert fetched.stdout == "2 values fetched, 2 new\n"
    listed = run("feed", "list", "--url", serving.url)
    assert listed.stdout.splitlines()[1].split()[:3] == [str(feed["id"]), "agile", "price"]
    assert "50  EUR/MWh  forecast" in listed.stdout
    assert json.loads(run("feed", "list", "--url", serving.url, "--json").stdout)[0]["name"] == (
        "agile"
    )


def test_a_provider_s_failure_exits_with_5(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    feed = serving.world.make_feed()
    serving.world.price.error = FeedUnavailable("HTTP 503 from the market")
    failed = run("feed", "fetch", str(feed.id), "--url", serving.url)
    assert failed.exit_code == 5
    assert "HTTP 503 from the market" in failed.stderr


def test_events_are_ordered_in_kw_or_percent_listed_and_cancelled(
    run: Run, serving: Serving
) -> None:
    serving.world.make_site()
    serving.world.register()
    at = ("--url", serving.url)
    ordered = run(
        "event", "add", *at, "--start", START, "--minutes", "30", "--limit-kw", "1.2", "--json"
    )
    assert ordered.exit_code == 0, ordered.output
    event = json.loads(ordered.stdout)
    assert (event["ordered_w"], event["end_at"]) == (1200.0, "2026-03-02T13:30:00Z")
    reduced = run(
        "event", "add", *at, "--start", START, "--end", "2026-03-02T14:00:00Z",
        "--reduction-pct", "25", "--json",
    )  # fmt: skip
    assert json.loads(reduced.stdout)["reduction_ratio"] == 0.25
    assert "1.20 kW" in run("event", "list", *at).stdout
    stale = run("event", "cancel", str(event["id"]), "--version", "9", *at)
    assert stale.exit_code == 3
    assert "If-Match" in stale.stderr
    cancelled = run("event", "cancel", str(event["id"]), *at)
    assert cancelled.stdout.endswith("is cancelled\n")
    plan = run("plan", "show", *at)
    assert plan.exit_code == 0
    assert "event" in plan.stdout
    assert json.loads(run("plan", "show", *at, "--json").stdout)["intervals"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--start", START, "--minutes", "30"),
        ("--start", START, "--minutes", "30", "--limit-kw", "1", "--reduction-pct", "5"),
        ("--start", START, "--limit-kw", "1"),
        ("--start", "2026-03-02T13:00:00", "--minutes", "30", "--limit-kw", "1"),
        ("--start", START, "--minutes", "nan", "--limit-kw", "1"),
        ("--start", START, "--minutes", "30", "--limit-kw", "-1"),
        ("--start", START, "--minutes", "30", "--reduction-pct", "101"),
    ],
)
def test_a_wrong_order_is_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("event", "add", *arguments).exit_code == 2


def test_the_energy_report_in_three_forms(run: Run, serving: Serving) -> None:
    world = serving.world
    world.make_site()
    node = authenticate_node(world.context, world.register().node_token)
    ingest(world.context, node, batch(T0 - timedelta(minutes=10), 60))
    ask = ("report", "energy", "--url", serving.url, "--by", "node,model")
    table = run(*ask).stdout.splitlines()
    assert table[1].split()[:4] == ["node", "model", "kWh", "GPU"]
    assert [line.split()[0] for line in table[2:]] == ["gpu-1", "total"]
    report = json.loads(run(*ask, "--json").stdout)
    assert report["rows"][0]["node_energy_j_per_token"] == pytest.approx(20)
    (row,) = csv.DictReader(io.StringIO(run(*ask, "--format", "csv").stdout))
    assert float(row["tokens_out"]) == 15_000


def test_not_found_and_unavailable_have_their_codes(
    run: Run, serving: Serving, silent_port: int
) -> None:
    missing = run("plan", "show", "--url", serving.url, "--site", "nowhere")
    assert (missing.exit_code, missing.stderr.count("\n")) == (4, 1)
    assert "nowhere" in missing.stderr
    silent = run("plan", "show", "--url", f"http://127.0.0.1:{silent_port}")
    assert (silent.exit_code, silent.stderr.count("\n")) == (5, 1)
    assert "does not answer" in silent.stderr
    refused = run("feed", "add", "--url", serving.url, "--connector", "moon", "--name", "x")
    assert refused.exit_code == 3
