"""kill -9 of agent, helper, vLLM's page and service, in every order, a hundred times."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.deploy.world import Node, play_round

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.world import Mother

pytestmark = pytest.mark.deploy

ROUNDS = 100
NODES = 4
PARTS = ("agent", "helper", "page", "service")
ORDERS = list(itertools.permutations(PARTS))


def test_limits_end_restored_or_held_and_no_original_is_lost(
    mother: Mother, tmp_path: Path
) -> None:
    """Check each round: no limit rises in an event, and the journal holds what was changed."""
    rounds = [(ORDERS[i % len(ORDERS)], i) for i in range(ROUNDS)]

    def play(number: int) -> int:
        node = Node(mother, tmp_path / f"node-{number}")
        try:
            for order, seed in rounds[number::NODES]:
                play_round(node, order, random.Random(seed))
                assert node.problems == [], f"round {seed}, {order}; {node.log[-4000:]}"
        finally:
            node.end()
        return node.kills

    with ThreadPoolExecutor(NODES) as pool:
        kills = sum(pool.map(play, range(NODES)))
    assert kills >= len(PARTS) * ROUNDS * 0.8  # a part that is not there cannot be killed
