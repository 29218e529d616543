"""Fixtures for all tests: private servers, started once a session or once a test, and sites that run against them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.system.site import Site


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runs",
        type=int,
        default=1,
        help="Runs of each case of tests/faults; with more than one, the report is written.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "case(key, **redis): which case of tests/faults/cases.py a test is, and what its Redis is made with"
    )


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """A source sets its own process's environment for FFmpeg; here the tests' process would keep it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="ev-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def redis_server(short_path: Path) -> Iterator[RedisServer]:
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
