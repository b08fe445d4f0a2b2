from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pals_grid.service.feeds import fetch_feed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.unit.cli.conftest import Serving

    Run = Callable[..., Result]

TARIFF = {
    "name": "plain",
    "valid_from_at": "2026-03-02T12:00:00Z",
    "adders": [{"name": "network", "price_per_mwh": 12}],
    "demand_charges": [{"name": "capacity", "price_per_kw": 10}],
}


def test_tariff_is_previewed_set_and_shown(run: Run, serving: Serving, tmp_path: Path) -> None:
    serving.world.make_site()
    feed = serving.world.make_feed()
    serving.world.price.say(50.0)
    fetch_feed(serving.world.context, feed.id)
    path = tmp_path / "tariff.json"
    path.write_text(json.dumps(TARIFF))
    url = ("--url", serving.url)
    assert "has no tariff" in run("tariff", "show", *url).stdout
    preview = run("tariff", "preview", "--file", str(path), *url)
    assert preview.exit_code == 0, preview.output
    assert "62.00 = 50.00 × 1 + 12.00 network" in preview.stdout
    assert "after: capacity: peak -, billed -, unknown" in preview.stdout
    assert "risk of the grid's peak" in preview.stdout
    done = run("tariff", "set", "--file", "-", *url, stdin=path.read_bytes())
    assert done.stdout == "tariff 1 (plain) set, valid from 2026-03-02 12:00Z\n"
    shown = run("tariff", "show", *url)
    assert shown.stdout.splitlines()[1].split()[-1] == "yes"
    assert shown.stdout.splitlines()[2] == "version 1"
    late = ("tariff", "set", "--file", str(path), "--version", "0", *url)
    path.write_text(json.dumps({**TARIFF, "name": "other"}))
    refused = run(*late)
    assert refused.exit_code != 0
    assert 'If-Match: must be "1", the current version, got "0"' in refused.stderr
    assert '"price_per_mwh": 12.0' in shown.stdout
    report = run("report", "energy", *url)
    assert "  on the power of the nodes\n" in report.stdout
    plan = run("plan", "show", *url)
    assert "Price from p: forecast; 1% of the time" in plan.stdout
    assert "demand charges, month from 2026-03-01 00:00Z so far, not in the cost above:" in (
        report.stdout
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "file: must be readable JSON"),
        ('{"name": "x"}', "valid_from_at: is required, got None"),
    ],
)
def test_bad_file_is_refused_before_anything_is_sent(
    run: Run, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "tariff.json"
    path.write_text(text)
    refused = run("tariff", "set", "--file", str(path), "--url", "http://127.0.0.1:9")
    assert refused.exit_code == 3
    assert message in refused.stderr


def test_fallbacks_are_given_changed_and_shown_in_the_plan(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    url = ("--url", serving.url)
    added = run("feed", "add", *url, "--connector", "price", "--name", "p",
                "--fallback", "last-week", "--fallback", "constant:80", "--json")  # fmt: skip
    feed = json.loads(added.stdout)
    assert feed["fallbacks"] == [{"last_week": True, "weeks": 4}, {"constant": 80.0}]
    changed = run("feed", "set", str(feed["id"]), *url, "--fallback", "constant:90")
    assert changed.stdout == f"feed {feed['id']} (p): constant:90\n"
    shown = run("plan", "show", *url)
    assert "a constant 90 EUR/MWh: p has not answered yet" in shown.stdout
    none = run("feed", "set", str(feed["id"]), *url, "--no-fallback")
    assert none.stdout == f"feed {feed['id']} (p): no fallback of its own\n"
    assert run("feed", "set", str(feed["id"]), *url).exit_code == 2


@pytest.mark.parametrize("text", ["feed:", "last-week:", "last-week:x", "constant:", "week", ""])
def test_bad_fallbacks_are_named(run: Run, text: str) -> None:
    refused = run("feed", "set", "1", "--fallback", text, "--url", "http://127.0.0.1:9")
    assert refused.exit_code == 3
    assert f"got {text!r}" in refused.stderr
