"""Sends one request to a camera without FFmpeg: DESCRIBE over RTSP, GET over HTTP.

The URL's credentials are sent if the camera asks for them. Certificates are not checked, because FFmpeg does not check
them either. All answers are untrusted and bounded in size.
"""

from __future__ import annotations

import re
import secrets
import socket
import ssl
import time
from typing import NamedTuple
from urllib.parse import SplitResult

from engine.errors import WireError
from engine.wire.http_auth import authorization
from engine.wire.urls import host_port

#: Default port of each scheme.
PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_TLS = ("rtsps", "https")
#: Longest head of an answer, and longest session description, that are read, in bytes.
_HEAD_BYTES_MAX = 32_768
_BODY_BYTES_MAX = 65_536
#: Longest shown text from a camera, in characters.
_SHOWN_CHARACTERS_MAX = 60

UNAUTHORISED = 401


class Silent(TimeoutError):
    """Connected, but no answer arrived."""


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


class Request:
    """One request; repeated with credentials if the answer is 401."""

    def __init__(self, parts: SplitResult, deadline: float) -> None:
        self._parts = parts
        self._deadline = deadline
        self._sequence = 0

    def send(self, user: str, password: str) -> Answer:
        """Send the request and return the answer. Raises OSError, Silent, WireError."""
        answer = self._round("")
        if answer.status != UNAUTHORISED or not (user or password):
            return answer
        rtsp = self._parts.scheme.startswith("rtsp")
        method, uri = ("DESCRIBE", _bare(self._parts)) if rtsp else ("GET", _target(self._parts))
        try:
            login = authorization(answer.challenges, method, uri, user, password, secrets.token_hex(8))
        except WireError as error:
            return answer._replace(unanswerable=str(error))
        return self._round(f"Authorization: {login}\r\n")

    def _round(self, login: str) -> Answer:
        parts = self._parts
        self._sequence += 1
        where = host_port(parts.hostname or "", parts.port or PORTS[parts.scheme])
        if parts.scheme.startswith("rtsp"):
            request = (
                f"DESCRIBE {_bare(parts)} RTSP/1.0\r\nCSeq: {self._sequence}\r\nAccept: application/sdp\r\n"
                f"User-Agent: edge-video\r\n{login}\r\n"
            )
        else:
            request = (
                f"GET {_target(parts)} HTTP/1.1\r\nHost: {where}\r\nUser-Agent: edge-video\r\nAccept: */*\r\n"
                f"Connection: close\r\n{login}\r\n"
            )
        with self._connect() as connection:
            try:
                connection.sendall(request.encode())
                return _read_answer(connection, self._deadline, rtsp=parts.scheme.startswith("rtsp"))
            except TimeoutError:
                raise Silent from None

    def _connect(self) -> socket.socket:
        parts = self._parts
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from None
        failure: OSError = TimeoutError()
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                # A host's addresses share the remaining time.
                connection.settimeout(_left(self._deadline) / (len(addresses) - number))
                connection.connect(address)
            except OSError as error:
                connection.close()
                failure = error
                continue
            connection.settimeout(_left(self._deadline))
            return _encrypted(connection, host) if parts.scheme in _TLS else connection
        raise failure


def _encrypted(connection: socket.socket, host: str) -> socket.socket:
    """TLS as FFmpeg uses it with cameras, which have self-signed certificates and old TLS versions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except TimeoutError:
        connection.close()
        raise Silent from None
    except OSError as error:
        connection.close()
        if isinstance(error, ssl.SSLError):
            raise
        raise ssl.SSLError(0, "the connection was closed") from None


def _read_answer(connection: socket.socket, deadline: float, *, rtsp: bool) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _HEAD_BYTES_MAX:
        connection.settimeout(_left(deadline))
        received = connection.recv(4096)
        if not received:
            break
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"(?:RTSP|HTTP|ICY)(?:/\d\.\d)? (\d{3})(?: (.*))?", first)
    if not match:
        what = "RTSP" if rtsp else "HTTP"
        raise WireError(f"does not answer in {what}" if data else "closed the connection without an answer")
    pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = dict(pairs)
    length = headers.get("content-length", "")
    wanted = min(int(length), _BODY_BYTES_MAX) if rtsp and length.isascii() and length.isdigit() else 0
    while len(body) < wanted:
        connection.settimeout(_left(deadline))
        received = connection.recv(4096)
        if not received:
            break
        body += received
    challenges = [value for name, value in pairs if name == "www-authenticate"]
    return Answer(int(match[1]), shown(match[2] or ""), headers, challenges, body)


def _left(deadline: float) -> float:
    """Seconds until ``deadline``. Raises TimeoutError if it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


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
