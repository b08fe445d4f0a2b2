from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from pals_grid_dashboards.console.routes import build_console

from pals_grid.core.tariff import Tariff
from pals_grid.service.tariffs import list_tariffs, set_tariff
from pals_grid.store.listen import Notifications
from tests.unit.api.client import TestClient
from tests.unit.service.world import T0, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pals_grid.store.engine import Database

FORM = {"name": "mine", "valid_from": "2026-03-02T12:00", "factor": "1"}
PATH = "/tariff?site=oslo"


@pytest.fixture
def world(database: Database) -> World:
    made = World(database)
    made.make_site()
    return made


@pytest.fixture
def console(world: World) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(build_console(world.context, Notifications(world.database.url)))
    with TestClient(app) as found:
        yield found


def hidden(text: str, name: str) -> str:
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)">', text)
    assert found
    return found[1]


def test_what_another_stored_meanwhile_is_not_overwritten_unseen(
    world: World, console: TestClient
) -> None:
    form = {**FORM, "version": hidden(console.get(PATH).text, "version")}
    set_tariff(world.context, "oslo", Tariff("theirs", T0, 1.5))
    preview = console.post(PATH, data={**form, "do": "preview"})
    assert preview.status_code == 200
    assert hidden(preview.text, "version") == "0"
    save = {**form, "do": "save", "previewed": hidden(preview.text, "previewed")}
    refused = console.post(PATH, data=save)
    assert "Another tariff was stored since you opened this form" in refused.text
    assert [item.tariff.name for item in list_tariffs(world.context, "oslo").tariffs] == ["theirs"]
    again = console.post(
        PATH, data={**save, "version": hidden(refused.text, "version")}, follow_redirects=False
    )
    assert again.status_code == 303
    names = [item.tariff.name for item in list_tariffs(world.context, "oslo").tariffs]
    assert names == ["mine", "theirs"]


@pytest.mark.parametrize("path", ["/what-if?from=9999-12-31T23:59", "/reports?to=9999-12-31"])
def test_a_time_at_the_end_of_all_years_is_refused_on_the_page(
    console: TestClient, path: str
) -> None:
    answer = console.get(path)
    assert answer.status_code == 422
    assert "in the years 1970 to 2199" in answer.text
