"""Log-in with a token: ``/login`` exchanges it for a cookie, ``/logout`` takes the cookie back."""

from __future__ import annotations

import math
from importlib import resources
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from engine.web.access import Gate
from engine.web.access_sessions import SESSION_SECONDS
from engine.web.answers import json_answer
from engine.web.reader import Reader

#: Most bytes of a log-in's body: a token of the greatest length, percent-encoded, and its name.
_BODY_BYTES_MAX = 4096
_PAGE = resources.files("engine.web") / "static" / "login.html"
#: Where the page says what went wrong.
_MESSAGE = "<!--message-->"
_NO_STORE = {"Cache-Control": "no-store"}


class _Login(msgspec.Struct):
    token: str


async def login(request: Request) -> Response:
    """The log-in page, and its answer: opens a session with the token of a form (``token=…``) or of JSON
    (``{"token":…}``). Where nobody needs to log in, the page is the dashboard."""
    gate = _gate(request)
    if request.method != "POST":
        return RedirectResponse("/", 303, _NO_STORE) if gate.open else _page("")
    _refuse_other_origins(request)
    is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    if wait := gate.logins.take(request.client.host if request.client else ""):
        seconds = math.ceil(wait)
        text = f"too many attempts from this address; try again in {seconds} s"
        headers = {"Retry-After": str(seconds)}
        if is_json:
            raise HTTPException(429, text, headers)
        return _page(text, 429, headers)
    token = _token(await _body(request), is_json=is_json)
    reader = gate.sessions.of_token(token)
    if reader is None:
        if is_json:
            raise HTTPException(401, "the token is wrong")
        return _page("This token is not known here.", 401)
    answer: Response = RedirectResponse("/", 303, _NO_STORE)
    if is_json:
        answer = json_answer({"vhost": reader.vhost, "all_tenants": reader.all_tenants})
    _set_cookie(answer, request, gate, reader)
    return answer


async def logout(request: Request) -> Response:
    """Take the cookie back."""
    _refuse_other_origins(request)
    answer = RedirectResponse("/login", 303, _NO_STORE)
    _set_cookie(answer, request, _gate(request), None)
    return answer


def _set_cookie(answer: Response, request: Request, gate: Gate, reader: Reader | None) -> None:
    """Give a session's cookie, or end it. Scripts cannot read it, and no other site's page can send it."""
    answer.set_cookie(
        gate.cookie,
        gate.sessions.open_session(reader) if reader else "",
        max_age=SESSION_SECONDS if reader else 0,
        path="/",
        secure=gate.tls or request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _refuse_other_origins(request: Request) -> None:
    """Another site's page must not log anyone in or out. Browsers say whose page sends a form; scripts need not."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    host = request.headers.get("host", "")
    if site not in ("same-origin", "none") or (origin is not None and _host(origin) != host.lower()):
        raise HTTPException(403, "this request comes from another site's page")


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_BYTES_MAX:
            raise HTTPException(413, f"a log-in has at most {_BODY_BYTES_MAX} bytes", {"Connection": "close"})
    return body


def _token(body: bytes, *, is_json: bool) -> bytes:
    """The token of a log-in's body."""
    try:
        if is_json:
            return msgspec.json.decode(body, type=_Login).token.strip().encode()
        return parse_qs(body.decode("ascii"), max_num_fields=10).get("token", [""])[0].strip().encode()
    except (ValueError, msgspec.MsgspecError):
        raise HTTPException(422, 'a log-in is a form with token=…, or JSON {"token":"…"}') from None


def _page(message: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """The log-in page with a message of ours, which needs no escaping."""
    text = _PAGE.read_text(encoding="utf-8").replace(_MESSAGE, message)
    return Response(text, status, {**_NO_STORE, **(headers or {})}, media_type="text/html")


def _gate(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


ROUTES = [
    Route("/login", login, methods=["GET", "POST"]),
    Route("/logout", logout, methods=["POST"]),
]
