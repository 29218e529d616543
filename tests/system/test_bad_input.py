"""Bad input: one clear error, exit code 2, nothing started, nothing left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.cli.demo import demo_site
from engine.config import read_toml
from engine.runtime.limits import files_needed
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import COMMAND, ROOT, Site, command

CAMERA = '\n[[cameras]]\nid = "cam1"\nurl = "test://"\n'
BROKER = '[amqp]\namqp_url = "%s"\n' + CAMERA

FILES = {
    "syntax": ("[redis\n", "line 1"),
    "unknown key": ("[redis]\nttl_second = 3\n" + CAMERA, "did you mean 'ttl_seconds'"),
    "wrong type": ('[redis]\nttl_seconds = "long"\n' + CAMERA, "redis.ttl_seconds must be a whole number, not text"),
    "twice": (CAMERA + CAMERA, "'cam1' stands twice"),
    "no cameras": ("[redis]\nttl_seconds = 3\n", "no cameras"),
    "vhost": ('[amqp]\namqp_url = "amqp://u:geheim@localhost/engine"\n' + CAMERA, "vhost 'engine' is reserved"),
    "zero ttl": (
        "[redis]\nttl_seconds = 0\n" + CAMERA,
        "redis.ttl_seconds must be a whole number of at least 1, not 0",
    ),
    "negative fps": (CAMERA + "fps = -1\n", "cam1).fps must be a number of at least 0.0001, not -1"),
    "zero size": (CAMERA + "width = 0\nheight = 0\n", "cam1).width must be a whole number of at least 16, not 0"),
    "quality": (CAMERA + "quality = 101\n", "cam1).quality must be a whole number of at most 100, not 101"),
    "scheme": (CAMERA.replace("test://", "gopher://x"), "unsupported URL scheme 'gopher'"),
    "small ring": (CAMERA.replace("test://", "test://?kb=9000"), "raise ring.capacity_mb to 18 or more"),
    "no password": (BROKER % "amqp://user@h/", "amqp.amqp_url has a user without a password; write both, with a colon"),
    "heartbeat": (BROKER % "amqp://u:geheim@h/v?heartbeat=abc", "in place of heartbeat set amqp.heartbeat_seconds"),
    "parameter": (BROKER % "amqp://u:geheim@h/v?foo=1", "has query parameters: foo, which are not read; remove them"),
    "frame_max": (BROKER % "amqp://u:geheim@h/v?frame_max=1", "has query parameters: frame_max"),
    "repeated": (BROKER % "amqp://u:geheim@h/v?heartbeat=1&heartbeat=2", "has query parameters: heartbeat,"),
    "ssl_options": (BROKER % "amqp://u:geheim@h/v?ssl_options=1", "in place of ssl_options set amqp.tls_ca_file"),
    "slash behind": (BROKER % "amqp://u:geheim@h/a/", "write a / in a vhost as %2F, and none at its end"),
    "two segments": (BROKER % "amqp://u:geheim@h/a/b", "write a / in a vhost as %2F"),
    "semicolon": (BROKER % "amqp://u:geheim@h/a;b", "has a ; in its path, which is the vhost; write it as %3B"),
    "default": (BROKER % "amqp://u:geheim@h/default", "vhost 'default', which stands in keys for the broker's default"),
    "exchange": (
        '[metadata]\nexchange = "' + "é" * 128 + '"\n' + CAMERA,
        "metadata.exchange has 256 bytes in UTF-8, at mo",
    ),
    "routing key": (
        '[metadata]\nrouting_key = "' + "é" * 124 + 'a"\n' + CAMERA,
        "with .status behind it has 256 bytes in UTF-8",
    ),
    "line end": ('[metadata]\nexchange = "a\\n"\n' + CAMERA, "metadata.exchange holds the control character"),
    "zero byte": (CAMERA.replace("cam1", "cam\\u0000"), "cameras[0].id holds a zero byte (\\u0000); remove it"),
    "zero byte in a path": ('[redis]\ntls_ca_file = "/a\\u0000"\n' + CAMERA, "redis.tls_ca_file holds a zero byte"),
    "tiny fps": (CAMERA + "fps = 1e-300\n", "cam1).fps must be a number of at least 0.0001, not 1e-300"),
    "no scheme": (CAMERA.replace("test://", "192.168.1.5/stream"), "write 'rtsp://192.168.1.5/stream'"),
    "a login and no scheme": (CAMERA.replace("test://", "u:geheim@cam:554/s"), "write 'rtsp://***@cam:554/s'"),
    "server name": (
        '[redis]\naddress = "rediss://h"\ntls_server_name = "a..b"\n' + CAMERA,
        "redis.tls_server_name: 'a..b'",
    ),
}
PROFILES = {
    "not UTF-8": (b"\xff", "is not UTF-8: byte 0 is 0xff"),
    "syntax": (b"[ring\n", "is not TOML"),
    "defaults": (b"defaults = 5\n", "defaults must be a table, not a whole number"),
    "cameras": (b"cameras = 5\n", "cameras must be a list, not a whole number"),
    "no id": (b"[[cameras]]\n", "cameras[0] lacks the key id"),
    "capacity": (b'[ring]\ncapacity_mb = "x"\n', "ring.capacity_mb must be a whole number, not text"),
    "redis": (b"redis = 5\n", "redis must be a table, not a whole number"),
    "ttl": (b'[redis]\nttl_seconds = "x"\n', "redis.ttl_seconds must be a whole number, not text"),
    "fps": (b"[defaults]\nfps = 1e-300\n", "defaults.fps must be a number of at least 0.0001"),
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


@pytest.mark.parametrize("name", PROFILES)
def test_a_bad_profile_is_one_line_and_exit_code_2(name: str, tmp_path: Path) -> None:
    data, message = PROFILES[name]
    file = tmp_path / "profile.toml"
    file.write_bytes(data)
    done = command("demo", "--profile", str(file), "--seconds", "1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"profile {file}: " in done.stderr
    assert message in done.stderr
    assert done.stdout == ""


def test_a_demo_adds_cameras_beside_those_of_its_profile(tmp_path: Path) -> None:
    document = read_toml(b'[[cameras]]\nid = "cam2"\nurl = "rtsp://h/"\n[[cameras]]\nid = "cam3"\nurl = "rtsp://h/"\n')
    made = demo_site(document, tmp_path, 4, None, None, 60, None)
    assert [camera.id for camera in made.cameras] == ["cam2", "cam3", "cam1", "cam4"]


#: Python's own way out, a locale of UTF-8, is shut.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}


def test_a_path_that_the_locale_has_not_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    for text, key in (
        (f'[site]\nrun_directory = "{tmp_path}/é"\n{CAMERA}', "site.run_directory"),
        (f'[ring]\ndirectory = "{tmp_path}/é"\n{CAMERA}', "ring.directory"),
        (CAMERA.replace("test://", "clips/é.mp4"), "cam1): url"),
    ):
        file.write_text(text)
        for verb in ("check", "run"):
            done = command(verb, "-c", str(file), environment=ASCII)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert key in done.stderr
            assert "cannot be written in this process's encoding (ascii)" in done.stderr
            assert "LC_ALL=C.UTF-8" in done.stderr


def test_names_that_the_locale_has_not_are_shown_all_the_same(site: Site) -> None:
    site.environment = ASCII
    site.write(cameras=[{"id": "câm", "name": "Câmera", "url": "test://?size=64x48&kb=9"}], ring={"capacity_mb": 1})
    site.start()
    wait_until(lambda: site.total("stored") > 5, 30, "frames are stored")
    for verb in ("check", "status"):
        done = command(verb, "-c", str(site.file), environment=ASCII)
        assert (done.returncode, done.stderr) == (0, "")
        assert "c\\xe2m" in done.stdout
    for arguments in (["check", "--json"], ["status", "--json"], ["frames", "list", "--json"]):
        done = command(*arguments, "-c", str(site.file), environment=ASCII)
        assert (done.returncode, done.stderr) == (0, "")
        assert "câm" in done.stdout
    assert site.stop() == 0


@pytest.mark.parametrize("files", [8, 20, 63, 71])
def test_too_few_open_files_are_one_error_before_anything_starts(files: int, site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}])
    for verb in ("check", "run", "capture cam1"):
        script = f"ulimit -n {files}; exec {' '.join(COMMAND)} {verb} -c {site.file}"
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"open files and may have {files}; raise the limit (ulimit -n" in done.stderr
        assert done.stdout == ""
    assert not site.paths.directory.exists()


def test_a_soft_limit_of_open_files_is_raised_to_what_the_site_needs(site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}])
    site.command = ["bash", "-c", f'ulimit -S -n 30; exec {" ".join(COMMAND)} "$@"', "bash"]
    site.start()
    assert site.process is not None
    assert psutil.Process(site.process.pid).rlimit(psutil.RLIMIT_NOFILE)[0] == files_needed(site.config)
    wait_until(lambda: site.total("stored") > 5, 30, "frames are stored")
    assert site.stop() == 0


@pytest.mark.parametrize(("limit", "words"), [("-v 60000", "too little memory"), ("-v 200000", "too little memory"),
                                              ("-f 600", "more than this process may write to one file")])  # fmt: skip
def test_too_little_memory_or_room_in_a_file_is_one_error(limit: str, words: str, site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://?size=64x48&kb=9"}], ring={"capacity_mb": 1})
    script = f"ulimit {limit}; exec {' '.join(COMMAND)} run -c {site.file}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert "raise the limit" in done.stderr
    assert "Traceback" not in done.stderr
    assert not site.paths.directory.exists()


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
    refused(site, "is not durable; set `metadata.exchange_durable = false`, or delete it once (`rabbitmqadmin ")


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
