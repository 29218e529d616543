"""Fixtures for all tests: private servers, started once a session or once a test, and sites that run against them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tests.servers.cluster_client import CLUSTER, ONE_SERVER, AnyServer, ReadCluster
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site, own_processes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runs",
        type=int,
        default=1,
        help="Runs of each case of tests/faults; with more than one, the report is written.",
    )


#: Kinds of tests by their directory below ``tests``; a kind is a marker (pyproject.toml).
_DIRECTORIES = {"faults": "fault", "system": "system"}
#: Kinds by the module of what a test file imports: a file that imports ``RedisServer`` starts servers.
_IMPORTS = {
    "tests.system.site": "system",
    "tests.servers.redis_server": "server",
    "tests.servers.rabbitmq": "server",
    "tests.servers.rtsp_camera": "server",
    "tests.servers.rtsp_video": "server",
    "tests.servers.mjpeg_http": "server",
    "tests.servers.sentinel": "server",
    "tests.servers.redis_cluster": "server",
    "tests.servers.cluster_client": "server",
}
#: Kinds by the fixtures that a test takes, directly or through others.
_FIXTURES = {"site": "system", "redis_server": "server", "shared_redis": "server", "rabbitmq": "server"}
_FIXTURES |= {"one_cluster": "server"}
_SMOKE = "test_smoke.py"


def kind_of(path: Path, module: ModuleType, fixtures: Collection[str]) -> str:
    """A test's kind: ``fault``, ``system``, ``server`` or ``unit``, the first of these that its file, imports or
    fixtures call for."""
    found = {_DIRECTORIES.get(path.parent.name)}
    found |= {_IMPORTS.get(getattr(value, "__module__", None) or "") for value in vars(module).values()}
    found |= {_FIXTURES.get(name) for name in fixtures}
    return next((kind for kind in ("fault", "system", "server") if kind in found), "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        assert isinstance(item, pytest.Function)
        item.add_marker(kind_of(item.path, item.module, item.fixturenames))
        if item.path.name == _SMOKE:
            item.add_marker("smoke")
    items[:] = longest_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def longest_first(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests in an order in which no worker is left alone with long ones at the end.

    pytest-xdist gives each worker an equal part of the list. Each part begins with its share of the long tests, which
    wait more than they compute; the others stay together by file, because they share what their file sets up.
    """
    long: list[pytest.Item] = []
    short: list[pytest.Item] = []
    for item in items:
        (long if item.get_closest_marker("fault") or item.get_closest_marker("slow") else short).append(item)
    order: list[pytest.Item] = []
    for worker in range(workers):
        order += long[worker::workers]
        order += short[len(short) * worker // workers : len(short) * (worker + 1) // workers]
    return order


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """A source sets its own process's environment for FFmpeg; here the tests' process would keep it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left() -> Iterator[None]:
    """The processes of the sites of a test file end with it. Those that a session shares are named otherwise."""
    yield
    wait_until(
        lambda: not own_processes(), 30, "no process of this file's sites is left", log=lambda: str(own_processes())
    )


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="ev-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_kind(request: pytest.FixtureRequest) -> str:
    """What a test's Redis is: one server, or a cluster where the test runs on both (``cluster_client.on_both``)."""
    return str(getattr(request, "param", ONE_SERVER))


@pytest.fixture(scope="session")
def one_redis() -> Iterator[RedisServer]:
    """A Redis that many tests use after each other. A test that stops or changes a server starts its own."""
    path = Path(tempfile.mkdtemp(prefix="ev-redis-"))
    # Redis looks for commands that have waited long enough `hz` times a second.
    with RedisServer(path, args=["--hz", "500"]) as server:
        yield server
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def one_cluster() -> Iterator[ReadCluster]:
    """A cluster that many tests use after each other: three masters without replicas. Tests empty it first.

    Its nodes give each other up late, so that one may stand still for some seconds, and nothing else changes.
    """
    path = Path(tempfile.mkdtemp(prefix="ev-cluster-"))
    with ReadCluster(path, node_timeout_ms=60_000) as cluster:
        yield cluster
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_redis(redis_kind: str, request: pytest.FixtureRequest) -> AnyServer:
    """One server or a cluster; tests empty it first."""
    found: AnyServer = request.getfixturevalue("one_cluster" if redis_kind == CLUSTER else "one_redis")
    return found


@pytest.fixture
def redis_server(redis_kind: str, request: pytest.FixtureRequest, short_path: Path) -> Iterator[AnyServer]:
    """An empty server of the test's own, or the cluster that all share, empty."""
    if redis_kind == CLUSTER:
        cluster: ReadCluster = request.getfixturevalue("one_cluster")
        with cluster.client() as client:
            client.flushall()
        yield cluster
        return
    with RedisServer(short_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """One broker a session: it takes seconds to start. Each test uses a vhost of its own."""
    path = Path(tempfile.mkdtemp(prefix="ev-rmq-"))
    with RabbitMQ(path) as server:
        yield server
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def vhost(rabbitmq: RabbitMQ, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("[", "-").replace("]", "")
    rabbitmq.add_vhost(name)
    return name


@pytest.fixture
def site(short_path: Path) -> Iterator[Site]:
    """A site to be configured and run as the command line runs it; ended and swept after the test."""
    running = Site(short_path / "run", warm=True)
    yield running
    running.end()
