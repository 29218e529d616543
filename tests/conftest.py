"""Fixtures for all tests: private servers, started once a session or once a test, and sites that run against them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# cv2 is loaded by the tests as the command line would load it: quiet, and without threads of its own.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
# Secrets of the machine's own environment must not steer the sites under test.
for _name in ("REDIS_ADDRESS", "REDIS_USERNAME", "REDIS_PASSWORD", "AMQP_URL"):
    os.environ.pop(_name, None)

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.system.site import Site


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
    running = Site(short_path / "run")
    yield running
    running.end()
