"""Who may read what: readers, tenants, hosts, log-in, rate bounds; without a server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.config import Config, from_document
from engine.config.web import Tokens
from engine.web import limits
from engine.web.access import Access, Gate
from engine.web.access_sessions import SESSION_SECONDS, Sessions
from engine.web.app import ROUTES, build
from engine.web.reader import Reader
from engine.web.site import reader_of, report_for, site_of, store_for
from tests.web.asking import Answer, ask

TOKEN, SHOP, BANK = "operator-token-0123456789", "shop-token-0123456789", "bank-token-0123456789"
#: Reached by every reader whom the gate lets through.
THROUGH = 299


def configured(**web: Any) -> Config:
    return from_document(
        {
            "amqp": {"amqp_url": "amqp://127.0.0.1/shop"},
            "web": web,
            "cameras": [{"id": "cam1", "url": "test://"}],
        },
        {},
    )


CLOSED = configured(listen="0.0.0.0:8080", token=TOKEN, tenants={"shop": SHOP, "bank": BANK})


async def _through(scope: Scope, receive: Receive, send: Send) -> None:
    reader = reader_of(Request(scope))
    answer = JSONResponse({"vhost": reader.vhost, "all": reader.all_tenants, "status": "ok", "secret": "x"}, THROUGH)
    await answer(scope, receive, send)


def gated(config: Config) -> ASGIApp:
    """An application behind the gate of a site, which tells who asks."""
    return Access(_through, Gate(config))


def as_reader(answer: Answer) -> Reader | None:
    return Reader(*list(json.loads(answer.body).values())[:2]) if answer.status == THROUGH else None


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_bearer_token_opens_and_a_wrong_one_does_not() -> None:
    app = gated(CLOSED)
    assert as_reader(ask(app, "/api/v1/status", **bearer(TOKEN))) == Reader("shop", all_tenants=True)
    for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 20):
        answer = ask(app, "/api/v1/status", **bearer(wrong))
        assert (answer.status, answer.headers["content-type"]) == (401, "application/problem+json")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN.encode() not in answer.body
    assert ask(app, "/api/v1/status", authorization=f"Basic {TOKEN}").status == 401
    assert ask(app, "/api/v1/status").status == 401


@pytest.mark.parametrize(
    ("path", "shop", "bank"),
    [
        ("/api/v1/cameras", THROUGH, THROUGH),
        ("/api/v1/cameras/cam1/latest.jpg", THROUGH, THROUGH),
        ("/api/v1/frames/shop:frames:cam1:1731076200123456789:00001", THROUGH, THROUGH),
        ("/api/v1/tenants", THROUGH, THROUGH),
        ("/api/v1/history", THROUGH, 403),
        ("/", THROUGH, THROUGH),
        ("/static/app.js", THROUGH, THROUGH),
        ("/metrics", THROUGH, 403),
        ("/api/v1/status", 403, 403),
        ("/api/v1/servers", 403, 403),
        ("/api/v1/alerts", 403, 403),
        ("/api/v1/what-comes-next-year", 403, 403),
        ("/api/v1/camerasx", 403, 403),
    ],
    ids=lambda value: str(value).strip("/") or "page",
)
def test_a_tenant_s_token_opens_what_is_its_own(path: str, shop: int, bank: int) -> None:
    app = gated(CLOSED)
    assert [ask(app, path, **bearer(token)).status for token in (SHOP, BANK, TOKEN)] == [shop, bank, THROUGH]
    assert as_reader(ask(app, "/api/v1/cameras", **bearer(BANK))) == Reader("bank")


def test_every_route_is_closed_without_a_token_but_those_that_show_nothing() -> None:
    app = build(CLOSED, structlog.get_logger())
    paths = [route.path.replace("{", "").replace("}", "") for route in ROUTES if isinstance(route, Route)]
    assert len(paths) > 5
    open_paths = {path for path in paths if ask(app, path).status != 401}
    assert open_paths <= {"/live", "/ready", "/health", "/login", "/logout", "/static/path:path"}
    assert {route.path for route in ROUTES if isinstance(route, Mount)} <= {"/static"}


def test_a_browser_without_a_token_goes_to_the_log_in() -> None:
    app = gated(CLOSED)
    page = ask(app, "/", accept="text/html,*/*")
    assert (page.status, page.headers["location"]) == (303, "/login")
    assert ask(app, "/api/v1/cameras", accept="text/html").status == 401
    assert ask(app, "/", method="POST", accept="text/html").status == 401


@pytest.mark.parametrize("path", ["/ready", "/health"])
def test_health_shows_its_word_alone_to_all_but_operators(path: str) -> None:
    app = gated(CLOSED)
    for headers in ({}, bearer(SHOP)):
        answer = ask(app, path, **headers)
        assert (answer.status, json.loads(answer.body)) == (THROUGH, {"status": "ok"})
    assert b"secret" in ask(app, path, **bearer(TOKEN)).body
    assert b"secret" in ask(gated(configured()), path).body


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"status":1}', b"\xff"], ids=repr)
def test_health_that_is_no_health_shows_nothing(body: bytes) -> None:
    async def odd(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    answer = ask(Access(odd, Gate(CLOSED)), "/ready")
    assert (answer.status, json.loads(answer.body)) == (503, {"status": ""})


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST.:8080", "127.0.0.1", "127.9.9.9:1", "[::1]:8080", "cams.localhost", ""],
)
def test_without_a_token_this_machine_s_names_are_answered(host: str) -> None:
    assert as_reader(ask(gated(configured()), "/api/v1/status", host=host)) == Reader("shop", all_tenants=True)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1",
        "[::2]:8080", "127.0.0.1@evil.example", "127.0.0.1:8080:evil", "[::1", "evil.example#localhost",
        "localhost/", "0x7f.1",
    ],
)  # fmt: skip
def test_without_a_token_no_other_name_is_answered(host: str) -> None:
    """A page of evil.example, whose name is made to lead here, asks with its own name (DNS rebinding)."""
    assert ask(gated(configured()), "/api/v1/status", host=host).status == 421
    assert ask(gated(configured()), "/live", host=host).status == THROUGH


def test_with_a_token_any_name_is_answered() -> None:
    assert ask(gated(CLOSED), "/api/v1/status", host="cams.example", **bearer(TOKEN)).status == THROUGH


def test_without_a_token_no_proxy_lets_others_in() -> None:
    """nginx sends the address that it asks for as the host."""
    app = gated(configured())
    assert ask(app, "/api/v1/status", host="127.0.0.1:8080", x_forwarded_for="192.0.2.7").status == 403
    assert ask(app, "/api/v1/status", host="127.0.0.1:8080", x_forwarded_for="127.0.0.1").status == THROUGH
    assert ask(gated(CLOSED), "/api/v1/status", x_forwarded_for="192.0.2.7", **bearer(TOKEN)).status == THROUGH


def test_a_wrong_token_is_refused_where_none_is_needed() -> None:
    app = gated(configured(tenants={"bank": BANK}))
    assert ask(app, "/api/v1/status").status == THROUGH
    assert ask(app, "/api/v1/status", **bearer(TOKEN)).status == 401
    assert as_reader(ask(app, "/api/v1/cameras", **bearer(BANK))) == Reader("bank")


def log_in(app: ASGIApp, token: str, **headers: str) -> Answer:
    return ask(app, "/login", method="POST", body=f"token={token}".encode(), **headers)


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize(("token", "sees_status"), [(TOKEN, True), (SHOP, False)], ids=["operator", "tenant"])
def test_a_log_in_gives_a_cookie_that_opens(token: str, sees_status: bool) -> None:
    app = build(CLOSED, structlog.get_logger())
    answer = log_in(app, token)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    attributes = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", f"max-age={SESSION_SECONDS}"} == attributes
    assert token not in answer.headers["set-cookie"]
    gate = gated(CLOSED)
    assert (ask(gate, "/api/v1/status", cookie=f"a=b; {cookie_of(answer)}; c=d").status == THROUGH) is sees_status
    assert ask(gate, "/api/v1/cameras", cookie=cookie_of(answer)).status == THROUGH
    # Of another token, and so of another key.
    other = configured(listen="0.0.0.0:8080", token=TOKEN + "x", tenants={"shop": SHOP + "x"})
    assert ask(gated(other), "/api/v1/cameras", cookie=cookie_of(answer)).status == 401


def test_a_log_in_in_json_answers_in_json() -> None:
    app = build(CLOSED, structlog.get_logger())
    body = json.dumps({"token": BANK}).encode()
    answer = ask(app, "/login", method="POST", body=body, content_type="application/json")
    assert (answer.status, json.loads(answer.body)) == (200, {"vhost": "bank", "all_tenants": False})
    wrong = ask(app, "/login", method="POST", body=b'{"token":"no"}', content_type="application/json")
    assert (wrong.status, wrong.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize("forwarded", [False, True], ids=["own", "proxy"])
def test_under_tls_a_cookie_stays_under_tls(forwarded: bool) -> None:
    app = build(CLOSED, structlog.get_logger())
    headers = {"x_forwarded_proto": "https"} if forwarded else {"scheme": "https"}
    assert "; Secure" in log_in(app, TOKEN, **headers).headers["set-cookie"]


def test_a_wrong_log_in_shows_the_page_again_and_sets_nothing() -> None:
    answer = log_in(build(CLOSED, structlog.get_logger()), "<script>")
    assert answer.status == 401
    assert b"not known" in answer.body
    assert b"<script>" not in answer.body
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/x-www-form-urlencoded", 401),
        (b"token=%ff%00", "application/x-www-form-urlencoded", 401),
        (b"\xff", "application/x-www-form-urlencoded", 422),
        (b"&".join([b"a=b"] * 99), "application/x-www-form-urlencoded", 422),
        (b"{", "application/json", 422),
        (b'{"token":1}', "application/json", 422),
        (b'{"token":"\\ud800"}', "application/json", 422),
        (b"x" * 5000, "text/plain", 413),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_log_in_that_is_none_is_refused(body: bytes, kind: str, status: int) -> None:
    app = build(CLOSED, structlog.get_logger())
    assert ask(app, "/login", method="POST", body=body, content_type=kind).status == status


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8081"},
        {"origin": "http://[bad"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
    ids=lambda headers: next(iter(headers.values())),
)
@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_another_site_s_page_logs_nobody_in_or_out(path: str, headers: dict[str, str]) -> None:
    app = build(CLOSED, structlog.get_logger())
    answer = ask(app, path, method="POST", body=f"token={TOKEN}".encode(), **headers)
    assert (answer.status, "set-cookie" in answer.headers) == (403, False)


def test_the_own_page_logs_in_and_out() -> None:
    app = build(CLOSED, structlog.get_logger())
    own = {"origin": "http://127.0.0.1:8080", "sec_fetch_site": "same-origin"}
    assert log_in(app, TOKEN, **own).status == 303
    answer = ask(app, "/logout", method="POST", **own)
    assert (answer.status, answer.headers["location"]) == (303, "/login")
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert ask(app, "/logout", **bearer(TOKEN)).status == 405


def test_log_in_attempts_of_an_address_are_bounded() -> None:
    app = build(CLOSED, structlog.get_logger())
    statuses = [log_in(app, "guess", client="192.0.2.7").status for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = log_in(app, TOKEN, client="192.0.2.7")
    assert (refused.status, 1 <= int(refused.headers["retry-after"]) <= 6) == (429, True)
    assert log_in(app, TOKEN, client="192.0.2.8").status == 303
    # A proxy on this machine says for whom it asks; what the client put before that counts for nothing.
    assert log_in(app, TOKEN, x_forwarded_for="198.51.100.1, 192.0.2.7").status == 429
    assert log_in(app, TOKEN, x_forwarded_for="192.0.2.7, 198.51.100.1").status == 303
    # Another machine may not say so.
    assert log_in(app, TOKEN, client="192.0.2.7", x_forwarded_for="198.51.100.2").status == 429


def test_requests_of_an_address_are_bounded_but_not_this_machine_s() -> None:
    app = gated(CLOSED)
    most = int(limits.REQUESTS_BURST)

    async def many(client: str) -> int:
        refused = 0
        for _ in range(most + 500):
            scope = {"type": "http", "method": "GET", "path": "/live", "headers": [], "client": (client, 1)}
            answered: list[int] = []

            async def send(message: Any, answered: list[int] = answered) -> None:
                answered.append(message.get("status", 0))

            await app(scope, None, send)  # type: ignore[arg-type]
            refused += answered[0] == 429
        return refused

    assert asyncio.run(many("127.0.0.1")) == 0
    assert asyncio.run(many("192.0.2.9")) > 0


def test_a_bucket_fills_up_again() -> None:
    now = [0.0]
    buckets = limits.Buckets(rate=2, burst=3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    now[0] = 0.5
    assert [buckets.take("a"), buckets.take("a"), buckets.take("b")] == [0, 0.5, 0]
    now[0] = 1000.0
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_addresses_are_forgotten_in_the_order_of_their_last_use() -> None:
    buckets = limits.Buckets(rate=0.001, burst=1)
    buckets.take("first")
    for number in range(limits._ADDRESSES_MAX):
        buckets.take(str(number))
    assert len(buckets._left) == limits._ADDRESSES_MAX
    assert buckets.take("first") == 0
    assert buckets.take(str(limits._ADDRESSES_MAX - 1)) > 0


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/api/v1/cameras/cam1/stream.mjpeg", limits.STREAMS_PER_ADDRESS_MAX),
        ("/api/v1/events", limits.EVENT_READERS_PER_ADDRESS_MAX),
    ],
)
def test_streams_are_bounded_and_a_stream_that_ends_makes_room(path: str, most: int) -> None:
    gate = Gate(CLOSED)

    async def scenario() -> tuple[int, int, int, int]:
        release = asyncio.Event()

        async def endless(scope: Scope, receive: Receive, send: Send) -> None:
            await release.wait()
            await _through(scope, receive, send)

        app = Access(endless, gate)

        async def get(client: str) -> int:
            scope = {"type": "http", "method": "GET", "path": path, "client": (client, 1)}
            scope["headers"] = [(b"authorization", f"Bearer {SHOP}".encode())]
            answered: list[int] = []

            async def send(message: Any) -> None:
                answered.append(message.get("status", 0))

            await app(scope, None, send)  # type: ignore[arg-type]
            return answered[0]

        held = [asyncio.create_task(get("192.0.2.1")) for _ in range(most)]
        await asyncio.sleep(0)
        refused = await asyncio.wait_for(get("192.0.2.1"), 10)
        other = asyncio.create_task(get("192.0.2.2"))
        await asyncio.sleep(0)
        total = gate.streams.total
        release.set()
        await asyncio.gather(*held, other)
        return refused, other.result(), total, gate.streams.total

    assert asyncio.run(scenario()) == (503, THROUGH, most + 1, 0)


class TestSessions:
    tokens = Tokens(TOKEN, {"shop": SHOP, "a.b/c é": BANK})

    def test_a_session_is_its_reader_s_until_it_expires(self) -> None:
        now = [1000.0]
        sessions = Sessions(self.tokens, "shop", clock=lambda: now[0])
        for token in (TOKEN, SHOP, BANK):
            reader = sessions.of_token(token.encode())
            assert reader is not None
            value = sessions.open_session(reader)
            assert sessions.of_session(value) == reader
            # Another process, such as after a restart.
            assert Sessions(self.tokens, "shop", clock=lambda: now[0]).of_session(value) == reader
            now[0] += SESSION_SECONDS - 1
            assert sessions.of_session(value) == reader
            now[0] += 1
            assert sessions.of_session(value) is None

    def test_a_changed_session_is_nobody_s(self) -> None:
        sessions = Sessions(self.tokens, "shop")
        value = sessions.open_session(Reader("shop"))
        for place in range(len(value)):
            for other in ("0", "x", "."):
                changed = value[:place] + other + value[place + 1 :]
                assert changed == value or sessions.of_session(changed) is None, changed
        for odd in (
            "",
            ".",
            "1...",
            "1.shop.9999999999.",
            value + "0",
            value[:-1],
            f"1..9{value[6:]}",
            "é",
            "1.%ff.1.x",
        ):
            assert sessions.of_session(odd) is None, odd


async def _facts_of(config: Config, reader: Reader) -> tuple[str, bool]:
    app = build(config, structlog.get_logger(), local=False)
    scope = {"type": "http", "app": app, "headers": [], "state": {"reader": reader}}
    request = Request(scope)
    store = store_for(request)
    report = await report_for(request)
    await site_of(request).aclose()
    return store.vhost, report is None


@pytest.mark.parametrize("vhost", ["shop", "bank"])
def test_a_reader_gets_the_store_of_its_tenant(vhost: str) -> None:
    assert asyncio.run(_facts_of(CLOSED, Reader(vhost))) == (vhost, True)


def test_files_of_tokens_are_read_at_the_start(tmp_path: Path) -> None:
    """What they say later changes nothing until a restart."""
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    app = gated(configured(listen="0.0.0.0:8080", token_file=str(file)))
    file.unlink()
    assert ask(app, "/api/v1/status", **bearer(TOKEN)).status == THROUGH
