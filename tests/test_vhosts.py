"""A tenant is one vhost, in Redis and in RabbitMQ alike: real brokers, with vhosts whose names need encoding."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from engine.client.consumer import FrameConsumer
from engine.errors import ConfigError
from engine.wire import keys
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site, command, stored_frames

CAMERAS = [{"id": "cam1", "url": "test://?size=64x48&kb=9&frames=20"}]


@pytest.mark.parametrize("name", ["/", "a/b", "a;b", "a%2Fb", "loja ã 店", "?#", "é" * 127])
def test_frames_and_events_of_a_vhost_meet_under_its_name(
    name: str, site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ
) -> None:
    if name != "/":
        rabbitmq.add_vhost(name)
    connection = rabbitmq.connect(name)
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.exchange_declare("camera.metadata", exchange_type="topic", durable=True)
    channel.queue_bind(queue, "camera.metadata", "camera.metadata.event")
    site.write(cameras=CAMERAS, redis={"address": redis_server.address}, amqp_url=rabbitmq.url(name))
    site.start()
    events = []

    def all_there() -> bool:
        connection.process_data_events(0)
        while (message := channel.basic_get(queue, auto_ack=True))[0]:
            events.append(json.loads(message[2]))
        return len(events) >= 20

    wait_until(all_there, 60, "the events of all frames are in the vhost")
    assert site.stop() == 0
    connection.close()
    tenant = "default" if name == "/" else name
    assert {event["vhost"] for event in events} == {tenant}
    with redis_server.client() as client:
        stored = stored_frames(client, keys.encode_part(tenant))
        assert stored.numbers == {"cam1": list(range(1, 21))}
        assert {key.vhost for key in stored.keys} == {tenant}
        assert {keys.parse_frame_key(event["redis_key"]) for event in events} == set(stored.keys)
        # Nothing stands under another name.
        assert len(stored.keys) == sum(not key.startswith(b"engine:") for key in client.scan_iter())


@pytest.mark.parametrize("path", ["a/", "a;b", "a/b", "a?x=1", "a#b", "default"])
def test_what_used_to_publish_into_another_vhost_is_refused_everywhere(
    path: str, site: Site, rabbitmq: RabbitMQ
) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/{path}"
    site.write(cameras=CAMERAS, amqp_url=url)
    for arguments in (
        ["check", "-c", str(site.file)],
        ["run", "-c", str(site.file)],
        ["doctor", "-c", str(site.file)],
        ["recover", "--redis", "127.0.0.1:1", "--amqp", url],
        ["consume", "--redis", "127.0.0.1:1", "--amqp", url],
    ):
        done = command(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "vhost" in done.stderr
        assert "guest:guest" not in done.stderr
    with pytest.raises(ConfigError, match="vhost"):
        FrameConsumer(url, "127.0.0.1:1", lambda *_: None)


def test_the_url_that_the_error_asks_for_is_taken() -> None:
    for name in ("a/b", "a;b", "a?b", "a#b"):
        FrameConsumer(f"amqp://u:p@h/{quote(name, safe='')}", "127.0.0.1:1", lambda *_: None)
