"""What FrameConsumer fetches from Redis, one server or a cluster, and what an outage of it costs."""

from __future__ import annotations

import json
import logging

import msgspec
import pytest

from engine import Frame, FrameConsumer
from engine.client.fetch import Fetcher
from engine.errors import ServerRefused
from engine.wire.metadata import FrameEvent
from engine.wire.test_mark import find_mark
from tests.client.consuming import (
    BATCH_KEY,
    DEAD,
    QUEUE,
    Seen,
    Tenant,
    both_queues,
    consume,
    declared,
    encoded,
    running,
)
from tests.servers.cluster_client import CLUSTER, AnyServer, ReadCluster, owner
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site

logging.getLogger("pika").setLevel(logging.CRITICAL)


@both_queues
def test_each_event_comes_with_its_frame(make, tenant, queue):
    seen, events = Seen(), tenant.events(5)
    with running(consumer := make(seen, queue=queue)):
        tenant.publish(*events)
        seen.has(5)
    assert seen.events == events
    for event, frame in seen.calls:
        assert isinstance(frame, Frame)
        assert frame.data == event.redis_key.encode()
        assert (frame.key, frame.vhost, frame.prefix) == (event.redis_key, tenant.vhost, "frames")
        assert (frame.camera, frame.unix_nano, frame.sequence) == ("cam1", event.timestamp_nano, int(event.sequence))
        assert (frame.width, frame.height, frame.size, frame.encoding) == (640, 480, len(frame.data), "jpeg")
    counts = consumer.counts
    assert (counts.received, counts.frames) == (5, 5)
    assert (counts.missing, counts.failed, counts.redelivered, counts.reconnects) == (0, 0, 0, 0)


def test_a_batch_s_events_come_one_by_one_more_than_one_round_trip_of_them(make, tenant):
    seen, events = Seen(), tenant.events(100)
    with running(consumer := make(seen)):
        tenant.publish(events, key=BATCH_KEY)
        seen.has(100)
    assert seen.events == events
    assert all(frame and frame.data == event.redis_key.encode() for event, frame in seen.calls)
    assert (consumer.counts.received, consumer.counts.frames) == (1, 100)


def test_a_round_trip_is_bounded_in_frames_and_in_bytes(make, tenant, monkeypatch):
    small, large = tenant.events(70), [msgspec.structs.replace(event, size_bytes=3 << 20) for event in tenant.events(6)]
    asked: list[list[FrameEvent]] = []
    fetch = Fetcher.fetch
    monkeypatch.setattr(Fetcher, "fetch", lambda self, events: asked.append(list(events)) or fetch(self, events))
    seen = Seen()
    with running(make(seen)):
        tenant.publish([*small, *large], key=BATCH_KEY)
        seen.has(76)
    assert [len(events) for events in asked if events] == [32, 32, 8, 2, 2]
    assert seen.events == [*small, *large]


def test_events_of_the_go_edition_find_their_frames(make, tenant):
    keys = [
        f"{tenant.vhost}:frames:cam1:1731076200123456789:00001",
        f"frames:{tenant.vhost}:cam1:2024-11-08T14:30:00.123456789Z:00001",
    ]
    for key in keys:
        tenant.client.set(key, key.encode())
    document = {"camera_id": "cam1", "timestamp": "2024-11-08T14:30:00.123456789Z", "size_bytes": 9}
    seen = Seen()
    with running(make(seen)):
        tenant.publish(*(json.dumps({**document, "redis_key": key}).encode() for key in keys))
        seen.has(2)
    for key, (event, frame) in zip(keys, seen.calls, strict=True):
        assert event.redis_key == key
        assert frame is not None
        assert (frame.data, frame.prefix, frame.vhost) == (key.encode(), "frames", tenant.vhost)
        assert (event.timestamp_nano, event.sequence) == (1731076200123456789, "00001")


def test_a_frame_that_has_gone_is_none(make, tenant):
    seen = Seen()
    here, gone, also_here = tenant.event(), tenant.event(stored=False), tenant.event()
    with running(consumer := make(seen)):
        tenant.publish([here, gone, also_here])
        seen.has(3)
    assert [frame is None for _, frame in seen.calls] == [False, True, False]
    assert (consumer.counts.frames, consumer.counts.missing) == (2, 1)


def test_a_site_s_frames_and_states_arrive(site: Site, redis_server: AnyServer, tenant: Tenant):
    site.write(
        cameras=[{"id": name, "url": "test://?fps=20&kb=20&size=320x240"} for name in ("cam1", "cam2")],
        redis=redis_server.section,
        amqp_url=tenant.url,
        metadata={"format": "batch", "exchange": "eventos", "routing_key": "loja.event", "exchange_durable": False},
    )
    seen, states = Seen(), []
    with running(FrameConsumer.from_site(site.file, seen, on_status=states.append)):
        wait_until(lambda: tenant.bound("eventos") == 3, 20, "it listens")
        site.start()
        seen.has(40)
    assert site.stop() == 0
    for event, frame in seen.calls:
        assert frame is not None
        stamp = find_mark(frame.data)
        assert (stamp.camera, stamp.frame, stamp.unix_nano) == (
            event.camera_id, int(event.sequence), event.timestamp_nano,
        )  # fmt: skip
    assert {event.camera_id for event in seen.events} == {"cam1", "cam2"}
    assert {(event.camera_id, event.state) for event in states} >= {("cam1", "active"), ("cam2", "active")}


def stored(server: AnyServer, tenant: Tenant, count: int) -> list[FrameEvent]:
    """Events whose frames this server has."""
    events = [tenant.event(stored=False) for _ in range(count)]
    with server.client() as client:
        for event in events:
            client.set(event.redis_key, b"frame")
    return events


def test_a_redis_that_hangs_costs_time_and_no_attempt(make, tenant, redis_server, caplog):
    events = stored(redis_server, tenant, 30)
    server = owner(redis_server, events[10].redis_key)
    seen = Seen()
    consumer = make(seen, redis_server.url, queue=QUEUE, attempts=1, dead_letter=DEAD, prefetch=10, timeout_seconds=0.2)
    with running(consumer):
        tenant.publish(*events[:10])
        seen.has(10)
        server.pause()
        try:
            tenant.publish(*events[10:])
            wait_until(lambda: "wait for Redis" in caplog.text, 20, "the outage is met")
            wait_until(lambda: tenant.waiting() == 10, 20, "a prefetch of them is held")
        finally:
            server.resume()
        seen.has(30)
    assert server.address in caplog.text
    assert seen.events == events
    assert all(frame is not None for _, frame in seen.calls)
    counts = consumer.counts
    assert (counts.failed, counts.redelivered, counts.missing, counts.dead_lettered) == (0, 0, 0, 0)
    assert (tenant.waiting(), tenant.waiting(DEAD)) == (0, 0)


def test_a_redis_that_was_killed_is_waited_for_and_its_frames_are_gone(make, tenant, redis_server, caplog):
    here, gone = stored(redis_server, tenant, 2)
    server = owner(redis_server, gone.redis_key)
    seen = Seen()
    consumer = make(seen, redis_server.url, queue=QUEUE, attempts=1, dead_letter=DEAD, timeout_seconds=1)
    with running(consumer):
        tenant.publish(here)
        seen.has(1)
        server.kill()
        try:
            tenant.publish(gone)
            wait_until(lambda: "wait for Redis" in caplog.text, 20, "the outage is met")
            assert len(seen.calls) == 1
        finally:
            server.start()
        seen.has(2)
    assert server.address in caplog.text
    assert [frame is None for _, frame in seen.calls] == [False, True]
    assert tenant.waiting(DEAD) == 0


def test_nothing_is_taken_from_the_queue_before_redis_was_met(make, tenant, redis_server, caplog):
    """Else each start in an outage would count as a delivery of what it took and gave back."""
    declared(make, tenant, attempts=1, dead_letter=DEAD)
    (event,) = stored(redis_server, tenant, 1)
    tenant.publish(event)
    server = owner(redis_server, event.redis_key)
    server.pause()
    options = {"queue": QUEUE, "attempts": 1, "dead_letter": DEAD, "timeout_seconds": 0.2}
    try:
        for _ in range(2):
            with running(make(Seen(), redis_server.url, **options)):
                wait_until(lambda: "wait for Redis" in caplog.text, 20, "the outage is met")
                wait_until(tenant.connections, 20, "it is connected")
            caplog.clear()
            wait_until(lambda: tenant.waiting() == 1, 20, "it still waits")
    finally:
        server.resume()
    seen = Seen()
    with running(make(seen, redis_server.url, **options)):
        seen.has(1)
    assert tenant.waiting(DEAD) == 0


def test_stopped_while_redis_is_away_it_gives_all_back(make, tenant, redis_server, caplog):
    events = stored(redis_server, tenant, 5)
    server = owner(redis_server, events[0].redis_key)
    seen = Seen()
    consumer = make(seen, redis_server.url, queue=QUEUE, dead_letter=DEAD, timeout_seconds=0.2)
    with running(consumer):
        tenant.publish(b"[]")
        wait_until(lambda: consumer.counts.received == 1, 20, "it listens")
        server.pause()
        try:
            tenant.publish(*events)
            wait_until(lambda: "wait for Redis" in caplog.text, 20, "the outage is met")
            consumer.stop()
            wait_until(lambda: tenant.waiting() == 5, 20, "all are back")
        finally:
            server.resume()
    assert not seen.calls


def test_a_redis_that_refuses_the_credentials_ends_it(make, short_path, redis_kind):
    kind = ReadCluster if redis_kind == CLUSTER else RedisServer
    with (
        kind(short_path / "locked", password="geheim") as server,
        pytest.raises(ServerRefused, match="credentials") as refused,
    ):
        make(Seen(), server.url.replace("geheim", "geheim2")).run()
    assert "geheim" not in str(refused.value)


def test_the_command_prints_each_event_and_whether_its_frame_is_there(tenant, shared_redis):
    here, gone = tenant.event(), tenant.event(stored=False)
    arguments = ["--redis", shared_redis.url, "--amqp", tenant.url, "--limit", "2"]
    with consume(*arguments, "--json") as as_json, consume(*arguments, "--queue", QUEUE) as as_text:
        wait_until(lambda: tenant.bound() == 4, 20, "both listen")
        tenant.publish(here, gone)
        output, errors = as_json.communicate(timeout=30)
        text, more_errors = as_text.communicate(timeout=30)
    assert (as_json.returncode, as_text.returncode, errors, more_errors) == (0, 0, "", "")
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line.pop("frame") for line in lines] == ["there", "gone"]
    assert lines == [json.loads(encoded(event)) for event in (here, gone)]
    first, second = text.splitlines()
    assert first == f"cam1  {here.timestamp}  {here.redis_key}  {len(here.redis_key)} bytes  there"
    assert second == f"cam1  {gone.timestamp}  {gone.redis_key}  100 bytes  gone"
    assert tenant.waiting() == 0
