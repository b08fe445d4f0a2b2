"""What ``feed test``, ``backfill`` and ``remove`` tell, and how they end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pals_grid.cli.exits import ServiceRefused
from pals_grid.cli.feed_advice import advise
from pals_grid.core.errors import FeedDataInvalid, FeedRejected, FeedUnavailable
from tests.unit.service.world import T0, half_hours

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.unit.cli.conftest import Serving

    Run = Callable[..., Result]

URL = "https://api.example/v3/latest?zone=XX"


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            FeedRejected(f"HTTP 401 from {URL}: Invalid token"),
            3,
            (
                "error: the provider refuses the key, or what it may ask for; "
                "check its key (--secret-ref): Invalid token (HTTP 401)"
            ),
        ),
        (
            FeedRejected(f"HTTP 404 from {URL}: No zone XX"),
            3,
            (
                "error: the provider refuses the question; "
                "check zone, region and product: No zone XX (HTTP 404)"
            ),
        ),
        (
            FeedRejected("ENTSO-E: option zone is needed to fetch"),
            3,
            "error: these settings cannot be used: ENTSO-E: option zone is needed to fetch",
        ),
        (
            FeedUnavailable(f"no answer from {URL}: ConnectionError: refused"),
            5,
            (
                f"error: no answer from {URL} (ConnectionError: refused): "
                "check network, proxy and base_url"
            ),
        ),
        (
            FeedUnavailable(f"HTTP 503 from {URL}: maintenance"),
            5,
            "error: the provider has no time for us now, try again later: maintenance (HTTP 503)",
        ),
        (
            FeedDataInvalid("NESO: data: must be slots"),
            5,
            (
                "error: the provider answers, but not with what this connector reads: "
                "NESO: data: must be slots"
            ),
        ),
    ],
)
def test_a_failed_test_says_in_one_sentence_what_to_look_at(
    run: Run, serving: Serving, error: Exception, code: int, sentence: str
) -> None:
    serving.world.make_site()
    serving.world.price.error = error
    tested = run("feed", "test", "--url", serving.url, "--connector", "price")
    assert (tested.exit_code, tested.stderr.strip(), tested.stdout) == (code, sentence, "")


def test_a_secret_that_is_not_there_is_told(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    about = ("--url", serving.url, "--connector", "keyed", "--secret-ref")
    tested = run("feed", "test", *about, "env:PALS_GRID_NO_SUCH_KEY")
    assert tested.exit_code == 3
    assert "the service's process has no PALS_GRID_NO_SUCH_KEY" in tested.stderr
    tested = run("feed", "test", *about, "file:/no/such/file")
    assert "cannot be read: No such file" in tested.stderr
    refused = ServiceRefused(422, f"HTTP 403 from {URL}: no", kind="feed-rejected")
    assert "check the key that env:KEY names: no (HTTP 403)" in advise(refused, "env:KEY")


def test_another_currency_and_an_empty_answer_are_told(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    serving.world.price.say(50.0, unit="GBP/MWh")
    about = ("feed", "test", "--url", serving.url, "--connector", "price")
    tested = run(*about)
    assert tested.exit_code == 3
    assert "another currency than the site's: unit: must be EUR/MWh" in tested.stderr
    serving.world.price.say()
    tested = run(*about)
    assert tested.exit_code == 4
    assert tested.stdout == ""
    assert "answers, but has no value between 6 h ago and in 48 h" in tested.stderr
    tested = run(*about, "--json")
    assert (tested.exit_code, json.loads(tested.stdout)) == (4, [])


def test_a_good_test_shows_the_edges_and_how_far_they_reach(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    about = ("feed", "test", "--url", serving.url, "--connector", "price")
    serving.world.price.values = half_hours(tuple(range(30)), datetime.now(UTC))
    lines = run(*about).stdout.splitlines()
    assert len(lines) == 27
    assert lines[13].startswith("... 6 more")
    assert lines[-1].startswith("30 forecast; known up to 20")
    serving.world.price.values = half_hours((1.0,), T0, kind="measured")
    assert "1 measured; nothing is known ahead" in run(*about).stdout


def test_a_backfill_goes_through_the_past_in_parts_and_repeats_nothing(
    run: Run, serving: Serving
) -> None:
    world = serving.world
    world.make_site()
    world.make_feed(name="moer")
    world.price.say(50.0, 60.0, start_at=T0 - timedelta(days=9))
    about = ("feed", "backfill", "--url", serving.url, "--from", "2026-02-20", "--to", "2026-03-01")
    filled = run(*about, "moer", "--part-days", "3")
    assert filled.exit_code == 0, filled.output
    assert filled.stdout.endswith("2 new, 2026-02-20 00:00Z to 2026-03-01 00:00Z\n")
    assert world.price.windows[0].start_at == datetime(2026, 2, 20, tzinfo=UTC)
    assert world.price.windows[-1].end_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert max(window.duration_s for window in world.price.windows) == 3 * 86_400
    again = json.loads(run(*about, "1", "--json").stdout)
    assert (again["feed_id"], again["stored"]) == (1, 0)
    values = serving.world.context.database
    with values.read() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM observation").scalar_one()
    assert count == 2


def test_a_backfill_waits_for_a_busy_provider_and_tells_where_it_stopped(
    run: Run, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    world = serving.world
    world.make_site()
    world.make_feed()
    about = ("feed", "backfill", "p", "--url", serving.url, "--from", "2026-02-20")
    world.price.error = FeedUnavailable(f"HTTP 429 from {URL}: slow down", 7)
    stopped = run(*about, "--to", "2026-02-21")
    assert (stopped.exit_code, waits) == (5, [7.0, 7.0, 7.0])
    assert "slow down (HTTP 429)" in stopped.stderr
    assert "stored before that: nothing" in stopped.stderr
    world.price.error = FeedRejected(f"HTTP 401 from {URL}: paid plans alone")
    assert run(*about, "--to", "2026-02-21").exit_code == 3
    assert len(waits) == 3
    world.price.error = None
    assert run(*about, "--to", "2026-02-19").exit_code == 3
    assert run(*about, "--to", "2026-04-01T00:00+01:00").exit_code == 3  # the service's tomorrow
    assert run("feed", "backfill", "p", "--url", serving.url, "--from", "soon").exit_code == 2


def test_a_feed_is_removed_by_name_or_id(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    first = serving.world.make_feed(name="one")
    second = serving.world.make_feed(name="two")
    at = ("--url", serving.url)
    assert run("feed", "remove", "one", *at).stdout == (
        f"feed {first.id} removed; its values stay\n"
    )
    assert run("feed", "remove", "one", *at).exit_code == 4
    assert run("feed", "remove", str(second.id), *at).exit_code == 0
    assert run("feed", "remove", str(second.id), *at).exit_code == 4
    assert json.loads(run("feed", "list", *at, "--json").stdout) == []


def test_the_list_shows_hosts_and_not_what_was_asked_of_them(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    serving.world.make_feed()
    url = "https://api.example/intensity/2026-03-02T12:00Z/fw48h"
    serving.world.price.error = FeedUnavailable(f"no answer from {url}: ConnectionError: refused")
    at = ("--url", serving.url)
    assert run("feed", "fetch", "p", *at).exit_code == 5
    listed = run("feed", "list", *at).stdout
    assert "no answer from api.example: ConnectionError: refused" in listed
