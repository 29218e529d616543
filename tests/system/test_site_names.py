"""The registry of sites in Redis: who is on it, and that each name of a vhost is one live site's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from engine.jobs.tenants import acl_rules
from engine.runtime.claims import identity
from engine.wire.keys import site_key
from engine.wire.site_entry import SiteEntry, decode_site_entry, encode_site_entry
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site, command, roles_section

URL = "test://?fps=20&kb=10&size=320x240"
CAMERAS = [{"id": f"cam{number}", "url": URL} for number in range(3)]


@pytest.fixture
def other(site: Site, short_path: Path) -> Iterator[Site]:
    running = Site(short_path / "other", warm=True, name=site.name)
    yield running
    running.end()


def key_of(site: Site, vhost: str = "default") -> str:
    return site_key(vhost, site.name)


def entry_of(client: redis.Redis, site: Site, vhost: str = "default") -> SiteEntry | None:
    data = client.get(key_of(site, vhost))
    return decode_site_entry(data) if data else None


def foreign(site: Site) -> bytes:
    """The entry of a site of the same name on another machine."""
    fields = {"holder": "another", "host": "far", "machine": "elsewhere"}
    return encode_site_entry(SiteEntry(**{**msgspec.structs.asdict(identity(site.config)), **fields}))


def test_a_site_is_registered_while_it_lives(site: Site, redis_server: RedisServer) -> None:
    client = redis_server.client()
    site.write(
        cameras=CAMERAS,
        redis={"address": redis_server.address},
        writer={"writers": 2},
        web={"listen": "", "url": "https://shop.example:8443"},
    )
    site.start()
    wait_until(lambda: (entry := entry_of(client, site)) and entry.cameras == 3, 30, "all its cameras have rings")
    entry = entry_of(client, site)
    assert entry is not None
    assert site.process is not None
    assert (entry.site, entry.prefix, entry.pid) == (site.name, "frames", site.process.pid)
    assert (entry.version, entry.url) == ("0.1.0", "https://shop.example:8443")
    assert entry.since <= entry.seen
    assert 0 < client.pttl(key_of(site)) <= 15_000
    first = entry.seen
    wait_until(lambda: (now := entry_of(client, site)) and now.seen > first, 20, "it is renewed")
    assert site.stop() == 0
    assert not client.keys("engine:*:lease:*")


def test_a_second_site_of_the_name_is_refused_and_another_vhost_is_not(
    site: Site, other: Site, redis_server: RedisServer
) -> None:
    client = redis_server.client()
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    site.start()
    other.write(cameras=CAMERAS[1:], redis={"address": redis_server.address})
    for role in ("run", "writer"):
        done = command(role, "-c", str(other.file))
        assert (done.returncode, done.stderr.count("edge-video:")) == (2, 1), done.stderr
        assert f"another site is named {site.name} already: site {site.name}" in done.stderr
        assert "stop that one, or give this one another site.name or vhost" in done.stderr
        # What it had taken before it was refused is given back.
        wait_until(lambda: not client.exists("engine:default:lease:frames:cam1"), 5, "the lease is given back")
        assert role == "writer" or not other.paths.directory.exists()
    other.write(
        cameras=CAMERAS[1:],
        redis={"address": redis_server.address},
        metadata={"enabled": False},
        amqp_url="amqp://127.0.0.1:1/elsewhere",
    )
    other.start()
    assert entry_of(client, other, "elsewhere")
    assert other.stop() == site.stop() == 0


def test_a_killed_site_has_its_name_at_once_and_so_has_another_on_its_machine(
    site: Site, other: Site, redis_server: RedisServer
) -> None:
    client = redis_server.client()
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    other.write(cameras=CAMERAS[1:], redis={"address": redis_server.address})
    site.start()
    assert site.process is not None
    site.process.kill()
    site.process.wait()
    site.start()
    pid = site.process.pid
    wait_until(lambda: (entry := entry_of(client, site)) and entry.pid == pid, 30, "it has its name")
    assert "lease" not in site.log_text()
    site.process.kill()
    site.process.wait()
    other.start()
    assert "waiting for the lease" not in other.log_text()
    assert other.stop() == 0


def test_another_site_of_the_name_is_said_once_while_frames_flow(site: Site, redis_server: RedisServer) -> None:
    client = redis_server.client()
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    site.start()
    client.set(key_of(site), foreign(site), px=13_000)
    wait_until(lambda: "another site has the same name" in site.log_text(), 20, "it is noticed", log=site.log_text)
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 20, 30, "frames flow on")
    client.delete(key_of(site))
    wait_until(lambda: "no other site has this name any more" in site.log_text(), 20, "it is gone")
    wait_until(lambda: (entry := entry_of(client, site)) and entry.host != "far", 20, "the name is the site's again")
    assert site.log_text().count("another site has the same name") == 1
    assert "host far" in site.log_text()
    assert site.status()["writer"]["contested"] == 0
    assert site.stop() == 0


def test_users_of_least_privilege_register_and_older_ones_do_without(site: Site, short_path: Path) -> None:
    with RedisServer(short_path / "redis", username="root", password="geheim") as server:
        admin = server.client()
        for role in ("writer", "publisher"):
            admin.execute_command("ACL", "SETUSER", role, *acl_rules("default", [role], "geheim"))
        site.write(cameras=CAMERAS[:1], redis=roles_section(server.address, "geheim"))
        site.start()
        assert entry_of(admin, site)
        assert site.stop() == 0
        assert "not registered" not in site.log_text()
        assert not admin.keys("engine:*:lease:*")
        admin.execute_command("ACL", "SETUSER", "writer", "-getrange")
        site.start()
        wait_until(lambda: site.total("stored") > 20, 30, "frames flow")
        told = "the site is not registered: this user may not; recreate the writer's user with edge-video tenants acl"
        assert told in site.log_text()
        assert site.stop() == 0


def test_the_first_writer_alone_registers(site: Site, redis_server: RedisServer) -> None:
    client = redis_server.client()
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    with site.log.open("ab") as log:
        running = [
            subprocess.Popen([*COMMAND, *role, "-c", str(site.file)], cwd=ROOT, stdout=log, stderr=log)
            for role in (["capture", "cam0"], ["writer"])
        ]
    try:
        wait_until(lambda: (entry := entry_of(client, site)) and entry.cameras == 1, 30, "it is registered")
        for process in running:
            process.terminate()
            assert process.wait(30) == 0
        assert not client.keys("engine:*:lease:*")
    finally:
        for process in running:
            process.kill()
            process.wait()
