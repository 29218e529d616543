"""Finds out why a network camera did not open. FFmpeg does not report this, so the camera gets one more request.

``camera_request.py`` sends the request. The result is a sentence that says where it failed, and what to do. It shows
the host, but never credentials or paths.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from engine.errors import CameraUnavailable, WireError
from engine.sources.camera_connection import PORTS, Silent
from engine.sources.camera_request import REDIRECTS_MAX, UNAUTHORISED, Answer, Request, host_of, shown

#: Seconds after its bound until a check is given up: a host lookup cannot be interrupted.
_GRACE_SECONDS = 1.0
#: First status codes that blame the request, and the camera.
_REFUSED, _FAILED = 400, 500
#: Meanings of status codes, and what to do; other codes are shown with the camera's own text.
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
    """Why a camera sends no video, and what a person can do about it."""

    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}"


class CameraCheck:
    """One check of a camera, in its own thread, so that the process's heartbeat continues and a stop works."""

    def __init__(self, url: str, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds + _GRACE_SECONDS
        self._trouble: Trouble | None = None
        self._thread = threading.Thread(target=self._run, args=(url,), name="camera check", daemon=True)
        self._thread.start()

    def _run(self, url: str) -> None:
        self._trouble = examine(url, self._seconds)

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds``; True once there is a result, at the latest a second after the check's own bound."""
        self._thread.join(max(0.0, min(seconds, self._until - time.monotonic())))
        return not self._thread.is_alive() or time.monotonic() >= self._until

    def failure(self) -> CameraUnavailable:
        """The cause and what to do, as an error that also has the ``advice`` by itself."""
        slow = Trouble(f"its host was not found within {self._seconds:g} s", "look at this machine's DNS")
        trouble = self._trouble or slow
        return CameraUnavailable(str(trouble), advice=trouble.advice)


def examine(url: str, seconds: float) -> Trouble:
    """Ask the camera at an RTSP or HTTP ``url`` within ``seconds``; the host lookup may take longer. Never raises."""
    try:
        return _ask(urlsplit(url), time.monotonic() + seconds, seconds)
    except (ValueError, OSError):
        # The error is not shown: it may quote a part of the password that was parsed as the port.
        return Trouble(
            "its url has no host and port that can be used",
            "correct them; in user and password write : / ? # @ and % as %3A %2F %3F %23 %40 %25",
        )


def _ask(parts: SplitResult, deadline: float, seconds: float) -> Trouble:
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    home = parts.hostname
    if parts.scheme.startswith("http") and os.environ.get("http_proxy"):
        return Trouble("it refused, or sent no video through the proxy", "open it with ffplay; http_proxy is set")
    for _ in range(REDIRECTS_MAX):
        host = parts.hostname or ""
        where = host_of(parts)
        try:
            # Another host must not receive the first one's credentials.
            answer = Request(parts, deadline).send(*((user, password) if host == home else ("", "")))
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                return Trouble(f"no name server answers for {host}", "look at this machine's DNS")
            return Trouble(f"no such host: {host}", "correct the host in its url, or this machine's DNS")
        except ConnectionRefusedError:
            port = parts.port or PORTS[parts.scheme]
            return Trouble(
                f"port {port} closed at {host}", "correct the port in its url, or turn the service on in the camera"
            )
        except Silent:
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
                f"TLS handshake with {where} failed ({shown(error.reason or str(error))})",
                f"check that this port speaks TLS, or use {parts.scheme[:-1]}://",
            )
        except (WireError, ConnectionError) as error:
            return Trouble(
                f"{where} {error if isinstance(error, WireError) else 'closed the connection'}",
                f"check that this port speaks {parts.scheme}, and restart the camera",
            )
        except OSError as error:
            return Trouble(f"{host} cannot be reached: {error.strerror or error}", "look at this machine's network")
        target = answer.redirect(parts)
        if target is None:
            return _verdict(parts, answer, credentials=bool(user or password))
        if target.scheme.rstrip("s") != parts.scheme.rstrip("s"):
            return Trouble(
                f"{where} redirects to {shown(target.scheme)}:// ({answer.status})", "give the stream's own url"
            )
        parts = target
    return Trouble(f"{where} redirects without end", "give the stream's own url")


def _verdict(parts: SplitResult, answer: Answer, *, credentials: bool) -> Trouble:
    """The meaning of a camera's last answer."""
    status, host = answer.status, parts.hostname
    source = f"({status} from {host})"
    if status == UNAUTHORISED:
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
        return Trouble(f"sends {shown(kind)}, which is no video (from {host})", "correct the path in its url")
    if kind == "application/sdp" and not re.search(rb"^m=video ", answer.body, re.MULTILINE):
        return Trouble(f"has no video in this stream (from {host})", "correct the path in its url")
    return Trouble(f"{host_of(parts)} answers, but sends no video", _TRY_BY_HAND)
