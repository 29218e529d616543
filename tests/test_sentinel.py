"""Redis as a Sentinel service: found, followed when another server becomes the master, and refused with a reason.

What a master that dies costs is told by tests/faults.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from engine import AsyncFrameStore, FrameStore
from engine.config import from_document
from engine.doctor.examine import redis as examine_redis
from engine.errors import Audience, Cause, ConfigError, InputError, QueryError, RedisUnavailable, ServerRefused, explain
from engine.runtime.preflight import check_redis
from engine.servers.redis.connect import connect
from engine.wire.redis_address import parse_sentinels
from tests.client.stocked import row, stock
from tests.servers.redis_server import RedisServer
from tests.servers.sentinel import SentinelService
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, command, missing_numbers, stored_frames


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelService]:
    with SentinelService(tmp_path_factory.mktemp("sentinel"), count=1) as started:
        yield started


@pytest.fixture
def away() -> list[str]:
    """Addresses at which nobody listens."""
    return [f"127.0.0.1:{free_port()}" for _ in range(2)]


def config_of(**redis: Any):
    return from_document({"redis": redis, "cameras": [{"id": "a", "url": "test://"}]}, {})


def test_the_next_sentinel_is_asked_where_one_is_away(service: SentinelService, away: list[str]):
    address = parse_sentinels([*away, service.addresses[0]], service.service)
    connection = connect(address, 5)
    assert connection.port == service.master.port
    connection.disconnect()


def test_a_service_that_no_sentinel_knows_is_refused(service: SentinelService):
    config = config_of(sentinels=service.addresses, service="other")
    with pytest.raises(ServerRefused) as refused:
        check_redis(config)
    for address in service.addresses:
        assert f"the sentinel at {address} knows no service 'other'" in refused.value.fact
    assert refused.value.cause is Cause.UNKNOWN_SERVICE
    assert explain(refused.value, Audience.SITE).endswith("; check redis.service")


def test_no_sentinel_at_all_is_refused_at_the_start_with_exit_code_2(site: Site, away: list[str]):
    site.write(cameras=[{"id": "a", "url": "test://"}], redis={"sentinels": away, "service": "mymaster"})
    done = command("run", "-c", str(site.file))
    assert done.returncode == 2
    assert f"no master of sentinel://{','.join(away)}/mymaster" in done.stderr
    assert all(f"the sentinel at {address}: " in done.stderr for address in away)
    assert "check redis.sentinels and redis.service" in done.stderr


def test_a_reader_waits_for_a_master_until_its_timeout_and_no_longer(away: list[str]):
    begun = time.monotonic()
    with (
        FrameStore(sentinels=away, service="mymaster", timeout_seconds=0.5) as store,
        pytest.raises(RedisUnavailable, match="no master of"),
    ):
        store.latest("a")
    assert time.monotonic() - begun > 0.5


def test_the_sentinels_own_password(service: SentinelService):
    one = service.addresses[:1]
    service.ask("ACL", "SETUSER", "default", "resetpass", ">geheim")
    try:
        for password, words in ((None, "sentinel_password"), ("wrong", "REDIS_SENTINEL_PASSWORD")):
            with pytest.raises(ServerRefused) as refused:
                connect(parse_sentinels(one, service.service, None, password), 5)
            assert words in explain(refused.value, Audience.SITE)
            assert str(refused.value).endswith("; give sentinel_username and sentinel_password")
            assert "wrong" not in str(refused.value).replace("wrong number", "")
        config = config_of(sentinels=one, service=service.service, sentinel_password="geheim")
        check_redis(config)
        assert "geheim" not in repr(config.redis_address)
        assert "geheim" not in repr(config)
        with FrameStore(sentinels=one, service=service.service, sentinel_password="geheim") as store:
            assert store.cameras() == {}
    finally:
        with_password = service.client(password="geheim")
        with_password.execute_command("ACL", "SETUSER", "default", "nopass")
        with_password.close()


def test_the_doctor_finds_the_master_and_says_what_the_sentinels_said(service: SentinelService, away: list[str]):
    found = {
        one.check: one
        for one in examine_redis(config_of(sentinels=service.addresses, service="mymaster"), running=False)
    }
    assert found["reachable"].verdict == "ok"
    assert found["reachable"].found.endswith("/mymaster answers") or "/mymaster" in found["reachable"].found
    (lost,) = examine_redis(config_of(sentinels=away, service="mymaster"), running=False)
    assert (lost.check, lost.verdict) == ("reachable", "broken")
    assert all(address in lost.found for address in away)
    assert "redis.sentinels" in lost.todo
    (unknown,) = examine_redis(config_of(sentinels=service.addresses, service="other"), running=False)
    assert unknown.verdict == "broken"
    assert "knows no service 'other'" in unknown.found


def test_stores_read_on_through_a_failover(service: SentinelService):
    with service.master.client() as client:
        client.flushall()
        stock(client, row("cam1", 5))
    place: dict[str, Any] = {"sentinels": service.addresses, "service": service.service, "vhost": "loja"}
    errors: list[BaseException] = []
    ended = threading.Event()
    asked = 0

    def read(store: FrameStore) -> None:
        nonlocal asked
        while not ended.is_set():
            try:
                assert store.latest("cam1") is not None
                asked += 1
                time.sleep(0.002)
            except BaseException as error:
                errors.append(error)
                return

    async def read_async() -> int:
        count = 0
        async with AsyncFrameStore(**place, timeout_seconds=20) as store:
            while not ended.is_set():
                assert await store.latest("cam1") is not None
                count += 1
                await asyncio.sleep(0.002)
        return count

    def reading_async() -> None:
        try:
            asyncio.run(read_async())
        except BaseException as error:
            errors.append(error)

    with FrameStore(**place, timeout_seconds=20) as store:
        threads = [threading.Thread(target=read, args=(store,)), threading.Thread(target=reading_async)]
        for thread in threads:
            thread.start()
        old = service.master
        new = service.failover()
        wait_until(lambda: role(old) == "slave", 30, "the old master has become a replica")
        before = asked
        wait_until(lambda: errors or asked > before + 5, 30, "reading goes on")
        assert errors == []
        ended.set()
        for thread in threads:
            thread.join(30)
        assert errors == []
        assert store.latest("cam1") is not None
        with new.client() as client:
            client.set("loja:frames:cam1:1731024000123456789:00001", b"only here", px=60_000)
        assert store.get("loja:frames:cam1:1731024000123456789:00001").data == b"only here"


def role(server: RedisServer) -> str:
    """As the server says itself; empty where a sentinel cuts connections just then, as it does to a demoted master."""
    try:
        with server.client() as client:
            return str(client.info("replication")["role"])
    except redis.ConnectionError:
        return ""


def test_a_site_stores_on_after_a_failover_and_loses_nothing(site: Site, service: SentinelService):
    """With ``min-replicas-to-write`` the old master takes nothing that the new one will not have."""
    wait_until(service.settled, 30, "the replica follows its master")
    for server in service.servers:
        with server.client() as client:
            client.config_set("min-replicas-to-write", 1)
    with service.master.client() as client:
        client.flushall()
    site.write(
        cameras=[{"id": f"cam{number}", "url": "test://?size=320x240&fps=10&kb=5"} for number in range(4)],
        redis={"sentinels": service.addresses, "service": service.service},
    )
    site.start()
    wait_until(lambda: site.total("stored") > 40, 30, "frames are stored")
    old = service.master
    new = service.failover()
    wait_until(lambda: role(old) == "slave", 30, "the old master has become a replica")
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 40, 30, "frames are stored at the new master")
    captured = site.total("captured")
    assert site.dropped() == {}
    assert site.stop() == 0
    with new.client() as client:
        numbers = stored_frames(client, "default").numbers
    assert len(numbers) == 4
    assert sum(map(len, numbers.values())) >= captured
    assert not any(missing_numbers(found) for found in numbers.values())


@pytest.mark.parametrize(
    ("entries", "hosts", "tls", "shown"),
    [
        (["a", "b:1"], (("a", 26379), ("b", 1)), False, "sentinel://a:26379,b:1/s"),
        (["[::1]:7", "[fe80::2]"], (("::1", 7), ("fe80::2", 26379)), False, "sentinel://[::1]:7,[fe80::2]:26379/s"),
        (["rediss://a", "rediss://b:2"], (("a", 26379), ("b", 2)), True, "sentinels://a:26379,b:2/s"),
    ],
    ids=str,
)
def test_addresses_of_sentinels(entries, hosts, tls, shown):
    address = parse_sentinels(entries, "s", "user", "geheim")
    assert address.sentinel.hosts == hosts
    assert address.tls == tls
    assert str(address) == shown
    assert "geheim" not in repr(address.sentinel) + repr(address)


@pytest.mark.parametrize(
    ("redis", "words"),
    [
        ({"sentinels": ["a"], "service": "s", "address": "b"}, r"redis\.address .* is left out; remove one"),
        ({"service": "s", "address": "b"}, r"redis\.address .* is left out"),
        ({"sentinels": ["a"]}, r"redis\.sentinels and redis\.service: they go together"),
        ({"service": "s"}, r"redis\.sentinels and redis\.service: they go together"),
        ({"sentinels": ["rediss://a", "b"], "service": "s"}, "all entries begin with rediss://, or none does"),
        ({"sentinels": ["unix:///x"], "service": "s"}, "is host:port or rediss://host:port and nothing else"),
        ({"sentinels": ["a/3"], "service": "s"}, "is host:port or rediss://host:port and nothing else"),
        ({"sentinels": ["redis://:geheim@a"], "service": "s"}, r"credentials go into redis\.sentinel_username"),
        ({"sentinels": ["a:x"], "service": "s"}, r"redis\.sentinels: port and database are numbers"),
        ({"sentinels": ["[::1"], "service": "s"}, r"redis\.sentinels"),
        ({"sentinel_password": "geheim"}, r"need redis\.sentinels and redis\.service"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(redis, words):
    with pytest.raises(ConfigError, match=words) as refused:
        config_of(**redis)
    assert "geheim" not in str(refused.value)


def test_stores_take_an_address_or_sentinels():
    for kind in (FrameStore, AsyncFrameStore):
        with pytest.raises(QueryError, match="only one of them"):
            kind("a", sentinels=["b"], service="s")
        with pytest.raises(InputError, match="go together"):
            kind(sentinels=["b"])
