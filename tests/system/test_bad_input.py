"""Bad input: one clear error, exit code 2, nothing started, nothing left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, command

CAMERA = '\n[[cameras]]\nid = "cam1"\nurl = "test://"\n'

FILES = {
    "syntax": ("[redis\n", "line 1"),
    "unknown key": ("[redis]\nttl_second = 3\n" + CAMERA, "did you mean 'ttl_seconds'"),
    "wrong type": ('[redis]\nttl_seconds = "long"\n' + CAMERA, "redis.ttl_seconds: expected int, got str"),
    "twice": (CAMERA + CAMERA, "'cam1' stands twice"),
    "no cameras": ("[redis]\nttl_seconds = 3\n", "no cameras"),
    "vhost": ('[amqp]\namqp_url = "amqp://u:geheim@localhost/engine"\n' + CAMERA, "vhost 'engine' is reserved"),
    "zero ttl": ("[redis]\nttl_seconds = 0\n" + CAMERA, "redis.ttl_seconds: expected int >= 1, got 0"),
    "negative fps": (CAMERA + "fps = -1\n", "cam1).fps: expected float >= 0.0001, got -1"),
    "zero size": (CAMERA + "width = 0\nheight = 0\n", "cam1).width: expected int >= 16, got 0"),
    "quality": (CAMERA + "quality = 101\n", "cam1).quality: expected int <= 100, got 101"),
    "scheme": (CAMERA.replace("test://", "gopher://x"), "unsupported URL scheme 'gopher'"),
    "small ring": (CAMERA.replace("test://", "test://?kb=9000"), "raise ring.capacity_mb to 18 or more"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_bad_site_file_is_one_line_and_exit_code_2(name: str, verb: str, tmp_path: Path) -> None:
    text, message = FILES[name]
    file = tmp_path / "site.toml"
    file.write_text(text)
    done = command(verb, "-c", str(file))
    assert done.returncode == 2
    assert message in done.stderr
    assert str(file) in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    assert "geheim" not in done.stderr


def test_a_missing_and_an_unreadable_file_say_so(tmp_path: Path) -> None:
    done = command("run", "-c", str(tmp_path / "none.toml"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "No such file" in done.stderr
    done = command("check", "-c", str(tmp_path))
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def refused(site: Site, message: str) -> None:
    """``run`` ends with exit code 2 and one line that contains ``message``, with nothing started or left."""
    done = command("run", "-c", str(site.file))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("edge-video:")]
    assert len(errors) == 1
    assert "geheim" not in done.stderr
    assert not site.paths.directory.exists()
    assert "site started" not in done.stderr


def test_redis_unreachable(site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"address": f"127.0.0.1:{free_port()}"})
    refused(site, "cannot be reached")


def test_redis_wrong_password(site: Site, short_path: Path) -> None:
    with RedisServer(short_path / "redis", password="right") as server:
        site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"address": server.address, "password": "geheim"})
        refused(site, "refuses the credentials")
        site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"address": server.address})
        refused(site, "REDIS_PASSWORD")


def test_redis_too_old(site: Site, short_path: Path) -> None:
    """No Redis that old can be had here: a server that answers as one did."""
    port = free_port()
    script = (
        "import socket,sys\n"
        f"s=socket.create_server(('127.0.0.1',{port}))\n"
        "while True:\n"
        "    c,_=s.accept()\n"
        "    while data:=c.recv(65536):\n"
        "        for line in data.upper().split(b'\\r\\n'):\n"
        "            if line==b'HELLO': c.sendall(b'-ERR unknown command `HELLO`\\r\\n')\n"
        "            elif line in (b'SELECT',b'PING'): c.sendall(b'+OK\\r\\n')\n"
    )
    import sys

    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        from tests.servers.wait import accepts_tcp

        wait_until(lambda: accepts_tcp(port), 20, "the old server listens")
        site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"address": f"127.0.0.1:{port}"})
        refused(site, "6.2 or later is needed")
    finally:
        process.kill()
        process.wait()


def test_rabbitmq_refuses_credentials_vhost_or_exchange(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    cameras = [{"id": "cam1", "url": "test://"}]
    redis = {"address": redis_server.address}
    site.write(cameras=cameras, redis=redis, amqp_url=rabbitmq.url(vhost, password="geheim"))
    refused(site, "check user and password")
    site.write(cameras=cameras, redis=redis, amqp_url=rabbitmq.url("no-such-vhost"))
    refused(site, "check the vhost")
    connection = rabbitmq.connect(vhost)
    connection.channel().exchange_declare("camera.metadata", exchange_type="topic", durable=False)
    connection.close()
    site.write(cameras=cameras, redis=redis, amqp_url=rabbitmq.url(vhost))
    refused(site, "is not durable (406); set `metadata.exchange_durable = false`, or delete it once (`rabbitmqadmin ")


def test_a_broker_that_is_only_away_is_no_reason_not_to_start(site: Site, redis_server: RedisServer) -> None:
    site.write(
        cameras=[{"id": "cam1", "url": "test://"}],
        redis={"address": redis_server.address},
        amqp_url=f"amqp://guest:geheim@127.0.0.1:{free_port()}/away",
    )
    site.start()
    wait_until(lambda: site.total("stored") > 30, 30, "frames are stored")
    assert site.stop() == 0
    assert "rabbitmq is away" in site.log_text()
    assert "geheim" not in site.log_text()


def test_a_live_site_holds_its_run_directory(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}], redis={"address": redis_server.address})
    site.start()
    assert site.process is not None
    for arguments in (["run"], ["clean"], ["writer"], ["capture", "cam1"]):
        done = command(*arguments, "-c", str(site.file))
        assert done.returncode == 2, arguments
        assert f"pid {site.process.pid}" in done.stderr
        assert done.stderr.count("\n") == 1
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 10, 30, "the site runs on")
    assert site.stop() == 0


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A shared-memory file system of 20 MiB."""
    mount = tmp_path / "shm"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_shared_memory_too_small_says_need_have_and_the_ways_out(
    site: Site, redis_server: RedisServer, small_memory: Path
) -> None:
    assert os.geteuid() == 0, "mounting needs root"
    site.write(
        cameras=[{"id": f"cam{number}", "url": "test://"} for number in range(4)],
        redis={"address": redis_server.address},
        ring={"directory": str(small_memory)},
    )
    refused(site, f"{small_memory} is too small: 4 cameras need ")
    done = command("check", "-c", str(site.file))
    assert done.returncode == 2
    for words in ("are free", "remount,size=", "lower ring.capacity_mb"):
        assert words in done.stderr
    site.write(
        cameras=[{"id": "cam1", "url": "test://?frames=20"}],
        redis={"address": redis_server.address},
        ring={"directory": str(small_memory)},
    )
    site.start()
    wait_until(lambda: site.total("stored") == 20, 30, "a site that fits runs there")
    assert site.stop() == 0
