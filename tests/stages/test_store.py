"""The writer's connection against real servers: what Redis has after it, and what it says when Redis will not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import RedisUnavailable, ServerRefused
from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer, Record
from engine.stages.writer.batch import Batch, Part
from engine.stages.writer.store import Refused, Store
from engine.wire.redis_address import parse_redis_address
from engine.wire.resp import FrameFraming
from tests.fuzz.replies import Plugged
from tests.servers.certificate import self_signed
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port

FRAMING = FrameFraming("v", "frames", "cam1", 60_000)
BEGIN = 1_731_024_000_123_456_789


@pytest.fixture
def records(tmp_path: Path) -> Iterator[list[Record]]:
    """Ten frames in a ring, of sizes around the server's and the socket's bounds."""
    path = tmp_path / "cam1.ring"
    ring_file.create(path, 4 * 2**20, "cam1")
    producer, consumer = Producer(path, "cam1"), Consumer(path, "cam1")
    for number, size in enumerate((1, 63, 64, 65, 32_768, 60_000, 65_536, 200_000, 1_000_000, 5)):
        producer.write((bytes([number]) * size,), BEGIN + number, time.monotonic_ns(), 1280, 720)
    yield consumer.poll(2**30, 100)
    producer.close()
    consumer.close()


def store_at(address: str, timeout: float = 5.0) -> Store:
    store = Store(parse_redis_address(address), timeout, lambda: None)
    store.attach(store.open())
    return store


def check_stored(client, records: list[Record]) -> None:
    entries = client.xrange("engine:v:journal:frames:cam1")
    assert [entry for entry, _ in entries] == [f"{r.unix_nano}-{r.sequence}".encode() for r in records]
    for record in records:
        key = f"v:frames:cam1:{record.unix_nano}:{record.sequence:05d}"
        assert client.get(key) == record.payload
        assert 0 < client.pttl(key) <= 60_000
    assert entries[-1][1] == {b"s": b"5", b"w": b"1280", b"h": b"720", b"e": b"jpeg", b"k": b"1", b"n": b"0"}
    assert 0 < client.pttl("engine:v:journal:frames:cam1") <= 60_000


@pytest.mark.parametrize(("binary", "unix"), [("redis-server", False), ("redis-server", True), ("valkey", True)])
def test_a_batch_is_stored_with_its_journal(binary: str, unix: bool, short_path: Path, records: list[Record]) -> None:
    with RedisServer(short_path / "r", binary=binary, unix=unix) as server:
        store = store_at(server.url)
        store.send(Batch([Part(FRAMING, records)]))
        assert store.receive() == [{}]
        check_stored(server.client(), records)


def test_two_batches_in_flight_are_answered_in_order(redis_server: RedisServer, records: list[Record]) -> None:
    store = store_at(redis_server.url)
    store.send(Batch([Part(FRAMING, records[:5])]))
    store.send(Batch([Part(FRAMING, records[5:], BEGIN)]))
    assert store.in_flight == 2
    assert store.receive() == [{}]
    assert store.receive() == [{}]
    check_stored(redis_server.client(), records)


def test_sending_again_changes_nothing_and_names_the_entries_that_stood(
    redis_server: RedisServer, records: list[Record]
) -> None:
    for attempt in range(2):
        store = store_at(redis_server.url)
        store.send(Batch([Part(FRAMING, records)]))
        assert len(store.receive()[0]) == attempt * len(records)
    check_stored(redis_server.client(), records)
    assert all(store.call([FRAMING.lookup(record.unix_nano, record.sequence)])[0] for record in records)
    assert store.call([FRAMING.lookup(BEGIN - 1, 1)])[0] == []


def test_tls_has_no_sendmsg_and_stores_the_same(
    short_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(short_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with RedisServer(short_path / "r", args=[*tls, "--tls-auth-clients", "no"]) as server:
        store = store_at(f"rediss://localhost:{port}")
        store.send(Batch([Part(FRAMING, records)]))
        store.send(Batch([Part(FrameFraming("v", "frames", "cam2", 60_000), records)]))
        assert store.receive() == [{}]
        assert store.receive() == [{}]
        check_stored(server.client(), records)
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(ServerRefused, match=r"certificate.*TlsFiles\(ca_file"):
            store_at(f"rediss://localhost:{port}")


def test_out_of_memory_refuses_a_batch_as_a_whole_and_keeps_the_connection(
    short_path: Path, records: list[Record]
) -> None:
    with RedisServer(short_path / "r", args=["--maxmemory-policy", "noeviction"]) as server:
        client = server.client()
        client.set("ballast", bytes(1_500_000))
        # Room for some of the batch's frames, and not for all.
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 700_000)
        store = store_at(server.url)
        store.send(Batch([Part(FRAMING, records)]))
        with pytest.raises(Refused, match="OOM"):
            store.receive()
        assert client.keys("*") == [b"ballast"], "nothing of the batch was stored"
        client.delete("ballast")
        client.config_set("maxmemory", 0)
        store.send(Batch([Part(FRAMING, records)]))
        store.receive()
        check_stored(server.client(), records)


def test_a_read_only_replica_refuses(redis_server: RedisServer, short_path: Path, records: list[Record]) -> None:
    host, _, port = redis_server.address.partition(":")
    with RedisServer(short_path / "replica", args=["--replicaof", host, port]) as replica:
        store = store_at(replica.url)
        store.send(Batch([Part(FRAMING, records)]))
        with pytest.raises(Refused, match="READONLY"):
            store.receive()


def test_a_silent_server_is_given_up_and_the_heart_beats_meanwhile(
    redis_server: RedisServer, records: list[Record]
) -> None:
    beats = []
    store = Store(parse_redis_address(redis_server.url), 1.0, lambda: beats.append(1))
    store.attach(store.open())
    redis_server.pause()
    store.send(Batch([Part(FRAMING, records[:3])]))
    with pytest.raises(RedisUnavailable, match="did not answer for 1 s"):
        store.receive()
    assert len(beats) > 3
    assert not store.connected
    redis_server.resume()


def test_a_wrong_password_is_refused(short_path: Path) -> None:
    with RedisServer(short_path / "r", username="writer", password="right") as server:
        store_at(server.url).close()
        with pytest.raises(ServerRefused, match="credentials"):
            store_at(server.url.replace("right", "wrong"))


def test_a_journal_of_another_type_is_an_entry_error_of_its_frames_alone(
    redis_server: RedisServer, records: list[Record]
) -> None:
    redis_server.client().set("engine:v:journal:frames:cam2", "not a stream")
    other = FrameFraming("v", "frames", "cam2", 60_000)
    store = store_at(redis_server.url)
    store.send(Batch([Part(other, records[:2]), Part(FRAMING, records)]))
    refused, accepted = store.receive()
    assert set(refused) == {0, 1}
    assert accepted == {}
    check_stored(redis_server.client(), records)


GOOD = b"+OK\r\n" + b"+QUEUED\r\n" * 3


@pytest.mark.parametrize(
    "reply",
    [
        GOOD + b"*2\r\n+OK\r\n$1\r\nx\r\n",
        GOOD + b"*0\r\n",
        GOOD + b"*-1\r\n",
        GOOD + b":3\r\n",
        GOOD + b"*3\r\n:1\r\n$1\r\nx\r\n:1\r\n",
        GOOD + b"*3\r\n+OK\r\n*0\r\n:1\r\n",
        b"+OK\r\n-ERR no\r\n" + b"+QUEUED\r\n" * 2 + b"*3\r\n+OK\r\n$1\r\nx\r\n:1\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"%1\r\n*0\r\n:1\r\n",
        b"$-5\r\n",
        b"$8388608\r\n" + b"x" * 8_388_608,
    ],
    ids=lambda reply: repr(reply[-40:]),
)
def test_what_is_no_answer_to_a_batch_is_a_broken_connection(records: list[Record], reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        answering = server.accept()[0]
        store = Store(parse_redis_address("127.0.0.1"), 5, lambda: None)
        store.attach(Plugged(client))
        store.send(Batch([Part(FRAMING, records[:1])]))
        talk = threading.Thread(target=say, args=(answering, reply))
        talk.start()
        with pytest.raises(RedisUnavailable, match=r"broke: it (answered|sent no RESP)"):
            store.receive()
        assert not store.connected
        assert store.in_flight == 0
        answering.close()
        talk.join()


def say(plug: socket.socket, reply: bytes) -> None:
    with contextlib.suppress(OSError):
        plug.sendall(reply)
