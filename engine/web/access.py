"""Who may read what: finds the reader of each request, and refuses what it may not see, before a route is called.

* Without a token in the site file the web role listens on this machine only, and everyone there is the operator. A page
  of another site must not read it through its visitor's browser, so the Host header must name this machine
  (DNS rebinding).
* With a token, each request shows it: as a bearer token, or as the cookie of a log-in.
* A tenant's token opens the paths in ``_TENANT_PATHS`` only, and the routes show it its own vhost. A new route is
  closed for tenants until it is named there.

Pure ASGI, without Starlette's request objects, because every frame that is fetched passes here.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from functools import lru_cache
from typing import NamedTuple

import msgspec
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.config import Config
from engine.config.web import read_tokens
from engine.web import limits
from engine.web.access_sessions import Sessions
from engine.web.answers import json_answer, problem
from engine.web.reader import NOBODY, Reader
from engine.wire.listen import is_loopback

#: Open to everyone: whether the process lives, and what the log-in page is made of. They show nothing of the site.
_PUBLIC_PATHS = frozenset({"/live", "/login", "/logout", "/favicon.ico"})
_PUBLIC_PREFIX = "/static/"
#: Of these, all but operators get the status code and the word of the status only.
_HEALTH_PATHS = frozenset({"/ready", "/health"})
#: What a tenant may read beside the public paths.
_TENANT_PATHS = frozenset(
    {"/", "/metrics", "/api/v1/cameras", "/api/v1/tenants", "/api/v1/events", "/api/v1/history", "/api/v1/openapi.json"}
)
_TENANT_PREFIXES = ("/api/v1/cameras/", "/api/v1/frames/")
#: Figures of the site's cameras, for the site's own tenant. It gets its cameras' metrics, without those of processes
#: and servers.
_SITE_PATHS = frozenset({"/metrics", "/api/v1/history"})
#: Paths whose answers do not end by themselves.
_STREAM_ENDS = (".mjpeg", ".mp4")
_EVENTS_PATH = "/api/v1/events"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="edge-video"'}
#: Most characters of an address that a proxy reports.
_ADDRESS_CHARACTERS_MAX = 64
#: The address of clients of a Unix socket.
_LOCAL = "localhost"


class _Facts(NamedTuple):
    """What the headers of a request say that matters here."""

    authorization: bytes
    cookie: bytes
    host: bytes
    accept: bytes
    forwarded_for: bytes
    forwarded_proto: bytes


class _Bare(msgspec.Struct):
    status: str = ""


class Gate:
    """What all requests of one web process share: tokens, sessions, and what each address has used up."""

    def __init__(self, config: Config) -> None:
        tokens = read_tokens(config.web)
        #: True if no token is needed. ``check_web`` allows that on this machine only.
        self.open = not tokens.operator
        self.sessions = Sessions(tokens, config.vhost)
        self.operator = Reader(config.vhost, all_tenants=True)
        self.listen_host = config.web.address.host.lower() if config.web.listen else ""
        self.tls = bool(config.web.tls_certificate_file)
        #: Cookies are shared by all ports of a host, and a host may have several sites.
        self.cookie = f"{'__Host-' if self.tls else ''}edge-video-{config.site.name}"
        self.requests = limits.Buckets(limits.REQUESTS_PER_SECOND, limits.REQUESTS_BURST)
        self.logins = limits.Buckets(limits.LOGINS_PER_SECOND, limits.LOGINS_BURST)
        self.streams = limits.Shares(limits.STREAMS_MAX, limits.STREAMS_PER_ADDRESS_MAX)
        self.events = limits.Shares(limits.EVENT_READERS_MAX, limits.EVENT_READERS_PER_ADDRESS_MAX)
        self._tasks: set[asyncio.Task[object]] = set()
        self._ending = False
        self._cookie_start = f"{self.cookie}=".encode()

    def session_of(self, cookie: bytes) -> Reader | None:
        """Whose session a Cookie header names."""
        for part in map(bytes.strip, cookie.split(b";")):
            if part.startswith(self._cookie_start):
                return self.sessions.of_session(part[len(self._cookie_start) :].decode("latin-1"))
        return None

    def knows_host(self, host: bytes) -> bool:
        """True if a Host header names this machine."""
        return _is_here(host, self.listen_host)

    async def serve_stream(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, address: str) -> None:
        """Serve an answer that does not end by itself, until ``end_streams``."""
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with self.streams.held(address):
                await app(scope, receive, send)
        except asyncio.CancelledError:
            # The server then closes the connection in the middle of the answer, which tells the reader that it broke.
            if not self._ending:
                raise
        finally:
            self._tasks.discard(task)

    def end_streams(self) -> None:
        """End all streams, because the process ends."""
        self._ending = True
        for task in self._tasks:
            task.cancel()


class Access:
    """ASGI middleware: puts the ``Reader`` of a request into its scope, or answers in the route's place."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gate, path = self._gate, scope["path"]
        facts = _facts(scope)
        address = _address(scope, facts)
        scope["client"] = (address, 0)
        if facts.forwarded_proto == b"https" and _is_local(_peer(scope)):
            scope["scheme"] = "https"
        if not _is_local(address) and (wait := gate.requests.take(address)):
            await _too_many("requests", wait)(scope, receive, send)
            return
        reader = self._reader(facts)
        if isinstance(reader, Response):
            await reader(scope, receive, send)
            return
        if refusal := self._refusal(reader, scope, facts, address):
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["reader"] = reader
        if path in _HEALTH_PATHS and not reader.all_tenants:
            await self._bare(scope, receive, send)
        elif path.endswith(_STREAM_ENDS) or path == _EVENTS_PATH:
            if gate.streams.full(address) or (path == _EVENTS_PATH and gate.events.full(address)):
                text = "as many streams are open as there may be; close one, or try again later"
                await problem(503, text, {"Retry-After": "5"})(scope, receive, send)
            else:
                held = gate.events.held(address) if path == _EVENTS_PATH else nullcontext()
                with held:
                    await gate.serve_stream(self._app, scope, receive, send, address)
        else:
            await self._app(scope, receive, send)

    def _reader(self, facts: _Facts) -> Reader | Response:
        """Who asks; an answer if it shows a token that is not ours."""
        gate = self._gate
        if facts.authorization:
            scheme, _, token = facts.authorization.partition(b" ")
            reader = gate.sessions.of_token(token.strip()) if scheme.lower() == b"bearer" else None
            if reader is None:
                return problem(401, "the token is wrong: send Authorization: Bearer TOKEN", _CHALLENGE)
            return reader
        found = gate.session_of(facts.cookie) if facts.cookie else None
        return found or (gate.operator if gate.open else NOBODY)

    def _refusal(self, reader: Reader, scope: Scope, facts: _Facts, address: str) -> Response | None:
        """The answer to a request that the reader may not make; None if it may."""
        gate, path = self._gate, scope["path"]
        if path == "/live":
            return None
        if gate.open and facts.host and not gate.knows_host(facts.host):
            return problem(
                421,
                f"host {facts.host[:100].decode('latin-1')!r} is not this machine; ask for localhost, or set web.token "
                "to be asked under other names",
            )
        if gate.open and facts.forwarded_for and not _is_local(address):
            return problem(403, "a proxy asks for another machine, and no token is set: set web.token")
        if reader.all_tenants or path in _PUBLIC_PATHS or path in _HEALTH_PATHS or path.startswith(_PUBLIC_PREFIX):
            return None
        if reader is NOBODY:
            if scope["method"] in ("GET", "HEAD") and b"text/html" in facts.accept and not path.startswith("/api/"):
                return RedirectResponse("/login", 303, {"Cache-Control": "no-store"})
            return problem(401, "this needs a token: send Authorization: Bearer TOKEN, or log in at /login", _CHALLENGE)
        if not (path in _TENANT_PATHS or path.startswith(_TENANT_PREFIXES)):
            return problem(403, f"the token of vhost {reader.vhost!r} is for its cameras and frames only")
        if path in _SITE_PATHS and reader.vhost != gate.operator.vhost:
            return problem(403, f"this is about vhost {gate.operator.vhost!r}, and the token of {reader.vhost!r}")
        return None

    async def _bare(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the status code and the word of the status alone."""
        status, body = 500, b""

        async def collect(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                body += message.get("body", b"")

        await self._app(scope, receive, collect)
        await json_answer(_bare(body), status)(scope, receive, send)


def _facts(scope: Scope) -> _Facts:
    authorization = cookie = host = accept = forwarded_for = forwarded_proto = b""
    for name, value in scope["headers"]:
        if name == b"host":
            host = value
        elif name == b"cookie":
            cookie = b"%b; %b" % (cookie, value) if cookie else value
        elif name == b"accept":
            accept = value
        elif name == b"authorization":
            authorization = value
        elif name == b"x-forwarded-for":
            forwarded_for = value
        elif name == b"x-forwarded-proto":
            forwarded_proto = value
    return _Facts(authorization, cookie, host, accept, forwarded_for, forwarded_proto)


def _peer(scope: Scope) -> str:
    """The address of the connection's other end."""
    client = scope.get("client")
    return client[0] if client else _LOCAL


def _address(scope: Scope, facts: _Facts) -> str:
    """The address that asks. A proxy on this machine says for whom it asks: the last one that it names, because those
    before it were named by the client."""
    peer = _peer(scope)
    if facts.forwarded_for and _is_local(peer):
        return facts.forwarded_for.rpartition(b",")[2].strip()[:_ADDRESS_CHARACTERS_MAX].decode("latin-1") or peer
    return peer


@lru_cache(1024)
def _is_local(address: str) -> bool:
    return is_loopback(address)


@lru_cache(256)
def _is_here(host: bytes, listen_host: str) -> bool:
    text = host.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    if not colon or (port and not port.isdigit()):
        name = text
    name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    return bool(name) and (is_loopback(name) or name == listen_host)


def _bare(body: bytes) -> _Bare:
    try:
        return msgspec.json.decode(body, type=_Bare)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Bare()


def _too_many(what: str, wait: float) -> Response:
    seconds = math.ceil(wait)
    return problem(429, f"too many {what} from this address; try again in {seconds} s", {"Retry-After": str(seconds)})
