"""The embedded server of a site whose supervisor is killed."""

from __future__ import annotations

import json
import os
import random
import time

import msgspec
import psutil
import redis

from engine.runtime.claims import identity
from engine.wire.lease import encode_lease
from tests.runtime.test_embedded import servers
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.wait import wait_until
from tests.system.site import Site, command, missing_numbers, stored_frames

CAMERAS = [{"id": f"cam{number}", "url": "test://?fps=30&kb=20&size=320x240"} for number in range(4)]


def client(site: Site) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(site.config.run_directory / "redis.sock"))


def kill(site: Site) -> None:
    """kill -9 the supervisor; its children end with it."""
    assert site.process is not None
    # One may end while the others are asked.
    children = [child for child in site.children() if lives(child) and "valkey" not in name_of(child)]
    site.process.kill()
    site.process.wait()
    wait_until(lambda: not any(map(lives, children)), 10, "its children end with it")


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_every_stored_frame_is_there_after_the_supervisor_was_killed(site: Site) -> None:
    site.write(cameras=CAMERAS)
    site.start()
    wait_until(lambda: site.total("stored") > 200, 30, "frames flow")
    before = set(client(site).keys("default:frames:*"))
    kill(site)
    assert len(before) > 200
    (server,) = servers(site.config.run_directory)
    done = command("status", "-c", str(site.file))
    assert done.returncode == 1
    assert f"its embedded server still runs with its frames (pid {server})" in done.stdout
    # Frames can be read while nobody captures.
    assert command("frames", "latest", "cam1", "-c", str(site.file)).returncode == 0
    site.start()
    assert f'event="embedded server of a former run adopted" pid={server}' in site.log_text()
    assert servers(site.config.run_directory) == [server]
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 100, 30, "frames flow again")
    assert before <= set(client(site).keys("default:frames:*"))
    kill(site)
    # Payloads prove themselves; each capture process may have been killed twice with one frame in hand.
    numbers = stored_frames(client(site), "default").numbers
    assert len(numbers) == len(CAMERAS)
    for camera, got in numbers.items():
        assert len(missing_numbers(got)) <= 2, camera
    site.start()
    assert site.stop() == 0
    assert not servers(site.config.run_directory)
    assert not site.config.run_directory.exists()


def test_clean_ends_a_server_without_a_supervisor_and_says_what_it_held(site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://?frames=25&kb=20&size=320x240"}])
    site.start()
    wait_until(lambda: site.total("stored") == 25, 30, "all frames are stored")
    kill(site)
    (server,) = servers(site.config.run_directory)
    report = json.loads(command("clean", "-c", str(site.file), "--json").stdout)
    assert report == {"rings": 1, "frames": 0, "server_pids": [server], "server_frames": 25}
    assert not servers(site.config.run_directory)
    assert not site.config.run_directory.exists()
    assert not site.paths.directory.exists()
    assert command("clean", "-c", str(site.file)).stdout == "nothing to remove\n"


def test_a_start_that_is_refused_leaves_the_server_as_it_was(site: Site, rabbitmq: RabbitMQ, vhost: str) -> None:
    site.write(cameras=CAMERAS[:1])
    site.start()
    wait_until(lambda: site.total("stored") > 20, 30, "frames flow")
    kill(site)
    (server,) = servers(site.config.run_directory)
    site.write(cameras=CAMERAS[:1], amqp_url=rabbitmq.url(vhost, password="wrong"))
    assert command("run", "-c", str(site.file)).returncode == 2
    assert servers(site.config.run_directory) == [server]
    # Redis is asked after it: this process has the camera's lease.
    lease = msgspec.structs.replace(identity(site.config), holder="another", site="theirs")
    client(site).set("engine:default:lease:frames:cam0", encode_lease(lease), px=60_000)
    site.write(cameras=CAMERAS[:1])
    done = command("run", "-c", str(site.file))
    assert (done.returncode, "stored by another site already: site theirs" in done.stderr) == (2, True), done.stderr
    assert servers(site.config.run_directory) == [server]
    assert len(client(site).keys("default:frames:*")) > 20
    site.end()
    assert not servers(site.config.run_directory)


def test_a_supervisor_killed_at_any_moment_of_its_start_leaves_one_server_at_most(site: Site) -> None:
    site.write(cameras=CAMERAS[:1])
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    for _ in range(8):
        site.start(wait=False)
        assert site.process is not None
        socket = site.config.run_directory / "server.lock"
        # From the moment at which the server's lock is there.
        wait_until(socket.exists, 30, "the server is being started", interval=0.0005)
        time.sleep(chance.uniform(0, 0.1))
        site.process.kill()
        site.process.wait()
        assert len(servers(site.config.run_directory)) <= 1, seed
    site.start()
    wait_until(lambda: site.total("stored") > 20, 30, "frames flow")
    assert len(servers(site.config.run_directory)) == 1, seed
    assert site.stop() == 0
    assert not servers(site.config.run_directory)


def test_a_site_with_a_server_elsewhere_says_that_one_of_its_own_still_runs(site: Site) -> None:
    # It ends: a frame in its ring when the site is killed would belong to the former Redis, and stop the next start.
    camera = {**CAMERAS[0], "url": f"{CAMERAS[0]['url']}&frames=25"}
    site.write(cameras=[camera])
    site.start()
    wait_until(lambda: site.total("stored") == 25, 30, "all frames are stored")
    kill(site)
    (server,) = servers(site.config.run_directory)
    site.write(cameras=CAMERAS[:1], redis={"address": f"unix://{site.config.run_directory}/redis.sock"})
    site.start()
    assert f'event="embedded server of a former run still runs" pid={server}' in site.log_text()
    assert site.stop() == 0
    assert servers(site.config.run_directory) == [server]
    site.end()
    assert not servers(site.config.run_directory)
    assert os.path.exists(site.file)
