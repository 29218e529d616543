"""Two brokers, a site's and a centre's, set up by the files of ``edge-video fleet users`` alone.

Events reach the centre by a shovel. Every event is counted: none is lost, whatever breaks between the two.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.faults.proxy import Proxy
from tests.servers.certificate import Authority
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site, command, stored_frames

SITE, OTHER = "shop-1", "shop-2"
VHOST = "a/b"


class Fleet(NamedTuple):
    """A centre and one site's own broker; ``link`` is what the site reaches the centre by."""

    local: RabbitMQ
    centre: RabbitMQ
    link: Proxy
    passwords: dict[tuple[str, str], str]

    def site_url(self) -> str:
        return self.local.url(VHOST, SITE, self.passwords["rabbitmq", SITE])

    def read(self) -> list[tuple[str | None, str, str]]:
        """All that waits at the centre, read by its own user: site, routing key, redis_key or camera."""
        connection = self.centre.connect("centre", "centre", self.passwords["centre", "centre"])
        channel = connection.channel()
        found = []
        while True:
            method, properties, body = channel.basic_get("events", auto_ack=True)
            if method is None:
                connection.close()
                return found
            event = json.loads(body)
            found.append((properties.user_id, method.routing_key, event.get("redis_key", event.get("camera_id", ""))))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    path = Path(tempfile.mkdtemp(prefix="ev-fleet-"))
    centre, local = RabbitMQ(path / "centre"), RabbitMQ(path / "local", plugins=["rabbitmq_shovel"])
    with Proxy(centre.port) as link, centre, local:
        sites = path / "sites.csv"
        sites.write_text(f"name,vhost\n{SITE},{VHOST}\n{OTHER},\n")
        url = f"amqp://127.0.0.1:{link.port}/centre"
        done = command("fleet", "users", str(sites), str(path / "out"), "--centre", url)
        assert done.returncode == 0, done.stderr
        centre.import_definitions(path / "out/centre.json")
        local.import_definitions(path / "out/rabbitmq.json")
        local.import_definitions(path / f"out/shovels/{SITE}.json")
        rows = list(csv.reader((path / "out/passwords.csv").read_text().splitlines()))[1:]
        yield Fleet(local, centre, link, {(server, user): password for server, user, password in rows})
    shutil.rmtree(path, ignore_errors=True)


def test_rights_end_at_the_own_exchange_and_no_site_speaks_for_another(fleet: Fleet) -> None:
    def channel_of(user: str) -> BlockingChannel:
        return fleet.centre.connect("centre", user, fleet.passwords["centre", user]).channel()

    for user in (SITE, OTHER):
        channel = channel_of(user)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.basic_get("events")
        channel = channel_of(user)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.queue_declare("mine")
    channel = channel_of(SITE)
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="user_id"):
        channel.basic_publish("camera.metadata", "x", b"{}", pika.BasicProperties(user_id=OTHER))
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError):
        fleet.local.connect(OTHER, SITE, fleet.passwords["rabbitmq", SITE])
    assert fleet.read() == []


def test_a_shovel_with_tls_meets_the_right_centre_only(fleet: Fleet, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    sites = tmp_path / "sites.csv"
    sites.write_text(f"name\n{OTHER}\n")
    # The passwords that the centre has already.
    (tmp_path / "out").mkdir(mode=0o700)
    rows = [("server", "user", "password"), *((*account, word) for account, word in fleet.passwords.items())]
    (tmp_path / "out/passwords.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))

    def pass_on_to(host: str) -> None:
        """The site's events go to a centre whose certificate is for ``host``, and an event is published."""
        port = fleet.centre.listen_tls(authority.sign(host, host), authority.certificate)
        options = ("--centre", f"amqps://localhost:{port}/centre", "--centre-ca-file", str(authority.certificate))
        done = command("fleet", "users", str(sites), str(tmp_path / "out"), *options)
        assert done.returncode == 0, done.stderr
        fleet.local.import_definitions(tmp_path / f"out/shovels/{OTHER}.json")
        fleet.local.permit("guest", OTHER, ".*", ".*", ".*")
        connection = fleet.local.connect(OTHER)
        connection.channel().basic_publish("camera.metadata", "a", json.dumps({"camera_id": host}).encode())
        connection.close()

    pass_on_to("elsewhere")
    log = fleet.local.directory / "log"
    wait_until(
        lambda: any("hostname_check_failed" in file.read_text() for file in log.iterdir() if file.is_file()),
        30,
        "the shovel refuses the certificate of another host",
    )
    assert fleet.read() == []
    pass_on_to("localhost")
    got: list[tuple[str | None, str, str]] = []
    wait_until(lambda: got.extend(fleet.read()) or len(got) == 2, 30, "both events arrive")
    assert got == [(OTHER, "a", "elsewhere"), (OTHER, "a", "localhost")]


def test_no_event_is_lost_while_the_link_is_cut_and_the_centre_killed(
    fleet: Fleet, site: Site, redis_server: RedisServer
) -> None:
    site.write(
        cameras=[{"id": f"cam{number}", "url": "test://?fps=20&kb=10&size=320x240"} for number in range(3)],
        redis={"address": redis_server.address},
        amqp_url=fleet.site_url(),
        site={"name": SITE},
    )
    site.start()
    got: list[tuple[str | None, str, str]] = []

    def arrives(count: int) -> bool:
        got.extend(fleet.read())
        return len(got) >= count

    def confirmed() -> int:
        return int(site.status()["publisher"]["confirmed"])

    wait_until(lambda: arrives(60), 60, "events arrive", log=site.log_text)
    # The link is cut; the site's broker keeps what it confirms to the site.
    fleet.link.refusing = True
    fleet.link.reset()
    before = confirmed()
    wait_until(lambda: confirmed() > before + 100, 30, "the site publishes on")
    fleet.link.refusing = False
    wait_until(lambda: arrives(before + 100), 60, "events arrive again")
    # The centre's broker is killed with messages in flight.
    fleet.centre.kill()
    before = confirmed()
    wait_until(lambda: confirmed() > before + 100, 30, "the site publishes on")
    fleet.centre.start()
    wait_until(lambda: arrives(before + 100), 60, "events arrive again")
    assert site.stop() == 0
    stored = stored_frames(redis_server.client(), VHOST)
    announced = {f"{key.vhost}:{key.prefix}:{key.camera}:{key.unix_nano}:{key.sequence:05}" for key in stored.keys}
    frames: set[str] = set()

    def all_there() -> bool:
        arrives(0)
        frames.update(key for _, route, key in got if route == "camera.metadata.event")
        return frames >= announced

    wait_until(all_there, 60, "every stored frame is announced at the centre")
    assert frames == announced
    assert len(frames) > 300
    assert {sender for sender, _, _ in got} == {SITE}
    # States come too.
    assert {key for _, route, key in got if route == "camera.metadata.event.status"} == {"cam0", "cam1", "cam2"}
