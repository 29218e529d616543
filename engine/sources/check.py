"""What is wrong with a network camera that did not open: FFmpeg does not say, so it is asked once more, by hand.

The host is looked up, connected to, and sent one request: DESCRIBE to an RTSP camera, GET to one that speaks HTTP, with
the URL's credentials where it asks for them. A sentence says where that ended, and what to do. The host is shown,
credentials and paths never are. Certificates are not checked, because FFmpeg does not check them either.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import ssl
import threading
import time
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from engine.errors import WireError
from engine.wire.http_auth import authorization
from engine.wire.urls import host_port

#: Port of each scheme where the URL names none.
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_TLS = ("rtsps", "https")
#: Bytes of an answer's head, and of a session's description, that are read at most.
_HEAD_BYTES_MAX = 32_768
_BODY_BYTES_MAX = 65_536
#: Redirects followed, as FFmpeg does; and requests on the way: each may be asked for credentials once.
_REDIRECTS_MAX = 4
#: Seconds beyond its bound after which a check is given up: looking a host up cannot be interrupted.
_GRACE_SECONDS = 1.0
#: Characters of what a camera says of itself that are shown.
_SHOWN_CHARACTERS_MAX = 60

_UNAUTHORISED = 401
_REDIRECT = range(300, 400)
#: Numbers from here on blame the request, and from here on the camera.
_REFUSED, _FAILED = 400, 500
#: What an answer's number means, and what to do; others are shown as they are.
_MEANINGS: dict[int, tuple[str, str]] = {
    403: ("access refused", "give this user the right to view, or wait where too many wrong passwords came before"),
    404: ("no such path", "correct the path in its url"),
    405: ("the camera does not take this kind of request", "check that its url is that of the stream"),
    410: ("no such path any more", "correct the path in its url"),
    453: ("not enough bandwidth for one more session", "close other viewers, or lower the stream's bit rate"),
    503: ("the camera is busy", "close other viewers; some cameras allow one session only"),
}
_TRY_BY_HAND = "look at its limit of sessions and at its codec, and open it with ffplay"


class Trouble(NamedTuple):
    """Why a camera sends no video, and what a person can do."""

    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}"


class CameraCheck:
    """One look at a camera, in a thread of its own: the process goes on beating meanwhile, and can be stopped."""

    def __init__(self, url: str, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds + _GRACE_SECONDS
        self._text = ""
        self._thread = threading.Thread(target=self._run, args=(url,), name="camera check", daemon=True)
        self._thread.start()

    def _run(self, url: str) -> None:
        self._text = str(examine(url, self._seconds))

    def wait(self, seconds: float) -> bool:
        """True once there is a result, at the latest a second after the check's own bound."""
        self._thread.join(max(0.0, min(seconds, self._until - time.monotonic())))
        return not self._thread.is_alive() or time.monotonic() >= self._until

    def result(self) -> str:
        """What is wrong, and what to do."""
        if self._text:
            return self._text
        return str(Trouble(f"its host was not found within {self._seconds:g} s", "look at this machine's DNS"))


def examine(url: str, seconds: float) -> Trouble:
    """Ask the camera at an RTSP or HTTP ``url`` within ``seconds``; looking its host up may take longer. Never
    raises."""
    try:
        return _ask(urlsplit(url), time.monotonic() + seconds, seconds)
    except (ValueError, OSError):
        # The error may quote what was taken for a port, and is a part of the password.
        return Trouble(
            "its url has no host and port that can be used",
            "correct them; in user and password write : / ? # @ and % as %3A %2F %3F %23 %40 %25",
        )


def _ask(parts: SplitResult, deadline: float, seconds: float) -> Trouble:
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    home = parts.hostname
    if parts.scheme.startswith("http") and os.environ.get("http_proxy"):
        return Trouble("it refused, or sent no video through the proxy", "open it with ffplay; http_proxy is set")
    for _ in range(_REDIRECTS_MAX):
        host = parts.hostname or ""
        where = _where(parts)
        try:
            # What another host is told is none of the first one's secrets.
            answer = _Request(parts, deadline).send(*((user, password) if host == home else ("", "")))
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                return Trouble(f"no name server answers for {host}", "look at this machine's DNS")
            return Trouble(f"no such host: {host}", "correct the host in its url, or this machine's DNS")
        except ConnectionRefusedError:
            port = parts.port or _PORTS[parts.scheme]
            return Trouble(
                f"port {port} closed at {host}", "correct the port in its url, or turn the service on in the camera"
            )
        except _Silent:
            return Trouble(
                f"{where} takes connections, but gives no answer for {seconds:g} s",
                f"restart the camera, and check that this port speaks {parts.scheme}",
            )
        except TimeoutError:
            return Trouble(
                f"no answer from {host} for {seconds:g} s",
                "look at its power, network and address, and for a firewall on the way",
            )
        except ssl.SSLError as error:
            return Trouble(
                f"TLS handshake with {where} failed ({_shown(error.reason or str(error))})",
                f"check that this port speaks TLS, or use {parts.scheme[:-1]}://",
            )
        except (WireError, ConnectionError) as error:
            return Trouble(
                f"{where} {error if isinstance(error, WireError) else 'closed the connection'}",
                f"check that this port speaks {parts.scheme}, and restart the camera",
            )
        except OSError as error:
            return Trouble(f"{host} cannot be reached: {error.strerror or error}", "look at this machine's network")
        if answer.status not in _REDIRECT or not answer.headers.get("location"):
            return _verdict(parts, answer, credentials=bool(user or password))
        target = urlsplit(urljoin(parts.geturl(), answer.headers["location"]))
        if target.scheme.rstrip("s") != parts.scheme.rstrip("s"):
            return Trouble(
                f"{where} redirects to {_shown(target.scheme)}:// ({answer.status})", "give the stream's own url"
            )
        parts = target
    return Trouble(f"{where} redirects without end", "give the stream's own url")


def _verdict(parts: SplitResult, answer: _Answer, *, credentials: bool) -> Trouble:
    """What a camera's last answer means."""
    status, host = answer.status, parts.hostname
    source = f"({status} from {host})"
    if status == _UNAUTHORISED:
        if answer.unanswerable:
            return Trouble(
                f"asks for a login that is not supported: {answer.unanswerable} {source}",
                "let the camera take Digest with MD5, or Basic",
            )
        if credentials:
            return Trouble(f"wrong user or password {source}", "correct them in its url")
        return Trouble(f"asks for user and password {source}", "put them into its url")
    if status in _MEANINGS:
        reason, advice = _MEANINGS[status]
        return Trouble(f"{reason} {source}", advice)
    if status >= _REFUSED:
        reason = "the camera fails" if status >= _FAILED else "the camera refuses"
        return Trouble(f"{reason}: {answer.phrase} {source}", "restart the camera, and look at its own log")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if parts.scheme.startswith("http") and re.match(r"text/|application/(json|xml|xhtml|javascript)", kind):
        return Trouble(f"sends {_shown(kind)}, which is no video (from {host})", "correct the path in its url")
    if kind == "application/sdp" and not re.search(rb"^m=video ", answer.body, re.MULTILINE):
        return Trouble(f"has no video in this stream (from {host})", "correct the path in its url")
    return Trouble(f"{_where(parts)} answers, but sends no video", _TRY_BY_HAND)


class _Silent(TimeoutError):
    """Connected, and nothing came."""


class _Answer(NamedTuple):
    status: int
    phrase: str
    #: Names in lower case; of those that stand more than once the last.
    headers: dict[str, str]
    challenges: list[str]
    body: bytes
    #: Why a 401 could not be answered.
    unanswerable: str = ""


class _Request:
    """One request, asked again with credentials where it is answered with 401."""

    def __init__(self, parts: SplitResult, deadline: float) -> None:
        self._parts = parts
        self._deadline = deadline
        self._sequence = 0

    def send(self, user: str, password: str) -> _Answer:
        """The answer. Raises OSError, _Silent, WireError."""
        answer = self._round("")
        if answer.status != _UNAUTHORISED or not (user or password):
            return answer
        rtsp = self._parts.scheme.startswith("rtsp")
        method, uri = ("DESCRIBE", _bare(self._parts)) if rtsp else ("GET", _target(self._parts))
        try:
            login = authorization(answer.challenges, method, uri, user, password, secrets.token_hex(8))
        except WireError as error:
            return answer._replace(unanswerable=str(error))
        return self._round(f"Authorization: {login}\r\n")

    def _round(self, login: str) -> _Answer:
        parts = self._parts
        self._sequence += 1
        where = host_port(parts.hostname or "", parts.port or _PORTS[parts.scheme])
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
                raise _Silent from None

    def _connect(self) -> socket.socket:
        parts = self._parts
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from None
        failure: OSError = TimeoutError()
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                # A host's addresses share the time that is left.
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
    """TLS as FFmpeg speaks it to cameras: their certificates are their own, and their versions old."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except TimeoutError:
        connection.close()
        raise _Silent from None
    except OSError as error:
        connection.close()
        if isinstance(error, ssl.SSLError):
            raise
        raise ssl.SSLError(0, "the connection was closed") from None


def _read_answer(connection: socket.socket, deadline: float, *, rtsp: bool) -> _Answer:
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
    return _Answer(int(match[1]), _shown(match[2] or ""), headers, challenges, body)


def _left(deadline: float) -> float:
    """Seconds until then. Raises TimeoutError where there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _bare(parts: SplitResult) -> str:
    """The URL without credentials."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _target(parts: SplitResult) -> str:
    """What a GET asks for."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _where(parts: SplitResult) -> str:
    return host_port(parts.hostname or "", parts.port or _PORTS[parts.scheme])


def _shown(text: str) -> str:
    """What a camera says, fit to be shown: it may say anything."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain[:_SHOWN_CHARACTERS_MAX]
