"""Fixtures of the jobs' tests: they run against one server, and against a cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.old_frames import JobsCluster
from tests.servers.redis_server import RedisServer

#: Modules whose tests run against a cluster too, and the fixture that is their Redis.
ON_CLUSTERS = {"test_migrate": "redis_server", "test_reindex": "redis_server", "test_journals": "server"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that do not count what one server did, nor run a site, run twice."""
    fixture = ON_CLUSTERS.get(metafunc.module.__name__.rpartition(".")[2])
    names = metafunc.fixturenames
    if fixture in names and "site" not in names and not metafunc.definition.get_closest_marker("one_server"):
        scope = "module" if fixture == "server" else "function"
        metafunc.parametrize(fixture, ["one server", "cluster"], indirect=True, scope=scope)


@pytest.fixture(scope="session")
def one_cluster() -> Iterator[JobsCluster]:
    """Three masters. A test that uses them empties them first."""
    path = Path(tempfile.mkdtemp(prefix="ev-jobs-"))
    with JobsCluster(path) as cluster:
        yield cluster
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def redis_server(request: pytest.FixtureRequest, short_path: Path) -> Iterator[RedisServer | JobsCluster]:
    """An empty server, or an empty cluster."""
    if getattr(request, "param", "") == "cluster":
        cluster: JobsCluster = request.getfixturevalue("one_cluster")
        with cluster.client() as client:
            client.flushall()
        yield cluster
        return
    with RedisServer(short_path / "redis") as server:
        yield server
