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
from tests.servers.redis_server import RedisServer


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A Redis that many tests use after each other; whoever stops or changes a server starts one of their own."""
    path = Path(tempfile.mkdtemp(prefix="ev-client-"))
    # Redis looks for commands that have waited long enough `hz` times a second.
    with RedisServer(path, args=["--hz", "500"]) as server:
        yield server
    shutil.rmtree(path, ignore_errors=True)


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
