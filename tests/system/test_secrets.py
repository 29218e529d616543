"""Secrets show nowhere: every error that has one at hand is provoked, and everything that came of it is searched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import psutil
import pytest
import redis

from engine.config import ENVIRONMENT, SECTIONS
from engine.jobs.tenants import acl_rules
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.consumer import Consumer
from tests.system.site import ROOT, Site, command

#: Each stands in one place, so that what leaks says from where. None is part of a word that may be shown.
WRITER = "sEcret-writer-q1"
PUBLISHER = "sEcret-publisher-q2"
#: With characters that a URL must have encoded.
BROKER = "sEcret/br@ker#q3"
CAMERA = "sEcret-camera-q4"
SPECIAL = "sEcret:c@m&q5"
TOKEN = "sEcret-token-q6"
REFUSED = "sEcret-refused-q7"
UNAUTHORISED = "sEcret-unauthorised-q8"
WRONG = "sEcret-wrong-q9"
ALL = (WRITER, PUBLISHER, BROKER, CAMERA, SPECIAL, TOKEN, REFUSED, UNAUTHORISED, WRONG)


def spellings(secret: str) -> set[bytes]:
    """A secret as it may turn up: as it is, encoded for a URL in part or in whole, quoted by Python or JSON."""
    texts = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        unquote(secret),
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
    }
    return {text.encode() for text in texts}


def leaks(where: str, data: bytes) -> list[str]:
    """Each secret in ``data``, with what stands around it."""
    found = []
    for secret in ALL:
        for text in spellings(secret):
            at = data.find(text)
            if at >= 0:
                found.append(f"{where}: {secret} in {data[max(at - 80, 0) : at + 60]!r}")
    return found


@pytest.fixture
def refusing_http() -> Iterator[str]:
    """An HTTP camera that answers 401, and says back whatever it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Basic realm="{self.path}"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_after_every_error_no_secret_is_anywhere(
    site: Site, short_path: Path, rabbitmq: RabbitMQ, vhost: str, refusing_http: str
) -> None:
    user = "secretive"
    rabbitmq.add_user(user, BROKER, vhost)
    found: list[str] = []
    with (
        RedisServer(short_path / "redis", username="root", password="administers") as server,
        MjpegCamera(make_jpegs(5), mode="silent") as silent,
        MjpegCamera(make_jpegs(5), mode="garbage") as garbage,
        Consumer(rabbitmq, vhost) as consumer,
    ):
        admin = server.client()
        for name, password in (("writer", WRITER), ("publisher", PUBLISHER)):
            admin.execute_command("ACL", "SETUSER", name, *acl_rules(vhost, [name], password))  # type: ignore[list-item]
        login = f"://user:{quote(SPECIAL, safe='')}@"
        patience = {"stall_seconds": 1.0, "open_timeout_seconds": 1.0}
        cameras = {
            "good": "test://?fps=10&kb=10&size=320x240",
            "silent": silent.url.replace("://", f"://user:{CAMERA}@"),
            "garbage": f"{garbage.url.replace('://', login)}?access_token={TOKEN}",
            "refused": f"rtsp://user:{REFUSED}@127.0.0.1:{free_port()}/stream",
            "unauthorised": f"http://user:{UNAUTHORISED}@{refusing_http}/video?password={UNAUTHORISED}",
        }
        site.environment = {
            "REDIS_PASSWORD": WRITER,
            "AMQP_URL": rabbitmq.url(vhost, user, BROKER),
        }
        site.write(
            cameras=[{"id": name, "url": url, **patience} for name, url in cameras.items()],
            redis={
                "address": server.address, "username": "writer", "timeout_seconds": 1.0,
                "publisher_username": "publisher", "publisher_password": PUBLISHER,
            },
            amqp={"timeout_seconds": 2.0},
            site={"heartbeat_seconds": 5.0, "log_level": "debug"},
        )  # fmt: skip
        site.start()
        bad = [name for name in cameras if name != "good"]
        wait_until(lambda: all(site.camera(name)["last_error"] for name in bad), 30, "each bad camera has failed")
        # Servers that change their minds under a running site.
        for name in ("writer", "publisher"):
            admin.execute_command("ACL", "SETUSER", name, "resetpass", ">another")
            admin.execute_command("CLIENT", "KILL", "USER", name)
        wait_until(lambda: site.log_text().count("refuses the credentials") >= 2, 30, "Redis lets neither in")
        rabbitmq.change_password(user, "another")
        rabbitmq.eval('rabbit_networking:close_all_connections("rotated")')
        wait_until(lambda: "refused the user and password" in site.log_text(), 30, "RabbitMQ does not let it in")
        found += running(site)
        for name in ("status", "check", "doctor"):
            for form in ([], ["--json"]):
                done = command(name, "-c", str(site.file), *form, environment=site.environment)
                found += leaks(f"{name} {form}", (done.stdout + done.stderr).encode())
        rabbitmq.change_password(user, BROKER)
        for name, password in (("writer", WRITER), ("publisher", PUBLISHER)):
            admin.execute_command("ACL", "SETUSER", name, "resetpass", f">{password}")
        wait_until(lambda: all(consumer.statuses(name) for name in bad), 60, "states are announced")
        wait_until(consumer.frames, 30, "frames are announced")
        assert site.stop() == 0
        found += stored(admin)
        for name in bad:
            found += leaks(f"events of {name}", json.dumps(consumer.statuses(name), ensure_ascii=False).encode())
        found += leaks("events", json.dumps(consumer.frames()).encode())
    found += leaks("log", site.log.read_bytes())
    assert not found, "\n".join(found)


def running(site: Site) -> list[str]:
    """What anyone on the machine, or its files, could tell of a running site."""
    assert site.process is not None
    supervisor = psutil.Process(site.process.pid)
    found = []
    for process in [supervisor, *supervisor.children(recursive=True)]:
        for file in ("cmdline", "comm", "stat", "status"):
            found += leaks(f"/proc {file}", Path(f"/proc/{process.pid}/{file}").read_bytes())
        # Core files would hold everything: none is written.
        assert process.rlimit(psutil.RLIMIT_CORE)[0] <= 1
    for directory in (site.config.run_directory, site.paths.directory):
        for path in directory.iterdir():
            if path.is_file():
                found += leaks(str(path), path.read_bytes())
    return found


def stored(admin: redis.Redis) -> list[str]:
    """All that Redis holds but the frames' pictures."""
    found = []
    for key in admin.scan_iter(count=1000):
        found += leaks("a key", key)
        kind = admin.type(key)
        if kind == b"hash":
            found += leaks(key.decode(), repr(admin.hgetall(key)).encode())
        elif kind == b"stream":
            found += leaks(key.decode(), repr(admin.xrange(key)).encode())
        elif key.startswith(b"engine:"):
            found += leaks(key.decode(), admin.get(key) or b"")
    return found


@pytest.mark.parametrize("where", ["capture", "thread"])
def test_what_nobody_expects_is_told_without_secrets(site: Site, short_path: Path, where: str) -> None:
    site.command = [sys.executable, "-m", "tests.system.crashing", where]
    with RedisServer(short_path / "redis", password=WRITER) as server:
        url = f"http://user:{CAMERA}@127.0.0.1:{free_port()}/video"
        site.write(cameras=[{"id": "cam1", "url": url}], redis={"address": server.address, "password": WRITER})
        site.start()
        wait_until(lambda: "RuntimeError: cannot " in site.log_text(), 30, "it has crashed, and says of what")
        assert "Traceback" in site.log_text()
        site.end()
    assert "***" in site.log_text()
    assert not leaks("log", site.log.read_bytes())


#: Variables that the engine reads, but for addresses and names of users.
SECRET_VARIABLES = sorted(
    name
    for name, (section, key) in ENVIRONMENT.items()
    if SECTIONS[section].__annotations__[key] == "Secret" and not key.endswith("username")
)


@pytest.mark.parametrize("variable", SECRET_VARIABLES)
def test_a_crash_tells_no_secret_of_the_environment(variable: str, tmp_path: Path) -> None:
    value = f"amqp://user:{quote(BROKER, safe='')}@host/x" if variable.endswith("URL") else WRITER
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.crashing", "command", "check", "-c", str(tmp_path / "site.toml")],
        cwd=ROOT,
        env={**os.environ, variable: value},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"RuntimeError: cannot make sense of" in done.stderr
    assert variable.encode() in done.stderr
    assert not leaks("standard error", done.stdout + done.stderr)


def test_each_password_and_url_of_the_environment_is_among_them() -> None:
    assert {"AMQP_URL", "REDIS_PASSWORD", "REDIS_PUBLISHER_PASSWORD", "REDIS_SENTINEL_PASSWORD"} <= set(
        SECRET_VARIABLES
    )


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("amqp", "amqp_url", f"amqp://user:{WRONG}@host:port:5672/x"),
        ("amqp", "amqp_url", f"user:{WRONG}@host/x"),
        ("redis", "address", f"redis://:{WRONG}@host:port"),
        ("redis", "address", f"reddis://user:{WRONG}@host"),
        ("redis", "password", [WRONG]),
        ("cameras", "url", f"rtps://user:{WRONG}@host/x"),
        ("cameras", "url", f"test://user:{WRONG}@host?size=1"),
        ("redis", "address", f"redis://user:{WRONG}@192.0.2.1:1"),
    ],
)
def test_an_error_in_the_site_file_does_not_repeat_its_secret(
    tmp_path: Path, section: str, key: str, value: object
) -> None:
    tables: dict[str, dict[str, object]] = {"cameras": {"id": "cam1", "url": "test://"}}
    tables.setdefault(section, {})[key] = value
    lines = [
        f"[site]\nrun_directory = '{tmp_path / 'run'}'\n[redis]\ntimeout_seconds = 0.2" if "redis" not in tables else ""
    ]
    for name, table in tables.items():
        lines.append("[[cameras]]" if name == "cameras" else f"[{name}]")
        lines += [f"{word} = {json.dumps(text)}" for word, text in table.items()]
        lines += ["timeout_seconds = 0.2"] if name == "redis" else []
    file = tmp_path / "site.toml"
    file.write_text("\n".join(lines))
    done = command("run", "-c", str(file))
    assert done.returncode == 2
    assert done.stderr
    assert not leaks("error", (done.stdout + done.stderr).encode())
