"""The jobs' tests run against one server, and against a cluster."""

from __future__ import annotations

import pytest

from tests.servers.cluster_client import on_both


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All but those that run a site. ``one_server`` is for those that count what one server did, or speak to one."""
    if "site" not in metafunc.fixturenames:
        on_both(metafunc)
