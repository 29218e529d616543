"""The web role among the others: where it listens, what it refuses, what it shows, how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from engine.cli.demo_site import free_address
from engine.config import WebSection
from engine.wire.listen import parse_listen
from tests.servers.certificate import self_signed
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import COMMAND, ROOT, Site, command

TOKEN, SHOP, BANK = "operator-token-0123456789", "shop-token-0123456789", "bank-token-0123456789"
CAMERA = {"id": "cam1", "url": "test://?size=320x240&kb=10&fps=10"}
#: Credentials of cameras: none of them may be in any answer.
SECRETS = ("s3cr3t-rtsp", "s3cr3t-http", "s3cr3t-query", "s3cr3t-redis", "rtsp-user", "http-user")


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


def fetch(port: int, path: str, *, method: str = "GET", body: str = "", tls: Any = None, **headers: str) -> Answer:
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=tls)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, names)
        return Answer(connection.getresponse())


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        return fetch(port, "/live").status == 200
    return False


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def token_file(directory: Path, text: str = TOKEN, mode: int = 0o600, name: str = "token") -> str:
    file = directory / name
    file.write_text(text + "\n")
    file.chmod(mode)
    return str(file)


def test_what_may_not_listen_starts_nothing(site: Site) -> None:
    for web, said in (
        ({"listen": "0.0.0.0:0"}, "needs a token"),
        ({"listen": "0.0.0.0:0", "token": "short"}, "16 to 512 characters, not 5"),
        ({"listen": "127.0.0.1:0", "tls_certificate_file": "/dev/null"}, "give both or neither"),
    ):
        site.write(cameras=[CAMERA], web=web)
        done = command("run", "-c", str(site.file))
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
        assert not Path(site.directory / "s").exists()


def test_no_token_is_shown(site: Site) -> None:
    """Not in check, the saved configuration, the log or an error; in the environment neither."""
    port = free_port()
    site.write(cameras=[CAMERA], web={"listen": f"0.0.0.0:{port}", "token": TOKEN})
    with site.file.open("a") as file:
        file.write(f'[web.tenants]\nshop = "{SHOP}"\n')
    text = site.file.read_text()
    tenants = f'[web.tenants]\nshop = "{SHOP}"\n'
    site.file.write_text(text.replace(tenants, "").replace("[redis]", f"{tenants}\n[redis]"))
    shown = command("check", "-c", str(site.file))
    assert (shown.returncode, TOKEN in shown.stdout, SHOP in shown.stdout) == (0, False, False), shown.stderr
    assert "plain text" in shown.stdout + shown.stderr
    site.start()
    saved = (site.paths.directory / "site.json").read_text()
    assert '"tenants":{"shop":"***"}' in saved
    differs = command("status", "-c", str(site.file))
    assert "changed" not in differs.stdout
    wait_until(lambda: listens(port), 20, "it listens")
    answers = [fetch(port, path, **bearer(TOKEN)).body for path in ("/api/v1/status", "/api/v1/cameras", "/")]
    assert fetch(port, "/api/v1/status").status == 401
    for found in (saved, site.log_text(), *map(str, answers), shown.stdout, str(site.status())):
        assert TOKEN not in found
        assert SHOP not in found
    assert site.stop() == 0


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def secret_site(port: int) -> Iterator[Site]:
    """A site on a Redis, with tokens of two tenants, and cameras whose addresses have credentials and that fail."""
    top = Path(tempfile.mkdtemp(prefix="ev-web-"))
    directory = top / "site"
    site = Site(directory, warm=True)
    server = RedisServer(top / "redis")
    server.__enter__()
    closed = free_port()
    tenants = token_file(directory, f'shop = "{SHOP}"\nbank = "{BANK}"', name="tenants.toml")
    site.write(
        cameras=[
            CAMERA,
            {"id": "door", "url": f"rtsp://rtsp-user:s3cr3t-rtsp@127.0.0.1:{closed}/live"},
            {"id": "gate", "url": f"http://http-user:s3cr3t-http@127.0.0.1:{closed}/mjpg?token=s3cr3t-query"},
            {"id": "a/b <img src=x>", "url": "test://?size=320x240&kb=10&fps=5"},
        ],
        redis={"address": server.address},
        amqp_url=f"amqp://shop-user:s3cr3t-redis@127.0.0.1:{closed}/shop",
        web={"listen": f"127.0.0.1:{port}", "token_file": token_file(directory), "tenants_file": tenants},
    )
    try:
        site.start()
        wait_until(lambda: listens(port), 20, "it listens", log=site.log_text)
        wait_until(lambda: site.camera("cam1")["stored"] > 3, 20, "frames are stored", log=site.log_text)
        yield site
    finally:
        site.end()
        server.__exit__(None, None, None)
        shutil.rmtree(top, ignore_errors=True)


def paths_of(site: Site) -> list[str]:
    """All paths of the application, with a camera in the place of each parameter."""
    from engine.web.app import ROUTES

    paths = [getattr(route, "path", "") for route in ROUTES]
    found = [path.replace("{camera}", camera) for path in paths for camera in ("cam1", "door", "gate", "nobody")]
    return [path.partition("{")[0] for path in dict.fromkeys(found) if not path.endswith((".mjpeg", ".mp4", "events"))]


def test_no_answer_has_credentials(secret_site: Site, port: int) -> None:
    wait_until(lambda: secret_site.camera("gate")["last_error"] != "", 30, "it failed", log=secret_site.log_text)
    paths = paths_of(secret_site)
    assert len(paths) > 8
    for path in paths:
        for headers in (bearer(TOKEN), bearer(SHOP), {}):
            answer = fetch(port, path, **headers)
            assert answer.status != 500, path
            for secret in (*SECRETS, TOKEN, SHOP, BANK):
                assert secret.encode() not in answer.body, (path, secret)
                assert secret not in str(answer.headers), (path, secret)


def test_tenants_see_their_own(secret_site: Site, port: int) -> None:
    assert fetch(port, "/api/v1/cameras/cam1/latest.jpg").status == 401
    own = fetch(port, "/api/v1/cameras/cam1/latest.jpg", **bearer(SHOP))
    assert (own.status, own.body[:2]) == (200, b"\xff\xd8")
    assert fetch(port, "/api/v1/cameras/cam1/latest.jpg", **bearer(TOKEN)).body[:2] == b"\xff\xd8"
    # The same camera of another tenant has no frame, and the answer shows none of ours.
    other = fetch(port, "/api/v1/cameras/cam1/latest.jpg", **bearer(BANK))
    assert other.status == 404
    key = quote(str(own.headers["x-frame-key"]), safe="")
    assert fetch(port, f"/api/v1/frames/{key}", **bearer(SHOP)).body[:2] == b"\xff\xd8"
    for path in (f"/api/v1/frames/{key}", *(f"/api/v1/cameras/cam1/{name}" for name in ("at.jpg", "stream.mjpeg"))):
        stolen = fetch(port, path, **bearer(BANK))
        assert (stolen.status in (403, 404, 422), stolen.body[:2] == b"\xff\xd8") == (True, False), path
    assert not fetch(port, "/api/v1/cameras/cam1/frames", **bearer(BANK)).json().get("frames")
    for path in ("/api/v1/status", "/api/v1/servers", "/api/v1/alerts"):
        assert fetch(port, path, **bearer(SHOP)).status == 403, path
    assert b"edge_video_process" not in fetch(port, "/metrics", **bearer(SHOP)).body
    assert fetch(port, "/metrics", **bearer(BANK)).status == 403
    assert not fetch(port, "/api/v1/cameras", **bearer(BANK)).json()["cameras"]
    assert len(fetch(port, "/api/v1/cameras", **bearer(SHOP)).json()["cameras"]) == 4
    assert fetch(port, "/api/v1/status", **bearer(TOKEN)).json()["running"]


def test_a_log_in_survives_a_restart_of_the_process(secret_site: Site, port: int) -> None:
    answer = fetch(port, "/login", method="POST", body=f"token={TOKEN}", origin=f"http://127.0.0.1:{port}")
    assert answer.status == 303
    cookie = str(answer.headers["set-cookie"]).partition(";")[0]
    assert fetch(port, "/api/v1/status", cookie=cookie).status == 200
    secret_site.kill("web")
    wait_until(lambda: listens(port), 20, "it listens again")
    assert fetch(port, "/api/v1/status", cookie=cookie).status == 200
    out = fetch(port, "/logout", method="POST", cookie=cookie)
    assert (out.status, "Max-Age=0" in str(out.headers["set-cookie"])) == (303, True)


def test_status_tells_where_it_listens(secret_site: Site, port: int) -> None:
    (web,) = [process for process in secret_site.status()["processes"] if process["role"] == "web"]
    assert web["note"] == f"http://127.0.0.1:{port}/"
    assert f"web: http://127.0.0.1:{port}/" in command("status", "-c", str(secret_site.file)).stdout


def test_another_machine_has_frames_and_no_counters(secret_site: Site, port: int, tmp_path: Path) -> None:
    """The same names on another machine: another run directory, another shared memory. Then on the site's own."""
    there = free_port()
    elsewhere = tmp_path / "elsewhere.toml"
    text = secret_site.file.read_text()
    elsewhere.write_text(text.replace(str(secret_site.directory / "s"), str(tmp_path / "run")))
    with _web(elsewhere, there, tmp_path) as process:
        assert fetch(there, "/api/v1/cameras/cam1/latest.jpg", **bearer(SHOP)).body[:2] == b"\xff\xd8"
        assert fetch(there, "/api/v1/status", **bearer(TOKEN)).status == 404
        # A second one of the same site does not start.
        second = command("web", "-c", str(elsewhere), "--listen", f"127.0.0.1:{free_port()}")
        assert second.returncode == 2, second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert command("web", "-c", str(elsewhere), "--listen", "0.0.0.0:x").returncode == 2
    done = command("web", "-c", str(secret_site.file), "--listen", f"127.0.0.1:{there}")
    assert (done.returncode, "in use" in done.stderr) == (2, True), done.stderr


@contextlib.contextmanager
def _web(file: Path, port: int, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = [*COMMAND, "web", "-c", str(file), "--listen", f"127.0.0.1:{port}"]
    with (directory / "web.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=ROOT, env={**os.environ}, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), 30, "it listens", log=(directory / "web.log").read_text)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_waited_for_and_streams_do_not_hold_up_a_stop(site: Site) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        site.write(cameras=[CAMERA], web={"listen": f"127.0.0.1:{port}"})
        site.start()
        wait_until(lambda: "cannot listen for HTTP" in site.log_text(), 20, "it says so", log=site.log_text)
        wait_until(lambda: site.camera("cam1")["stored"] > 3, 20, "the site runs all the same")
        (web,) = [process for process in site.status()["processes"] if process["role"] == "web"]
        assert (web["alive"], "cannot listen on" in web["note"]) == (True, True)
        assert not site.status()["troubles"]
    wait_until(lambda: listens(port), 20, "it listens once it can")
    assert site.log_text().count("cannot listen for HTTP") == 1
    streams = [_stream(port) for _ in range(10)]
    for stream in streams:
        assert stream.recv(1024).startswith(b"HTTP/1.1 200 ")
    pid = site.pid("web")
    began = time.monotonic()
    assert site.stop() == 0
    # Without an end of its own, each would have to be cut off when the process is killed.
    assert "cannot continue" not in site.log_text()
    assert "error in the HTTP server" not in site.log_text()
    assert not Path(f"/proc/{pid}").exists()
    assert time.monotonic() - began < site.config.site.drain_seconds
    for stream in streams:
        while stream.recv(65_536):
            pass
        stream.close()


def _stream(port: int) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", port), 20)
    stream.sendall(b"GET /api/v1/cameras/cam1/stream.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return stream


def test_under_tls_nothing_is_plain(site: Site, tmp_path: Path) -> None:
    port, signed = free_port(), self_signed(tmp_path)
    files = {"tls_certificate_file": str(signed.certificate), "tls_key_file": str(signed.key)}
    site.write(cameras=[CAMERA], web={"listen": f"localhost:{port}", "token_file": token_file(tmp_path), **files})
    site.start()
    trusting = ssl.create_default_context(cafile=str(signed.certificate))

    def listening() -> bool:
        with contextlib.suppress(OSError):
            return fetch(port, "/live", tls=trusting).status == 200
        return False

    wait_until(listening, 20, "it listens", log=site.log_text)
    answer = fetch(port, "/login", method="POST", body=f"token={TOKEN}", tls=trusting)
    assert "max-age" in str(answer.headers["strict-transport-security"])
    assert str(answer.headers["set-cookie"]).startswith("__Host-edge-video-")
    assert "Secure" in str(answer.headers["set-cookie"])
    old = ssl.create_default_context(cafile=str(signed.certificate))
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        fetch(port, "/live", tls=old)
    with pytest.raises((OSError, http.client.HTTPException)):
        fetch(port, "/live")
    assert "plain text" not in site.log_text()
    assert site.stop() == 0


def test_a_unix_socket_is_its_user_s_alone_and_replaced_after_a_kill(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    site.write(cameras=[CAMERA], web={"listen": f"unix:{path}"})
    site.start()

    def live() -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /live HTTP/1.0\r\n\r\n")
            return client.recv(65_536).startswith(b"HTTP/1.1 200")
        return False

    wait_until(live, 20, "it listens", log=site.log_text)
    assert path.stat().st_mode & 0o777 == 0o600
    site.kill("web")
    wait_until(live, 20, "it listens again", log=site.log_text)
    assert site.stop() == 0


def test_a_demo_takes_another_port_where_the_usual_one_is_taken() -> None:
    usual = WebSection().address
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            # Else somebody has it already.
            stack.enter_context(socket.create_server((usual.host, usual.port)))
        address = parse_listen(free_address())
        assert (address.host, address.private) == (usual.host, True)
        assert address.port not in (0, usual.port)
    port = parse_listen(free_address()).port
    with socket.create_server((usual.host, port)):
        pass
