from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pals_grid.cli import environment
from pals_grid.cli.output import show_short
from pals_grid.cli.site import SETTINGS
from pals_grid.core.clock import SystemClock
from pals_grid.core.errors import FeedUnavailable, InvalidValue
from pals_grid.core.site import SitePolicy, Slo
from pals_grid.service.live.allocating import LiveAllocator
from pals_grid.service.nodes import authenticate_node, record_status, register_node
from pals_grid.service.sites import load_site
from tests.unit.service.world import registration, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.unit.cli.conftest import Serving

    Run = Callable[..., Result]

LIMITS = ("--grid-connection-kw", "12.3", "--minimum-kw", "0.5", "--safe-limit-kw", "3")
EVERYTHING = {
    "--name": ("Bergen, hall 2", "name"),
    "--timezone": ("Europe/Oslo", "timezone"),
    "--currency": ("NOK", "currency"),
    "--carbon-price-per-tonne": ("80", "carbon_price_per_tonne"),
    "--deferrable-ratio": ("0.3", "deferrable_ratio"),
    "--deferral-s": ("7200", "deferral_s"),
    "--reserve-ratio": ("0.5", "reserve_ratio"),
    "--demand-tokens-per-s": ("900", "demand_tokens_per_s"),
    "--slot-s": ("900", "slot_s"),
    "--horizon-s": ("86400", "horizon_s"),
}


def test_every_field_of_a_policy_has_an_option() -> None:
    wanted = {item.name for item in fields(SitePolicy)} - {"slug", "slo"}
    assert {item.field for item in SETTINGS if not item.of_slo} == wanted
    assert {item.field for item in SETTINGS if item.of_slo} == {item.name for item in fields(Slo)}


def test_a_site_is_added_with_defaults_or_everything(run: Run, serving: Serving) -> None:
    at = ("--url", serving.url)
    plain = run("site", "add", "oslo", *LIMITS, *at)
    assert plain.exit_code == 0, plain.output
    assert plain.stdout == (
        "site oslo added: 500 W to 12.30 kW, safe limit 3.00 kW, EUR, version 1\n"
    )
    held = load_site(serving.world.context, "oslo").policy
    assert held == SitePolicy(
        slug="oslo", name="oslo", grid_connection_w=12_300.0, minimum_w=500.0, safe_limit_w=3000.0
    )
    given = [part for option, (value, _) in EVERYTHING.items() for part in (option, value)]
    slo = ("--ttft-slo-s", "1.5", "--itl-slo-s", "0.08")
    full = run("site", "add", "bergen", *LIMITS, *given, *slo, *at, "--json")
    answer = json.loads(full.stdout)
    for value, field in EVERYTHING.values():
        assert str(answer[field]).removesuffix(".0") == value
    assert answer["slo"] == {"ttft_s": 1.5, "itl_s": 0.08}


def test_bounds_and_tiers_are_set_and_taken_away(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    at = ("--url", serving.url)
    tiers = json.dumps([{"name": "gold", "demand_ratio": 1.0}])
    bounds = ("--maximum-kw", "2", "--ramp-kw-per-min", "0.1", "--carbon-cap-kg-per-day", "40")
    more = ("--marginal-carbon-ratio", "0.5", "--tiers", tiers)
    assert run("site", "set", "oslo", *bounds, *more, *at).exit_code == 0
    policy = load_site(serving.world.context, "oslo").policy
    assert (policy.maximum_w, policy.ramp_w_per_min) == (2000.0, 100.0)
    assert (policy.carbon_cap_kg_per_day, policy.marginal_carbon_ratio) == (40.0, 0.5)
    assert [tier.name for tier in policy.tiers] == ["gold"]
    assert run("site", "set", "oslo", "--maximum-kw", "none", "--tiers", "[]", *at).exit_code == 0
    policy = load_site(serving.world.context, "oslo").policy
    assert (policy.maximum_w, policy.tiers) == (None, ())
    assert run("site", "set", "oslo", "--tiers", "{}", *at).exit_code == 2


def test_sites_are_listed_and_shown(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    serving.world.make_site("bergen", currency="NOK")
    at = ("--url", serving.url)
    lines = run("site", "list", *at).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["slug", "bergen", "oslo"]
    assert "10.00 kW" in lines[1]
    assert [site["currency"] for site in json.loads(run("site", "list", *at, "--json").stdout)] == [
        "NOK", "EUR",
    ]  # fmt: skip
    shown = run("site", "show", "oslo", *at).stdout.splitlines()
    assert shown[0] == "site oslo, version 1"
    values = dict(line.split(maxsplit=1) for line in shown[2:])
    assert (values["minimum-kw"], values["timezone"], values["itl-slo-s"]) == ("0.5", "UTC", "0.1")
    assert json.loads(run("site", "show", "oslo", *at, "--json").stdout)["minimum_w"] == 500.0
    assert run("site", "show", "nowhere", *at).exit_code == 4


def test_what_site_show_says_is_what_site_set_takes(run: Run, serving: Serving) -> None:
    before = serving.world.make_site()
    at = ("--url", serving.url)
    shown = run("site", "show", "oslo", *at).stdout.splitlines()[2:]
    pairs = [line.split(maxsplit=1) for line in shown]
    given = [part for option, value in pairs for part in (f"--{option}", value)]
    assert run("site", "set", "oslo", *given, *at).exit_code == 0
    assert load_site(serving.world.context, "oslo").policy == before.policy


def test_set_changes_what_is_given_and_nothing_else(run: Run, serving: Serving) -> None:
    before = serving.world.make_site().policy
    at = ("--url", serving.url)
    done = run("site", "set", "oslo", "--minimum-kw", "0.75", "--ttft-slo-s", "3", *at)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("version 2\n")
    wanted = replace(before, minimum_w=750.0, slo=replace(before.slo, ttft_s=3.0))
    assert load_site(serving.world.context, "oslo").policy == wanted
    assert run("site", "set", "oslo", "--itl-slo-s", "0.2", *at).exit_code == 0
    slo = load_site(serving.world.context, "oslo").policy.slo
    assert (slo.ttft_s, slo.itl_s) == (3.0, 0.2)


def test_a_change_against_an_old_version_is_refused(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    at = ("--url", serving.url)
    assert run("site", "set", "oslo", "--minimum-kw", "1", "--version", "1", *at).exit_code == 0
    stale = run("site", "set", "oslo", "--minimum-kw", "2", "--version", "1", *at)
    assert stale.exit_code == 3
    assert "If-Match" in stale.stderr
    assert load_site(serving.world.context, "oslo").policy.minimum_w == 1000.0


def test_sites_that_cannot_be_are_refused(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    at = ("--url", serving.url)
    taken = run("site", "add", "oslo", *LIMITS, *at)
    assert (taken.exit_code, "oslo" in taken.stderr) == (3, True)
    reversed_ = run("site", "set", "oslo", "--minimum-kw", "11", *at)
    assert (reversed_.exit_code, "minimum_w" in reversed_.stderr) == (3, True)
    zone = run("site", "add", "bergen", *LIMITS, "--timezone", "Mars", *at)
    assert (zone.exit_code, "timezone" in zone.stderr) == (3, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "oslo", *LIMITS[2:]),
        ("add", "Oslo", *LIMITS),
        ("add", "../nodes", *LIMITS),
        ("add", "oslo", *LIMITS, "--deferrable-ratio", "1.5"),
        ("add", "oslo", *LIMITS, "--slot-s", "nan"),
        ("set", "oslo"),
        ("show", "a/b"),
        ("show",),
    ],
)
def test_wrong_usage_of_site(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("site", *arguments).exit_code == 2


def test_live_grants_are_switched_and_shown(run: Run, serving: Serving) -> None:
    at = ("--url", serving.url)
    options = ("--live-grants", "dry_run", "--other-load-kw", "0.4")
    made = run("site", "add", "oslo", *LIMITS, *options, *at)
    assert made.exit_code == 0, made.output
    assert run("site", "grants", "oslo", *at).stdout == "live grants of oslo: dry_run, no rounds\n"
    context = replace(serving.world.context, clock=SystemClock())
    allocator = LiveAllocator(context, "a")
    for _ in range(2):
        allocator.round()
    shown = run("site", "grants", "oslo", *at).stdout
    assert shown.startswith("live grants of oslo: dry_run\n")
    assert "400 W, modelled: stated other_load_w" in shown
    last = json.loads(run("site", "grants", "oslo", *at, "--json").stdout)["last"]
    assert (last["rounds"], last["record"]["mode"]) == (1, "dry_run")
    assert run("site", "set", "oslo", "--live-grants", "maybe", *at).exit_code == 2
    assert run("site", "grants", "none", *at).exit_code != 0


def test_a_meter_is_told_and_shown(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    at = ("--url", serving.url)
    assert run("site", "meter", "oslo", *at).stdout == "no meter of oslo has said anything\n"
    reading = ("--power-kw", "8.2", "--source", "meter 7", "--at", "2026-03-02T12:00:03Z")
    shown = "8.20 kW, measured by meter 7, 2026-03-02 12:00:03Z"
    told = run("site", "meter", "oslo", *reading, *at)
    assert told.stdout == f"{shown}\n", told.output
    again = run("site", "meter", "oslo", *reading, *at)
    assert again.stdout == f"{shown}; a reading of that instant is there already\n"
    assert run("site", "meter", "oslo", *at).stdout == f"{shown}\n"
    latest = json.loads(run("site", "meter", "oslo", *at, "--json").stdout)
    assert (latest["power_w"], latest["source"]) == (8200.0, "meter 7")
    over = run("site", "meter", "oslo", "--power-kw", "200", *reading[2:], *at)
    assert over.exit_code == 3
    assert "readings[0].power_w: must be from 0 to 100000, ten times" in over.stderr
    assert run("site", "meter", "oslo", "--power-kw", "1", *at).exit_code == 2
    assert run("site", "meter", "oslo", "--source", "m", *at).exit_code == 2


def test_a_token_lets_a_node_join_and_the_node_is_listed(run: Run, serving: Serving) -> None:
    context = serving.world.context
    serving.world.make_site()
    at = ("--url", serving.url)
    made = run("node", "token", *at)
    assert made.exit_code == 0, made.output
    reply = register_node(context, made.stdout.strip(), registration())
    silent = run("node", "list", *at).stdout.splitlines()
    assert silent[1].split()[:3] == ["1", "gpu-1", "offline"]
    record_status(context, authenticate_node(context, reply.node_token), status())
    line = run("node", "list", *at, "--site", "oslo").stdout.splitlines()[1]
    assert line.split()[1:5] == ["gpu-1", "following", "800", "W"]
    assert "simulated" in line
    (node,) = json.loads(run("node", "list", *at, "--json").stdout)
    assert (node["name"], node["online"]) == ("gpu-1", True)


def test_a_token_in_a_file_is_for_its_owner_and_is_not_printed(
    run: Run, serving: Serving, tmp_path: Path
) -> None:
    serving.world.make_site()
    path = tmp_path / "token"
    path.write_text("older, readable by all")
    path.chmod(0o644)
    done = run("node", "token", "--url", serving.url, "--site", "oslo", "--out", str(path))
    assert done.exit_code == 0, done.output
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text().strip()
    assert token not in done.stdout
    assert register_node(serving.world.context, token, registration()).site == "oslo"
    told = run("node", "token", "--url", serving.url, "--out", str(path), "--json")
    assert json.loads(told.stdout) == {"site": "oslo", "file": str(path)}
    assert json.loads(run("node", "token", "--url", serving.url, "--json").stdout)["site"] == "oslo"


def test_a_token_without_a_place_or_a_site_is_refused(
    run: Run, serving: Serving, tmp_path: Path
) -> None:
    at = ("--url", serving.url)
    none = run("node", "token", *at)
    assert (none.exit_code, "there is none yet" in none.stderr) == (3, True)
    serving.world.make_site()
    assert run("node", "token", *at, "--site", "nowhere").exit_code == 4
    lost = run("node", "token", *at, "--out", str(tmp_path / "no" / "token"))
    assert (lost.exit_code, "out" in lost.stderr) == (3, True)
    serving.world.make_site("bergen")
    several = run("node", "token", *at)
    assert (several.exit_code, "there are several" in several.stderr) == (3, True)


def test_a_long_error_of_a_feed_is_cut_in_the_table_alone(run: Run, serving: Serving) -> None:
    serving.world.make_site()
    feed = serving.world.make_feed()
    error = "HTTP 503 from the market: " + "<p>\x1b[31mno\n" * 100
    serving.world.price.error = FeedUnavailable(error)
    run("feed", "fetch", str(feed.id), "--url", serving.url)
    head, line = run("feed", "list", "--url", serving.url).stdout.splitlines()
    state = line[head.index("state") :]
    assert state.startswith("HTTP 503 from the market: <p>")
    assert state.endswith("...")
    assert len(state) <= 80
    (whole,) = json.loads(run("feed", "list", "--url", serving.url, "--json").stdout)
    assert whole["health"]["last_error"] == error


def test_short_text() -> None:
    assert show_short("x" * 80) == "x" * 80
    assert show_short("x" * 81) == "x" * 77 + "..."
    assert show_short("a\n  b\x07c") == "a b c"


def test_where_an_agent_keeps_its_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert environment.pick_state_dir("gpu-1") == Path("/var/lib/pals-grid/node")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unset)
        found = environment.pick_state_dir("gpu-1")
        assert found == tmp_path / ".local" / "state" / "pals-grid" / "gpu-1"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert environment.pick_state_dir("gpu-1") == tmp_path / "state" / "pals-grid" / "gpu-1"
    for name in ("", "..", "a/b"):
        with pytest.raises(InvalidValue, match="--state-dir"):
            environment.pick_state_dir(name)


def test_the_agent_s_options_are_all_explained(run: Run, tmp_path: Path) -> None:
    from pals_grid.cli.agent import command  # noqa: PLC0415

    told = [option.to_info_dict() for option in command.params]
    assert [option["name"] for option in told if not (option.get("help") or option["hidden"])] == []
    missing = run("agent", "--token-file", str(tmp_path / "none"))
    assert (missing.exit_code, "token-file" in missing.stderr) == (3, True)
    assert run("agent").exit_code == 2
