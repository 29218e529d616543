"""Fixtures of the read side: the Redis of a session, emptied for each test that uses it, its stores and consumers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from engine import FrameConsumer
from engine.client import store_base as stores
from engine.client.delivery import FrameCallback
from tests.client.consuming import Tenant
from tests.client.stocked import STORES, VHOST, AnyStore
from tests.servers.cluster_client import AnyClient, AnyServer, on_both
from tests.servers.rabbitmq import RabbitMQ


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of reading run on one server and on a cluster. ``one_server`` is for those to which the server makes no
    difference, or which are about what only one server does."""
    on_both(metafunc)


@pytest.fixture
def client(shared_redis: AnyServer) -> Iterator[AnyClient]:
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
def store(open_store: Callable[..., AnyStore], shared_redis: AnyServer, client: AnyClient) -> AnyStore:
    """A store of either kind over the shared Redis, which is empty."""
    return open_store(shared_redis.address)


@pytest.fixture
def tenant(rabbitmq: RabbitMQ, vhost: str, client: AnyClient) -> Tenant:
    return Tenant(rabbitmq, vhost, client)


@pytest.fixture
def make(tenant: Tenant, shared_redis: AnyServer) -> Callable[..., FrameConsumer]:
    """Makes consumers of the tenant."""

    def make(callback: FrameCallback, redis_url: str = shared_redis.url, **options: Any) -> FrameConsumer:
        return FrameConsumer(tenant.url, redis_url, callback, **{"retry_seconds": 0.02, **options})

    return make
