"""A site with ``redis.key_tags``: what is stored and announced, and who reads it: store, consumer, jobs, commands."""

from __future__ import annotations

import json

import msgspec
import pytest
import redis

from engine.client.consumer import FrameConsumer
from engine.client.frame import Frame
from engine.client.store import FrameStore
from engine.errors import QueryError
from engine.wire import keys
from engine.wire.cluster import slot_of
from engine.wire.metadata import FrameEvent
from engine.wire.test_mark import find_mark
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site, command

CAMERAS = [{"id": name, "url": "test://?size=64x48&kb=9&frames=30&fps=60"} for name in ("cam1", "a/b")]
ALL = list(range(1, 31))


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def run_site(site: Site) -> None:
    """Run the site until every frame of its cameras is stored."""
    site.start()
    wait_until(
        lambda: all(camera["stored"] == 30 for camera in site.status()["cameras"]), 60, "all is stored",
        log=site.log_text,
    )  # fmt: skip


def test_frames_and_events_of_a_site_with_key_tags_are_read_by_everyone(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, client: redis.Redis
) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address, "key_tags": True}, amqp_url=rabbitmq.url(vhost))
    received: list[tuple[FrameEvent, Frame | None]] = []

    def take(event: FrameEvent, frame: Frame | None) -> None:
        received.append((event, frame))
        if len(received) == 60:
            consumer.stop()

    consumer = FrameConsumer.from_site(site.file, take, queue="tagged", attempts=3)
    channel = rabbitmq.connect(vhost).channel()
    channel.exchange_declare("camera.metadata", exchange_type="topic", durable=True)
    channel.queue_declare("tagged", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 2})
    channel.queue_bind("tagged", "camera.metadata", "camera.metadata.event")
    run_site(site)
    assert site.stop() == 0
    consumer.run(signals=False)

    names = sorted(name.decode() for name in client.scan_iter(match=f"{vhost}:*", count=5000))
    parsed = [keys.parse_frame_key(name, tagged=True) for name in names]
    for name, key in zip(names, parsed, strict=True):
        mark = find_mark(client.get(name))
        assert (mark.camera, mark.frame, mark.unix_nano) == (key.camera, key.sequence, key.unix_nano)
        assert slot_of(name.encode()) == slot_of(f"engine:{vhost}:journal:frames:{{{key.camera}}}".encode())
    for camera in ("cam1", "a/b"):
        assert sorted(key.sequence for key in parsed if key.camera == camera) == ALL
        assert client.xlen(f"engine:{vhost}:journal:frames:{{{camera}}}") == 30
    assert sorted({event.redis_key for event, _ in received}) == names
    assert all(frame is not None and frame.key == event.redis_key for event, frame in received)

    for store in (
        FrameStore.from_site(site.file),
        FrameStore(redis_server.address, vhost, key_tags=True),
    ):
        with store:
            frames = [frame for camera in ("cam1", "a/b") for frame in store.range(camera)]
            assert sorted(frame.key for frame in frames) == names
            assert {name: frame.sequence for name, frame in store.snapshot().items()} == {"cam1": 30, "a/b": 30}
            assert [frame.key for frame in store.get_many(names[:3]) if frame] == names[:3]
            assert store.stats().total.frames == 60
            with pytest.raises(QueryError, match="not in braces"):
                store.get(names[0].replace("{", "").replace("}", ""))
            with pytest.raises(QueryError, match="has a brace"):
                list(store.range("{cam1}"))
            assert json.loads(json.dumps(msgspec.structs.asdict(next(iter(store.entries("cam1"))))))
    with pytest.raises(QueryError, match="has a brace"):
        FrameStore(redis_server.address, vhost, cameras=["{cam1}"], key_tags=True)

    client.delete(f"engine:{vhost}:journal:frames:{{cam1}}", f"engine:{vhost}:cameras:frames")
    where = ("--redis", redis_server.address, "--vhost", vhost, "--key-tags")
    done = command("reindex", *where, "--json")
    assert done.returncode == 0, done.stderr
    assert {(line["camera"], line["added"]) for line in map(json.loads, done.stdout.splitlines()[:-1])} == {
        ("cam1", 30),
        ("a/b", 0),
    }
    done = command("frames", "list", "cam1", *where, "--json")
    assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == [n for n in names if "{cam1}" in n]
    done = command("frames", "get", names[0], "--redis", redis_server.address, "--key-tags", "--json")
    assert json.loads(done.stdout)["key"] == names[0]
    done = command("tenants", "stats", vhost, "--redis", redis_server.address, "--key-tags", "--json")
    assert json.loads(done.stdout)["total"]["frames"] == 60


def test_a_start_with_another_flag_refuses_rings_that_hold_frames(site: Site, redis_server: RedisServer) -> None:
    cameras = [{"id": "cam1", "url": "test://?size=64x48&kb=9&fps=30"}]
    site.write(cameras=cameras, redis={"address": redis_server.address}, site={"drain_seconds": 1})
    site.start()
    wait_until(lambda: site.total("stored") > 10, 60, "frames are stored", log=site.log_text)
    redis_server.stop()
    wait_until(lambda: site.camera("cam1")["ring"]["held"] > 5, 30, "the ring holds frames")
    assert site.stop() == 1
    redis_server.start()
    site.write(cameras=cameras, redis={"address": redis_server.address, "key_tags": True})
    site.start(wait=False)
    assert site.process is not None
    assert site.process.wait(60) == 2
    assert "belong to vhost 'default', prefix 'frames', Redis" in site.log_text()
    assert not list(redis_server.client().scan_iter("*{*"))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"camera": "a{b"}, "camera id: 'a{b' has a brace"),
        ({"prefix": "a}"}, "redis.prefix: 'a}' has a brace"),
        ({"vhost": "{v}"}, "vhost: '{v}' has a brace"),
    ],
    ids=("camera", "prefix", "vhost"),
)
def test_names_with_braces_are_refused(document: dict[str, str], said: str, site: Site) -> None:
    for tags, code in ((True, 2), (False, 0)):
        site.write(
            cameras=[{"id": document.get("camera", "cam1"), "url": "test://"}],
            redis={"prefix": document.get("prefix", "frames"), "key_tags": tags},
            amqp_url=f"amqp://127.0.0.1/{document.get('vhost', '')}",
        )
        done = command("check", "-c", str(site.file))
        assert done.returncode == code, done.stderr
        assert (said in done.stderr) is tags
