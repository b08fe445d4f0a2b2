from __future__ import annotations

import inspect
import json
import logging
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from pals_grid.api.problems import KINDS, MEDIA_TYPE, install_problems
from pals_grid.core import errors
from pals_grid.core.errors import AccessDenied, FeedUnavailable, InvalidValue, NotFound
from tests.unit.api.client import TestClient

if TYPE_CHECKING:
    from httpx import Response


def tree() -> list[type[errors.PalsGridError]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return [cls for _, cls in found if issubclass(cls, errors.PalsGridError)]


def answer_to(error: Exception) -> Response:
    app = FastAPI()
    install_problems(app)

    @app.get("/")
    def fail() -> None:
        raise error

    answer: Response = TestClient(app, raise_server_exceptions=False).get("/")
    return answer


@pytest.mark.parametrize("kind", tree())
def test_every_error_is_mapped_itself(kind: type[errors.PalsGridError]) -> None:
    assert kind in KINDS
    assert 400 <= KINDS[kind].status < 600


def test_the_tree_was_walked_and_names_are_told_apart() -> None:
    assert len(tree()) == 19
    assert len({kind.name for kind in KINDS.values()}) == len(KINDS)


def test_invalid_value_names_field_bound_and_value() -> None:
    answer = answer_to(InvalidValue("limit_w", float("nan"), "must be finite"))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json() == {
        "type": "urn:pals-grid:problem:invalid-value",
        "title": "A value is outside its bounds",
        "status": 422,
        "detail": "limit_w: must be finite, got nan",
        "errors": [{"field": "limit_w", "value": "nan", "bound": "must be finite"}],
    }


def test_a_subclass_that_the_core_does_not_know_is_answered_like_its_parent() -> None:
    class Special(NotFound):
        pass

    assert answer_to(Special("site", "x")).status_code == 404


def test_access_denied_asks_for_a_bearer_token() -> None:
    answer = answer_to(AccessDenied("no"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_provider_s_wish_is_passed_on() -> None:
    answer = answer_to(FeedUnavailable("HTTP 429", 12.4))
    assert answer.status_code == 502
    assert answer.headers["retry-after"] == "12"


@pytest.mark.parametrize(
    "error", [RuntimeError("password=hunter2"), errors.ConfigurationError("password=hunter2")]
)
def test_internals_are_logged_and_not_told(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="pals_grid.api.problems"):
        answer = answer_to(error)
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT 1", {}, RuntimeError("host db.internal")),
        InterfaceError("SELECT 1", {}, RuntimeError("host db.internal")),
        PoolTimeoutError("host db.internal"),
    ],
)
def test_a_database_that_is_away_is_temporary(error: Exception) -> None:
    answer = answer_to(error)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert int(answer.headers["retry-after"]) > 0
    assert "internal" not in answer.text


def test_what_the_framework_refuses_is_a_problem_too() -> None:
    answer = answer_to(HTTPException(418, "short and stout", {"X-Spout": "1"}))
    assert answer.status_code == 418
    assert answer.headers["x-spout"] == "1"
    assert answer.json() == {
        "type": "about:blank",
        "title": "I'm a Teapot",
        "status": 418,
        "detail": "short and stout",
    }


def test_long_values_are_cut() -> None:
    shown = answer_to(InvalidValue("x", "y" * 500, "must be short")).json()["errors"][0]["value"]
    assert len(shown) == 80


def test_an_unknown_path_is_a_problem() -> None:
    app = FastAPI()
    install_problems(app)
    answer = TestClient(app).get("/nowhere")
    assert json.loads(answer.text)["status"] == 404
