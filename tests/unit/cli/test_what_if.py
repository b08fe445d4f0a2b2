from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.site import ServiceTier, SitePolicy
from pals_grid.service.feeds import fetch_feed
from pals_grid.service.sites import create_site
from tests.unit.cli.test_tariffs import TARIFF

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.unit.cli.conftest import Serving

    Run = Callable[..., Result]


@pytest.fixture
def url(serving: Serving) -> tuple[str, ...]:
    world = serving.world
    policy = SitePolicy(
        slug="oslo",
        name="Oslo",
        grid_connection_w=10_000.0,
        minimum_w=500.0,
        safe_limit_w=3000.0,
        demand_tokens_per_s=600.0,
        tiers=(
            ServiceTier("chat", 0.6),
            ServiceTier("bulk", 0.4, 0.0, 0.0001, deferral_s=6 * 3600.0),
        ),
    )
    create_site(world.context, policy)
    feed = world.make_feed()
    world.register()
    world.price.say(*(100.0 if i % 48 < 12 else 40.0 for i in range(72)))
    fetch_feed(world.context, feed.id)
    return ("--url", serving.url)


def test_alternatives_are_a_table(run: Run, url: tuple[str, ...]) -> None:
    done = run("what-if", "--limit-kw", "0.9", "--demand-ratio", "1.2", *url)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == ("oslo, 2026-03-03 00:00Z to 2026-03-04 00:00Z: modelled, at node boundary")
    assert lines[1].split()[:4] == ["alternative", "kWh", "EUR", "+/-"]
    assert lines[2].startswith("as-it-stands ")
    assert lines[3].startswith("with-changes ")
    assert "no-control cannot keep" in done.stdout
    assert "The site's maximum limits the site to 0.90 kW" in done.stdout
    assert "perfect-foresight is not here: of a day to come nothing is known" in done.stdout
    assert "price: 24 h from p (forecast)" in done.stdout
    assert "% known" not in done.stdout


def test_a_cost_says_what_share_of_the_energy_it_covers(
    run: Run, url: tuple[str, ...], serving: Serving
) -> None:
    world = serving.world
    world.make_site("bare")
    feed = world.make_feed(site="bare")
    world.register(site="bare")
    world.price.say(*(50.0 for _ in range(30)))
    fetch_feed(world.context, feed.id)
    done = run("what-if", "--site", "bare", *url)
    assert done.exit_code == 0, done.output
    assert re.search(r"as-it-stands +\S+ +\S+ \(\d\d? % known\)", done.stdout), done.stdout


def test_everything_is_sent_as_it_is_meant(run: Run, url: tuple[str, ...], tmp_path: Path) -> None:
    tariff = tmp_path / "tariff.json"
    tariff.write_text(json.dumps(TARIFF))
    picture = tmp_path / "what-if.png"
    done = run(
        "what-if",
        *("--from", "2026-03-02T18:00Z", "--to", "2026-03-03T12:00Z"),
        *("--carbon-price", "100", "--carbon-cap-kg", "500", "--minimum-kw", "0.4"),
        *("--reserve-pct", "10", "--ramp-kw-per-min", "5", "--tier-loss", "bulk=25"),
        *("--event", "2026-03-03T06:00Z/2026-03-03T07:00Z/0.1kW", "--tariff", str(tariff)),
        *("--json", "--plot", str(picture), *url),
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["start_at"] == "2026-03-02T18:00:00Z"
    changed = found["alternatives"][1]
    assert changed["outcome"]["tokens_lost"] > 0
    assert changed["outcome"]["demand_charge"] > 0
    assert changed["findings"][0]["constraint"] == "event"
    assert changed["intervals"][0]["price_per_mwh"] == 52
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--event", "2026-03-03T06:00Z/soon"), 3, "event: must be START/END/LIMIT"),
        (("--event", "2026-03-03T06:00Z/2026-03-03T07:00Z/x"), 3, "event limit: must be a number"),
        (("--event", "2026-03-03T07:00Z/2026-03-03T06:00Z/1"), 3, "event.end_at: must be after"),
        (("--tier-loss", "gold=3"), 3, "must be one of the site's tiers (chat, bulk)"),
        (("--tier-loss", "bulk=few"), 3, "tier-loss: must be a number of %"),
        (("--limit-kw", "0.1"), 3, "maximum_w: must be from 500 to 10000"),
        (("--tariff", "/nowhere.json"), 3, "tariff: must be readable JSON"),
        (("--site", "none"), 4, "'none' does not exist"),
        (("--demand-ratio", "nan"), 2, "must be a number from 0 to 100"),
        (("--plot", "/nowhere/a.png"), 3, "must be in a directory that exists"),
    ],
)
def test_refusals_have_words_and_codes(
    run: Run, url: tuple[str, ...], arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run("what-if", *arguments, *url)
    assert (done.exit_code, message in done.stderr) == (code, True), done.stderr


def test_a_service_that_does_not_answer_is_unavailable(run: Run, silent_port: int) -> None:
    done = run("what-if", "--site", "oslo", "--url", f"http://127.0.0.1:{silent_port}")
    assert done.exit_code == 5
