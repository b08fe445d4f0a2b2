from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from pals_grid.core.errors import InvalidValue
from pals_grid.evaluate.suite.loads import mean_rate_per_s, mean_tokens, read_trace, requests_at
from pals_grid.sim.arrivals import Request

if TYPE_CHECKING:
    from pathlib import Path

TRACE = tuple(Request(k + 0.5 * (k % 2), 100 + k, 10 + k % 7) for k in range(200))


def until(end_s: float, rate_per_s: float, seed: int) -> list[Request]:
    endless = requests_at(TRACE, rate_per_s, seed)
    return list(itertools.takewhile(lambda request: request.arrival_s < end_s, endless))


@pytest.mark.parametrize("rate_per_s", [0.4, 1.0, 2.7])
def test_the_rate_is_what_was_asked_for_and_time_rises(rate_per_s: float) -> None:
    found = until(2000.0, rate_per_s, 3)
    assert len(found) == pytest.approx(2000.0 * rate_per_s, rel=0.05)
    times = [request.arrival_s for request in found]
    assert times == sorted(times)
    assert times[0] >= 0.0


def test_lengths_are_the_traces_own_and_a_seed_begins_elsewhere() -> None:
    known = {(request.tokens_in, request.tokens_out) for request in TRACE}
    one, again, other = until(300.0, 2.0, 1), until(300.0, 2.0, 1), until(300.0, 2.0, 2)
    assert {(request.tokens_in, request.tokens_out) for request in one} <= known
    assert one == again
    assert one != other


def test_one_copy_at_the_traces_rate_keeps_its_gaps() -> None:
    rate_per_s = mean_rate_per_s(TRACE)
    times = [request.arrival_s for request in until(150.0, rate_per_s, 5)]
    gaps = {round(b - a, 6) for a, b in itertools.pairwise(times)}
    own = {round(b.arrival_s - a.arrival_s, 6) for a, b in itertools.pairwise(TRACE)}
    assert gaps <= own | {round(1 / rate_per_s, 6)}


def test_without_a_trace_the_load_is_poisson_of_the_azure_means() -> None:
    endless = requests_at(None, 5.0, 1)
    found = list(itertools.takewhile(lambda request: request.arrival_s < 600.0, endless))
    assert len(found) == pytest.approx(3000, rel=0.1)
    assert mean_tokens(None) == (1155.0, 211.0)
    assert mean_tokens(TRACE[:3]) == (101.0, 11.0)


def test_a_trace_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n")
    with pytest.raises(InvalidValue, match="must hold requests over some time"):
        read_trace(path)
    with pytest.raises(InvalidValue, match="trace: must be a readable CSV file"):
        read_trace(tmp_path / "none.csv")
