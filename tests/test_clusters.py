"""A node of a Redis Cluster that is named as a plain server is refused, by everything that would write there or say
that all is well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from engine.client.store import FrameStore
from engine.doctor.examine import redis as examine_redis
from engine.errors import ServerRefused
from engine.servers.redis.session import Session
from engine.wire.redis_address import parse_redis_address
from tests.servers.redis_server import RedisServer
from tests.servers.sentinel import SentinelService
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, command

CAMERAS = [{"id": "cam1", "url": "test://"}]


@pytest.fixture(params=["redis-server", "valkey"])
def node(request: pytest.FixtureRequest, short_path: Path) -> Iterator[RedisServer]:
    """The only node of a cluster, which has all its slots."""
    # Its port for other nodes is the other one and 10,000 unless it is told, which may be no port.
    args = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with RedisServer(short_path / "redis", binary=request.param, args=args) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: served(client), 20, "the cluster serves all slots")
        yield server


def served(client: redis.Redis) -> bool:
    try:
        return bool(client.set("slot", "served"))
    except redis.ResponseError:
        return False


@pytest.mark.parametrize("role", ["run", "writer", "publisher"])
def test_no_role_starts_with_a_cluster(role: str, node: RedisServer, site: Site) -> None:
    amqp = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    site.write(cameras=CAMERAS, redis={"address": node.address}, amqp_url=amqp)
    done = command(role, "-c", str(site.file))
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("edge-video:")]
    assert len(errors) == 1
    for words in (node.address, "a node of a cluster", "redis.cluster"):
        assert words in errors[0]
    assert not site.paths.directory.exists()


def test_the_doctor_calls_a_cluster_broken(node: RedisServer, site: Site) -> None:
    site.write(cameras=CAMERAS, redis={"address": node.address})
    (found,) = [finding for finding in examine_redis(site.config, running=False) if finding.check == "mode"]
    assert found.verdict == "broken"
    assert "a node of a cluster" in found.found
    assert "redis.cluster" in found.todo


def test_jobs_refuse_a_cluster_before_they_write(node: RedisServer) -> None:
    with pytest.raises(ServerRefused, match="a node of a cluster"):
        Session(parse_redis_address(node.address), 5, checks_mode=True).connect()
    for job in ("reindex", "migrate", "tenants list"):
        done = command(*job.split(), "--redis", node.address)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "a node of a cluster" in done.stderr


def test_a_reader_is_told_of_the_cluster_where_its_keys_lie_apart(node: RedisServer) -> None:
    keys = [f"default:frames:cam{number}:1731024000123456789:00001" for number in range(4)]
    with node.client() as client:
        for key in keys:
            client.set(key, b"x", px=60_000)
    with FrameStore(node.address) as store, pytest.raises(ServerRefused, match="a node of a cluster"):
        store.get_many(keys)


def test_a_sentinel_is_no_server(short_path: Path, site: Site) -> None:
    with SentinelService(short_path / "service", count=1) as service:
        site.write(cameras=CAMERAS, redis={"address": service.addresses[0]})
        done = command("run", "-c", str(site.file))
    assert done.returncode == 2, done.stderr
    assert "name it in redis.sentinels" in done.stderr
