"""``edge-video fleet status``: many APIs side by side, among them some that do not answer as they should."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.tls import client_context
from engine.errors import WireError
from engine.fleet.answers import status_of
from engine.fleet.asking import Asked, ask_all
from engine.fleet.http_get import ANSWER_BYTES_MAX
from engine.wire.api_url import parse_api_url
from engine.wire.redis_address import TlsFiles
from tests.examples import examples
from tests.servers.certificate import Authority
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, command

TOKEN = "a-token-of-this-fleet"
HEALTH = b'{"status":"ok"}'
REPORT = json.dumps(
    {
        "site": "shop",
        "running": True,
        "uptime_seconds": 90_000.0,
        "version": "0.1.0",
        "cameras": [
            {"id": "a", "state": "active", "fps": 12.5, "dropped": {"outage": 2}, "video": {"dropped": {"lost": 1}}},
            {"id": "b", "state": "offline", "fps": 0.0, "dropped": {}, "video": None},
        ],
        "publisher": {"lag_seconds": 0.25},
        "troubles": [],
    }
).encode()


class Served(NamedTuple):
    """A server of tests: its port, and the requests that it got."""

    port: int
    requests: list[bytes]

    @property
    def asked(self) -> Asked:
        return Asked("shop", parse_api_url(f"http://127.0.0.1:{self.port}", "url"), TOKEN)


@contextmanager
def serving(answer: Callable[[socket.socket, bytes], None], context: ssl.SSLContext | None = None) -> Iterator[Served]:
    """A server that calls ``answer`` with each connection and its request, in a thread for each; with ``context``, it
    speaks TLS."""
    with socket.create_server(("127.0.0.1", free_port()), backlog=500) as listener:
        served = Served(listener.getsockname()[1], [])

        def one(plain: socket.socket) -> None:
            with plain, suppress(OSError), context.wrap_socket(plain, True) if context else plain as connection:
                request = connection.recv(65_536)
                served.requests.append(request)
                answer(connection, request)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield served
        listener.shutdown(socket.SHUT_RDWR)


def body_of(request: bytes, report: bytes = REPORT) -> bytes:
    return HEALTH if request.startswith(b"GET /health ") else report


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
    return head.encode() + body


def chunked(body: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


GOOD: dict[str, Callable[[bytes], bytes]] = {
    "sized": whole,
    "chunked": chunked,
    "until-the-end": lambda body: b"HTTP/1.1 200 OK\r\n\r\n" + body,
}


@pytest.mark.parametrize("form", GOOD)
def test_an_answer_becomes_a_line_however_it_is_framed(form: str) -> None:
    with serving(lambda connection, request: connection.sendall(GOOD[form](body_of(request)))) as served:
        (found,) = ask_all([served.asked], 10, None)
    assert (found.name, found.state, found.reason) == ("shop", "ok", "")
    assert (found.cameras_active, found.cameras, found.fps, found.dropped) == (1, 2, 12.5, 3)
    assert (found.lag_seconds, found.version, found.age_seconds) == (0.25, "0.1.0", 90_000.0)
    assert sorted(request.split()[1] for request in served.requests) == [b"/api/v1/status", b"/health"]
    assert all(b"\r\nAuthorization: Bearer " + TOKEN.encode() in request for request in served.requests)


def dribble(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        threading.Event().wait(0.05)


def flood(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"y" * 65_536)


BAD: dict[str, tuple[Callable[[socket.socket, bytes], None], str]] = {
    "silent": (lambda connection, _: connection.recv(1) and None, "no answer within 1 s"),
    "drop-by-drop": (dribble, "no answer within 1 s"),
    "without-end": (flood, f"the answer has more than {ANSWER_BYTES_MAX:,} bytes"),
    "closed": (lambda connection, _: None, "the connection ended within the answer"),
    "half": (lambda connection, _: connection.sendall(whole(REPORT)[:-9]), "the connection ended within the answer"),
    "other-protocol": (lambda connection, _: connection.sendall(b"SSH-2.0-x\r\n"), "the answer is no HTTP"),
    "no-json": (lambda connection, _: connection.sendall(whole(b"<html>")), "the answer is no report of a site"),
    "deep": (lambda connection, _: connection.sendall(whole(b"[" * 9999)), "the answer is no report of a site"),
    "unknown-token": (lambda connection, _: connection.sendall(whole(b"", "401 No")), "the token is missing or wrong"),
    "tenant-token": (lambda connection, _: connection.sendall(whole(b"", "403 No")), "give web.token, not a tenant's"),
    "elsewhere": (lambda connection, _: connection.sendall(whole(b"", "404 No")), "no site runs beside its web role"),
    "busy": (
        lambda connection, _: connection.sendall(whole(b'{"detail":"too much waits"}', "503 Busy")),
        "status 503: too much waits",
    ),
    "echo": (
        lambda connection, _: connection.sendall(whole(f'{{"detail":"{TOKEN}"}}'.encode(), "500 X")),
        "status 500: ***",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_site_that_does_not_answer_well_is_away_and_the_line_says_why(case: str) -> None:
    answer, said = BAD[case]
    with serving(answer) as served:
        (found,) = ask_all([served.asked], 1 if "1 s" in said else 20, None)
    assert (found.state, said in found.reason) == ("away", True), found.reason
    assert TOKEN not in repr(found)


def test_a_certificate_of_another_host_or_authority_gets_no_token(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    trusting = client_context(TlsFiles(ca_file=str(ours.certificate)), "web")
    shown = {"good": ours.sign("good"), "elsewhere": ours.sign("elsewhere", "h"), "foreign": theirs.sign("foreign")}
    found = {}
    for name, signed in shown.items():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(signed.certificate, signed.key)

        def answer(connection: socket.socket, request: bytes) -> None:
            connection.sendall(whole(body_of(request)))

        with serving(answer, context) as served:
            asked = served.asked._replace(api=parse_api_url(f"https://localhost:{served.port}", "url"))
            (found[name],) = ask_all([asked], 20, trusting)
        assert bool(served.requests) == (name == "good")
    assert [site.state for site in found.values()] == ["ok", "away", "away"]
    assert "TLS: certificate verify failed: Hostname mismatch" in found["elsewhere"].reason
    assert "TLS: certificate verify failed: " in found["foreign"].reason


def test_a_token_follows_no_redirect() -> None:
    with serving(lambda connection, request: connection.sendall(whole(body_of(request)))) as thief:
        there = f"Location: http://127.0.0.1:{thief.port}/api/v1/status"
        with serving(lambda connection, _: connection.sendall(whole(b"", "302 Found", there))) as served:
            (found,) = ask_all([served.asked], 10, None)
    assert (found.state, found.reason) == ("away", "status 302")
    assert thief.requests == []


def test_all_are_asked_side_by_side_and_one_that_hangs_holds_up_nobody() -> None:
    sites = 40
    all_wait, all_answered = threading.Barrier(2 * sites), threading.Semaphore(0)

    def together(connection: socket.socket, request: bytes) -> None:
        # Nobody gets an answer before all have asked.
        all_wait.wait(60)
        connection.sendall(whole(body_of(request)))
        # Until the other side has what it wants.
        connection.recv(1)
        all_answered.release()

    def hang(connection: socket.socket, _: bytes) -> None:
        # It goes when the others are done, each of its two connections with half of them.
        for _ in range(sites):
            all_answered.acquire(timeout=60)

    with serving(together) as served, serving(hang) as silent:
        found = ask_all([silent.asked, *[served.asked] * sites], 60, None)
    assert [site.state for site in found] == ["away", *["ok"] * sites]


def test_a_name_server_that_is_silent_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up, answered = socket.getaddrinfo, threading.Semaphore(0)

    def getaddrinfo(host: str, *rest: Any, **named: Any) -> Any:
        if host.startswith("silent"):
            # It goes on when the other site has got both its answers.
            assert answered.acquire(timeout=60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(host, *rest, **named)

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(whole(body_of(request)))
        connection.recv(1)
        for _ in range(silent):
            answered.release()

    silent = 40
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    sites = [Asked("", parse_api_url(f"http://silent{number}.example", "url"), "") for number in range(silent)]
    with serving(answer) as served:
        local = Asked("shop", parse_api_url(f"http://localhost:{served.port}", "url"), "")
        found = ask_all([*sites, local], 60, None)
    assert [site.state for site in found] == [*["away"] * silent, "ok"]


def test_a_look_up_that_never_ends_does_not_keep_the_process() -> None:
    program = """
import socket, threading
socket.getaddrinfo = lambda *_, **named: threading.Event().wait()
from engine.fleet.asking import Asked, ask_all
from engine.wire.api_url import parse_api_url
sites = [Asked("", parse_api_url(f"http://silent{number}.example", "url"), "") for number in range(30)]
print(*{site.state for site in ask_all(sites, 0.1, None)})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "away\n", "")


def test_sites_that_hang_are_waited_for_side_by_side() -> None:
    sites = 150
    all_wait = threading.Barrier(2 * sites)

    def together(connection: socket.socket, request: bytes) -> None:
        # Each goes on when all are connected: none waits for another's timeout.
        all_wait.wait(60)
        connection.sendall(whole(body_of(request)))
        connection.recv(1)

    with serving(together) as served:
        found = ask_all([served.asked] * sites, 60, None)
    assert [site.state for site in found] == ["ok"] * sites


@settings(max_examples=examples(200), deadline=None)
@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["site", "running", "cameras", "id", "state", "video"]), inner, max_size=4
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_answer_is_a_status_or_refused(data: bytes) -> None:
    for report, health in ((data, HEALTH), (REPORT, data), (data, data)):
        with suppress(WireError):
            assert status_of("shop", "http://h", report, health).state in ("ok", "degraded", "down")


def test_another_site_at_the_address_is_not_well() -> None:
    found = status_of("other", "http://h", REPORT, HEALTH)
    assert (found.name, found.state, found.reason) == ("other", "degraded", "its site file calls it 'shop'")


# Real sites


@pytest.fixture(scope="module")
def shop() -> Iterator[Site]:
    """A site with a camera that works and one that does not, whose API wants a token."""
    path = Path(tempfile.mkdtemp(prefix="ev-"))
    site = Site(path / "run", warm=True)
    site.write(
        cameras=[
            {"id": "till", "url": "test://?size=320x240&fps=20&kb=10"},
            {"id": "dock", "url": f"http://127.0.0.1:{free_port()}/"},
        ],
        web={"listen": f"127.0.0.1:{free_port()}", "token": TOKEN},
        site={"name": "shop"},
    )
    try:
        site.start()
        wait_until(lambda: site.camera("till")["stored"] > 20, 60, "frames are stored")
        wait_until(lambda: site.camera("dock")["last_error"], 60, "the other camera's error is known")
        yield site
    finally:
        site.end()
    shutil.rmtree(path, ignore_errors=True)


def test_a_table_of_real_sites_fits_80_columns_and_the_exit_code_tells(shop: Site, tmp_path: Path) -> None:
    sites = tmp_path / "sites.toml"
    sites.write_text(
        f'[[sites]]\nname = "shop"\nurl = "http://{shop.config.web.listen}"\ntoken_file = "token"\n\n'
        f'[[sites]]\nname = "a-site-with-a-name-that-is-quite-a-bit-longer"\nurl = "http://127.0.0.1:{free_port()}"\n'
    )
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    wide = {"COLUMNS": "80"}
    wait_until(lambda: "degraded" in command("fleet", "status", str(sites)).stdout, 30, "the site answers")
    done = command("fleet", "status", str(sites), environment=wide)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0] == "0 of 2 sites are well, 1 of 2 cameras are active"
    assert lines[1].split() == ["site", "state", "cameras", "frames/s", "drops", "lag", "s", "version", "age"]
    assert lines[2].split()[:3] == ["shop", "degraded", "1/2"]
    assert "dock" in lines[3]
    assert lines[-1].strip() == "Connection refused"
    assert max(map(len, lines)) <= 80
    assert TOKEN not in done.stdout + done.stderr
    # By address, with the token of the environment.
    at = ("--site", f"http://{shop.config.web.listen}")
    done = command("fleet", "status", *at, "--json", environment={"FLEET_TOKEN": TOKEN})
    found = json.loads(done.stdout)
    assert (done.returncode, found["name"], found["state"], found["version"]) == (1, "shop", "degraded", "0.1.0")
    assert 10 < found["fps"] < 30
    done = command("fleet", "status", *at, "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (1, "away")


def test_all_well_is_exit_code_0(site: Site) -> None:
    port = free_port()
    site.write(
        cameras=[{"id": "till", "url": "test://?size=320x240&fps=20&kb=10"}], web={"listen": f"127.0.0.1:{port}"}
    )
    site.start()
    found = wait_until(
        lambda: (done := command("fleet", "status", "--site", f"http://127.0.0.1:{port}")).returncode == 0 and done,
        60,
        "the site is well",
    )
    assert found.stdout.startswith("1 of 1 sites are well, 1 of 1 cameras are active")
    assert site.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name the sites"),
        (("--site", "shop:8080"), "--site must be http://host:port"),
        (("nowhere.toml",), "cannot be read"),
        (("--site", "https://h", "--ca-file", "nowhere.pem"), "--ca-file: nowhere.pem does not exist"),
    ],
    ids=["nobody", "address", "file", "authority"],
)
def test_bad_input_is_one_error(arguments: tuple[str, ...], said: str) -> None:
    done = command("fleet", "status", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n"), said in done.stderr) == (2, "", 1, True), done.stderr
