"""Tests get the kinds that CONTRIBUTING.md describes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import kind_of, longest_first

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("path", "imported", "fixtures", "kind"),
    [
        ("wire/test_x.py", "json", [], "unit"),
        ("stages/test_x.py", "tests.servers.wait", ["tmp_path"], "unit"),
        ("stages/test_x.py", "tests.servers.redis_server", [], "server"),
        ("client/test_x.py", "json", ["store", "shared_redis"], "server"),
        ("test_x.py", "json", ["site", "redis_server"], "system"),
        ("system/test_x.py", "json", [], "system"),
        ("faults/test_x.py", "tests.system.site", ["site"], "fault"),
    ],
)
def test_kind_follows_from_directory_imports_and_fixtures(
    path: str, imported: str, fixtures: list[str], kind: str
) -> None:
    module = ModuleType("test_x")
    module.used = type("Used", (), {"__module__": imported})
    assert kind_of(HERE / path, module, fixtures) == kind


def test_this_test_is_of_its_kind(request: pytest.FixtureRequest) -> None:
    kinds = {"unit", "server", "system", "fault"}
    assert {mark.name for mark in request.node.iter_markers()} & kinds == {"unit"}


class Named:
    """As much of a test as its order needs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_closest_marker(self, name: str) -> bool:
        return name in self.name


def test_each_worker_begins_with_its_share_of_the_long_tests() -> None:
    names = ["a1", "a2", "fault1", "fault2", "slow3", "b1", "b2", "b3", "slow4"]
    orders = {
        1: ["fault1", "fault2", "slow3", "slow4", "a1", "a2", "b1", "b2", "b3"],
        2: ["fault1", "slow3", "a1", "a2", "fault2", "slow4", "b1", "b2", "b3"],
        6: ["fault1", "fault2", "a1", "slow3", "a2", "slow4", "b1", "b2", "b3"],
    }
    for workers, order in orders.items():
        assert [item.name for item in longest_first([Named(name) for name in names], workers)] == order
