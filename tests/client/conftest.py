"""Fixtures of the read side: one Redis for the whole session, emptied for each test that uses it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.client import store_base as stores
from tests.client.stocked import STORES, VHOST, AnyStore
from tests.servers.cluster_client import ReadCluster
from tests.servers.redis_server import RedisServer

#: Modules whose tests run against one server and against a cluster.
ON_CLUSTERS = ("test_pictures", "test_store_properties", "test_video_reading")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of reading that use the shared Redis run twice: it is one server, and a cluster."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if module in ON_CLUSTERS and "shared_redis" in metafunc.fixturenames and not only_one_server(metafunc.definition):
        metafunc.parametrize("shared_redis", ["one server", "cluster"], indirect=True, scope="session")


def only_one_server(item: pytest.Item) -> bool:
    """Whether a test counts what one server does, or decodes much, which no server changes."""
    return item.get_closest_marker("one_server") is not None


@pytest.fixture(scope="session")
def one_redis() -> Iterator[RedisServer]:
    """A Redis that many tests use after each other; whoever stops or changes a server starts one of their own."""
    path = Path(tempfile.mkdtemp(prefix="ev-client-"))
    # Redis looks for commands that have waited long enough `hz` times a second.
    with RedisServer(path, args=["--hz", "500"]) as server:
        yield server
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def one_cluster() -> Iterator[ReadCluster]:
    """A cluster that many tests use after each other: three masters without replicas."""
    path = Path(tempfile.mkdtemp(prefix="ev-client-"))
    with ReadCluster(path) as cluster:
        yield cluster
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_redis(request: pytest.FixtureRequest) -> RedisServer | ReadCluster:
    """One server or a cluster; tests empty it first."""
    kind = getattr(request, "param", "one server")
    found: RedisServer | ReadCluster = request.getfixturevalue("one_cluster" if kind == "cluster" else "one_redis")
    return found


@pytest.fixture
def client(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    """A client of the shared Redis, which is empty."""
    with shared_redis.client() as client:
        client.flushall()
        yield client


@pytest.fixture(params=STORES, ids=["FrameStore", "AsyncFrameStore"])
def open_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AnyStore]]:
    """Opens stores of either kind, to be closed behind the test. Their tails wait briefly where nothing comes."""
    monkeypatch.setattr(stores, "TAIL_BLOCK_MS", 20)
    with ExitStack() as stack:

        def open_(address: str, vhost: str = VHOST, **options: Any) -> AnyStore:
            return stack.enter_context(request.param(address, vhost, **options))

        yield open_


@pytest.fixture
def store(open_store: Callable[..., AnyStore], shared_redis: RedisServer, client: redis.Redis) -> AnyStore:
    """A store of either kind over the shared Redis, which is empty."""
    return open_store(shared_redis.address)
