"""Sends one request to a camera without FFmpeg: DESCRIBE over RTSP, GET over HTTP.

The URL's credentials are sent if the camera asks for them. All answers are untrusted and bounded in size.
"""

from __future__ import annotations

import io
import re
import secrets
import socket
from http.client import HTTPException, HTTPResponse, LineTooLong, RemoteDisconnected
from typing import NamedTuple, TypeAlias, cast
from urllib.parse import SplitResult, urljoin, urlsplit

from engine.errors import WireError
from engine.sources.camera_connection import PORTS, DeadlineReader, Silent, connect
from engine.wire.http_auth import authorization, is_stale
from engine.wire.urls import host_port

#: Longest head of an answer over RTSP, and longest session description, that are read, in bytes. Over HTTP, the
#: standard library reads at most 100 headers of 64 KiB.
_HEAD_BYTES_MAX = 32_768
_BODY_BYTES_MAX = 65_536
#: Most times that a login is sent: a camera may say that its nonce is too old.
_LOGINS_MAX = 2
#: Longest shown text from a camera, in characters.
_SHOWN_CHARACTERS_MAX = 60

UNAUTHORISED = 401
_REDIRECT = range(300, 400)
Buffered: TypeAlias = "io.BufferedReader[DeadlineReader]"
#: Most requests in a chain of redirects; each may be repeated with credentials.
REDIRECTS_MAX = 4


class Answer(NamedTuple):
    """The camera's answer."""

    status: int
    phrase: str
    #: Names in lower case; the last of repeated ones.
    headers: dict[str, str]
    challenges: list[str]
    body: bytes
    #: Why a 401 could not be answered.
    unanswerable: str = ""

    def redirect(self, parts: SplitResult) -> SplitResult | None:
        """Where the request to ``parts`` should go instead; None if this is no redirect. Raises ValueError."""
        location = self.headers.get("location")
        return urlsplit(urljoin(parts.geturl(), location)) if self.status in _REDIRECT and location else None


class Opened(NamedTuple):
    """An answer whose connection is still open. ``response`` has the body, over HTTP."""

    answer: Answer
    connection: socket.socket
    reader: DeadlineReader
    response: HTTPResponse | None


class Request:
    """One request; repeated with credentials if the answer is 401."""

    def __init__(self, parts: SplitResult, deadline: float) -> None:
        self._parts = parts
        self._deadline = deadline
        self._sequence = 0
        self._rtsp = parts.scheme.startswith("rtsp")

    def send(self, user: str, password: str) -> Answer:
        """Send the request and return the answer. Raises OSError, Silent, WireError."""
        opened = self.open(user, password)
        opened.connection.close()
        return opened.answer

    def open(self, user: str, password: str) -> Opened:
        """Send the request; returns the answer with its connection. Raises OSError, Silent, WireError."""
        opened = self._round("")
        method, uri = ("DESCRIBE", _bare(self._parts)) if self._rtsp else ("GET", _target(self._parts))
        for number in range(_LOGINS_MAX):
            answer = opened.answer
            if answer.status != UNAUTHORISED or not (user or password) or (number and not is_stale(answer.challenges)):
                break
            opened.connection.close()
            try:
                login = authorization(answer.challenges, method, uri, user, password, secrets.token_hex(8))
            except WireError as error:
                return opened._replace(answer=answer._replace(unanswerable=str(error)))
            opened = self._round(f"Authorization: {login}\r\n")
        return opened

    def _round(self, login: str) -> Opened:
        parts = self._parts
        self._sequence += 1
        where = host_port(parts.hostname or "", parts.port or PORTS[parts.scheme])
        if self._rtsp:
            request = (
                f"DESCRIBE {_bare(parts)} RTSP/1.0\r\nCSeq: {self._sequence}\r\nAccept: application/sdp\r\n"
                f"User-Agent: edge-video\r\n{login}\r\n"
            )
        else:
            request = (
                f"GET {_target(parts)} HTTP/1.1\r\nHost: {where}\r\nUser-Agent: edge-video\r\nAccept: */*\r\n"
                f"Accept-Encoding: identity\r\nConnection: close\r\n{login}\r\n"
            )
        connection = connect(parts, self._deadline)
        try:
            connection.sendall(request.encode())
            reader = DeadlineReader(connection, self._deadline)
            file = io.BufferedReader(reader)
            answer, response = (_read_rtsp(file), None) if self._rtsp else _read_http(file)
        except TimeoutError:
            connection.close()
            raise Silent from None
        except BaseException:
            connection.close()
            raise
        return Opened(answer, connection, reader, response)


class _File(NamedTuple):
    """What HTTPResponse takes for a socket: it only asks for its file."""

    file: Buffered

    def makefile(self, _: str) -> Buffered:
        return self.file


def _read_http(file: Buffered) -> tuple[Answer, HTTPResponse]:
    response = HTTPResponse(cast("socket.socket", _File(file)))
    try:
        response.begin()
    except RemoteDisconnected:
        raise WireError("closed the connection without an answer") from None
    except LineTooLong:
        raise WireError("sends a header that is too long") from None
    except HTTPException:
        raise WireError("does not answer in HTTP") from None
    headers = {name.lower(): value.strip() for name, value in response.getheaders()}
    challenges = response.headers.get_all("www-authenticate") or []
    return Answer(response.status, shown(response.reason), headers, challenges, b""), response


def _read_rtsp(file: Buffered) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _HEAD_BYTES_MAX:
        received = file.read1(4096)
        if not received:
            break
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"(?:RTSP|HTTP)(?:/\d\.\d)? (\d{3})(?: (.*))?", first)
    if not match:
        raise WireError("does not answer in RTSP" if data else "closed the connection without an answer")
    pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = dict(pairs)
    length = headers.get("content-length", "")
    wanted = min(int(length), _BODY_BYTES_MAX) if length.isascii() and length.isdigit() else 0
    while len(body) < wanted:
        received = file.read1(4096)
        if not received:
            break
        body += received
    challenges = [value for name, value in pairs if name == "www-authenticate"]
    return Answer(int(match[1]), shown(match[2] or ""), headers, challenges, body)


def _bare(parts: SplitResult) -> str:
    """The URL without credentials."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _target(parts: SplitResult) -> str:
    """The request target of a GET."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def host_of(parts: SplitResult) -> str:
    """Host and port, as messages show them."""
    return host_port(parts.hostname or "", parts.port or PORTS[parts.scheme])


def shown(text: str) -> str:
    """A camera's text, made safe to show: it is untrusted."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain[:_SHOWN_CHARACTERS_MAX]
