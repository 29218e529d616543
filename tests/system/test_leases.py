"""Two sites that would store under the same names are noticed; a site that was killed goes on at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import redis

from engine.jobs.tenants import acl_rules
from engine.runtime.claims import identity
from engine.wire.lease import Lease, decode_lease, encode_lease
from tests.servers.clips import make_clip, read_clip
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import RtspVideo
from tests.servers.wait import wait_until
from tests.system.consumer import Consumer
from tests.system.site import COMMAND, ROOT, Site, command, missing_numbers, roles_section, stored_frames

URL = "test://?fps=20&kb=10&size=320x240"
CAMERAS = [{"id": f"cam{number}", "url": URL} for number in range(3)]


@pytest.fixture
def other(short_path: Path) -> Iterator[Site]:
    running = Site(short_path / "other", warm=True)
    yield running
    running.end()


def lease_of(client: redis.Redis, camera: str = "cam0", vhost: str = "default") -> Lease | None:
    data = client.get(f"engine:{vhost}:lease:frames:{camera}")
    return decode_lease(data) if data else None


def pid_of(client: redis.Redis) -> int:
    lease = lease_of(client)
    return lease.pid if lease else 0


def foreign(site: Site, **fields: object) -> bytes:
    """The lease of a site on another machine."""
    fields = {"holder": "another", "site": "theirs", "host": "far", "machine": "elsewhere", **fields}
    return encode_lease(msgspec.structs.replace(identity(site.config), **fields))


def test_a_second_site_under_the_same_names_is_refused_until_the_first_is_stopped(
    site: Site, other: Site, redis_server: RedisServer
) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.total("stored") > 20, 30, "frames flow")
    other.write(cameras=[*CAMERAS[1:], {"id": "mine", "url": URL}], redis={"address": redis_server.address})
    done = command("run", "-c", str(other.file))
    assert done.returncode == 2
    assert done.stderr.count("edge-video:") == 1
    assert site.process is not None
    for words in (
        "2 cameras (cam1, cam2) are stored by another site already",
        f"pid {site.process.pid}, run directory {site.config.run_directory}, version 0.1.0",
        "stop that one, or give this one another redis.prefix, vhost or camera ids",
    ):
        assert words in done.stderr
    assert not other.paths.directory.exists()
    assert not other.config.run_directory.exists()
    # What it had taken before it was refused is given back.
    wait_until(lambda: lease_of(redis_server.client(), "mine") is None, 5, "the lease is given back")
    done = command("writer", "-c", str(other.file))
    assert (done.returncode, "are stored by another site already" in done.stderr) == (2, True)
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 20, 30, "the first runs on")
    assert site.stop() == 0
    other.start()
    assert "waiting for the lease" not in other.log_text()
    assert "taken over" not in other.log_text()
    assert other.stop() == 0
    assert not redis_server.client().keys("engine:*:lease:*")


def test_sites_with_other_cameras_share_vhost_and_prefix(
    site: Site, other: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    redis_section = {"address": redis_server.address}
    site.write(cameras=CAMERAS[:1], redis=redis_section, amqp_url=rabbitmq.url(vhost))
    other.write(cameras=CAMERAS[1:], redis=redis_section, amqp_url=rabbitmq.url(vhost), site={"name": "other"})
    with Consumer(rabbitmq, vhost) as consumer:
        site.start()
        other.start()
        for one in (site, other):
            wait_until(lambda one=one: one.status()["publisher"]["confirmed"] > 60, 30, "events are confirmed")
        assert site.stop() == other.stop() == 0
        stored = stored_frames(redis_server.client(), vhost)
        wait_until(lambda: len(consumer.frames()) >= len(stored.keys), 30, "all events arrived")
        assert consumer.sequences() == stored.numbers
    assert sorted(stored.numbers) == ["cam0", "cam1", "cam2"]
    assert not any(missing_numbers(got) for got in stored.numbers.values())
    assert "another site" not in site.log_text() + other.log_text()


def test_a_killed_site_goes_on_at_once_and_so_does_another_on_its_machine(
    site: Site, other: Site, redis_server: RedisServer
) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    other.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.start()
    assert site.process is not None
    holder = lease_of(redis_server.client())
    assert holder is not None
    site.process.kill()
    site.process.wait()
    site.start()
    pid = site.process.pid
    renewed = wait_until(
        lambda: pid_of(redis_server.client()) == pid and lease_of(redis_server.client()), 30, "it has it"
    )
    assert renewed.holder == holder.holder
    assert "lease" not in site.log_text()
    site.process.kill()
    site.process.wait()
    other.start()
    assert "leases of a site that is gone are taken over" in other.log_text()
    assert "waiting for the lease" not in other.log_text()


def test_the_lease_of_a_site_that_cannot_be_seen_is_waited_for(site: Site, redis_server: RedisServer) -> None:
    """As after a container was killed: the next one has another host name and other processes."""
    client = redis_server.client()
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    client.set("engine:default:lease:frames:cam0", foreign(site), px=14_000)
    site.start(wait=False)
    waits = "waiting for the lease of another site to lapse or to be renewed"
    wait_until(lambda: waits in site.log_text(), 30, "it waits")
    assert "site theirs, host far" in site.log_text()
    client.pexpire("engine:default:lease:frames:cam0", 1)
    wait_until(site.up, 30, "the site is up")
    assert site.stop() == 0
    # One that is renewed is another site's for good.
    client.set("engine:default:lease:frames:cam0", foreign(site), px=4000)
    process = subprocess.Popen(
        [*COMMAND, "run", "-c", str(site.file)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    ends = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < ends:
        client.set("engine:default:lease:frames:cam0", foreign(site), px=4000)
        time.sleep(2)
    assert process.wait(30) == 2
    assert process.stdout is not None
    assert "camera cam0 is stored by another site already: site theirs, host far" in process.stdout.read()
    process.stdout.close()


def test_what_is_no_lease_is_in_nobody_s_way(site: Site, redis_server: RedisServer) -> None:
    client = redis_server.client()
    client.rpush("engine:default:lease:frames:cam0", "x")
    client.set("engine:default:lease:frames:cam1", b"\xff{")
    client.set("engine:default:lease:frames:cam2", b"[" * 10_000)
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.start()
    assert all(lease_of(client, camera["id"]) for camera in CAMERAS)
    assert site.stop() == 0


def test_leases_come_back_and_another_s_is_said_once_while_frames_flow(site: Site, redis_server: RedisServer) -> None:
    client = redis_server.client()
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.total("stored") > 20, 30, "frames flow")
    assert 0 < client.pttl("engine:default:lease:frames:cam0") <= 15_000
    client.flushall()
    wait_until(lambda: lease_of(client), 20, "the lease is there again")
    client.set("engine:default:lease:frames:cam0", foreign(site), px=13_000)
    wait_until(lambda: site.status()["writer"]["contested"] == 1, 20, "it is noticed")
    assert "1 camera is stored by another site, too" in command("status", "-c", str(site.file)).stdout
    stored = site.camera("cam0")["stored"]
    wait_until(lambda: site.camera("cam0")["stored"] > stored + 20, 30, "frames flow on")
    wait_until(lambda: "no other site stores under these names any more" in site.log_text(), 40, "it has lapsed")
    assert site.status()["writer"]["contested"] == 0
    assert site.log_text().count("another site stores under the same names") == 1
    assert "site theirs, host far" in site.log_text()
    holder = lease_of(client)
    assert holder is not None
    assert site.process is not None
    assert holder.pid == site.process.pid
    assert site.stop() == 0


def test_users_of_least_privilege_take_leases_and_older_ones_do_without(site: Site, short_path: Path) -> None:
    with RedisServer(short_path / "redis", username="root", password="geheim") as server:
        admin = server.client()
        for role in ("writer", "publisher"):
            admin.execute_command("ACL", "SETUSER", role, *acl_rules("default", [role], "geheim"))
        site.write(cameras=CAMERAS, redis=roles_section(server.address, "geheim"))
        site.start()
        assert lease_of(admin)
        wait_until(lambda: site.total("stored") > 20, 30, "frames flow")
        assert site.stop() == 0
        assert "no leases" not in site.log_text()
        assert not admin.keys("engine:*:lease:*")
        for role in ("reader", "publisher"):
            admin.execute_command("ACL", "SETUSER", role, *acl_rules("default", [role], "geheim"))
            with (
                server.client(username=role, password="geheim") as client,
                pytest.raises(redis.exceptions.NoPermissionError),
            ):
                client.execute_command("GET" if role == "reader" else "EXISTS", "engine:default:lease:frames:cam0")
        # Users made by an earlier version.
        admin.execute_command("ACL", "SETUSER", "writer", "-getrange", "-pttl")
        site.start()
        wait_until(lambda: site.total("stored") > 20, 30, "frames flow")
        assert "recreate the writer's user with edge-video tenants acl" in site.log_text()
        assert site.stop() == 0


def test_a_writer_s_user_without_the_keys_of_video_is_told_how_to_get_them(site: Site, short_path: Path) -> None:
    stream = read_clip(make_clip(short_path / "clip.mp4", seconds=2, fps=10, gop=10))
    with RedisServer(short_path / "redis", username="root", password="geheim") as server, ExitStack() as stack:
        admin = server.client()
        rules = acl_rules("default", ["writer"], "geheim")
        older = [rule for rule in rules if ":video:" not in rule]
        assert len(older) < len(rules)
        admin.execute_command("ACL", "SETUSER", "writer", *older)
        url = stack.enter_context(RtspVideo.alike(short_path / "sender", stream, 1)).urls[0]
        address = {"address": server.address, "username": "writer", "password": "geheim"}
        site.write(cameras=[{"id": "cam0", "url": url, "video": True}], redis=address)
        site.start(wait=False)
        advice = "give this user the rights that `edge-video tenants acl` lists"
        wait_until(lambda: advice in site.log_text(), 30, "the log says what is missing", log=site.log_text)
        admin.execute_command("ACL", "SETUSER", "writer", *rules)
        wait_until(lambda: admin.keys("engine:default:video:*"), 30, "video is stored", log=site.log_text)
        assert site.stop() == 0
        assert "frames left" not in site.log_text()


def test_roles_without_a_supervisor_take_leases(site: Site, other: Site, redis_server: RedisServer) -> None:
    client = redis_server.client()
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    other.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    with site.log.open("ab") as log:
        running = [
            subprocess.Popen([*COMMAND, *role, "-c", str(site.file)], cwd=ROOT, stdout=log, stderr=log)
            for role in (["capture", "cam0"], ["writer"])
        ]
    try:
        wait_until(lambda: site.total("stored") > 20, 30, "frames are stored")
        holder = lease_of(client)
        assert holder is not None
        assert holder.pid == running[1].pid
        done = command("run", "-c", str(other.file))
        assert (done.returncode, f"pid {running[1].pid}" in done.stderr) == (2, True)
        # A writer that its supervisor starts again is the same site.
        running[1].kill()
        running[1].wait()
        with site.log.open("ab") as log:
            running[1] = subprocess.Popen([*COMMAND, "writer", "-c", str(site.file)], cwd=ROOT, stdout=log, stderr=log)
        wait_until(lambda: pid_of(client) == running[1].pid, 30, "it has the lease")
        assert "taken over" not in site.log_text()
        stored = site.total("stored")
        wait_until(lambda: site.total("stored") > stored + 20, 30, "frames flow again")
        for process in running:
            process.terminate()
            assert process.wait(30) == 0
        assert not client.keys("engine:*:lease:*")
        assert not site.config.run_directory.exists()
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_stop_while_a_lease_is_waited_for_ends_the_start(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    redis_server.client().set("engine:default:lease:frames:cam0", foreign(site), px=14_000)
    site.start(wait=False)
    wait_until(lambda: "waiting for the lease" in site.log_text(), 30, "it waits")
    assert site.stop() == 2
    assert "stopped while waiting for its leases" in site.log_text()
    assert not site.paths.directory.exists()
