"""One HTTP connection: uvicorn's on httptools, with the bounds that it lacks.

uvicorn waits for ever for the rest of a request, and takes headers of any size and any number of requests at once. Here
a request must be complete within ``REQUEST_SECONDS``, its head and its body have a size, and a reader that takes
nothing for ``STUCK_SECONDS`` is cut off. ``sweep`` looks at all connections once a second, instead of a timer for each.

What a strict server and a lenient proxy would read differently (request smuggling) is refused and ends the connection:
httptools refuses two lengths, folded headers, bare line ends and odd chunks; this module refuses two hosts, targets
other than a path, and zero bytes.
"""

from __future__ import annotations

import time
from asyncio import Transport
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from engine.servers.overrides import expect, expect_uses
from engine.web.answers import problem
from engine.web.limits import CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, Shares

expect("uvicorn", HttpToolsProtocol, "data_received", "data")
expect("uvicorn", HttpToolsProtocol, "on_header", "name", "value")
expect("uvicorn", HttpToolsProtocol, "_unset_keepalive_if_required")
expect_uses("uvicorn", HttpToolsProtocol, "on_response_complete", "pipeline")
expect_uses("uvicorn", HttpToolsProtocol, "on_message_complete", "response_complete")

#: Seconds for which a whole request, head and body, may take to arrive.
REQUEST_SECONDS = 10.0
#: Seconds for which a connection may stay open between two requests, and before the first.
IDLE_SECONDS = 75
#: Seconds after which a reader that takes nothing of its answer is cut off. A film that is paused in a browser waits.
STUCK_SECONDS = 120.0
#: Most bytes of a request's target, and of all its head. A frame's key has at most 1 KB.
TARGET_BYTES_MAX, HEAD_BYTES_MAX = 8_192, 32_768
#: Most header lines. Browsers send about 20.
HEADERS_MAX = 100
#: Most bytes of a body. Only log-ins have one.
BODY_BYTES_MAX = 65_536
#: Most requests that wait for the answer to the one before them.
PIPELINED_MAX = 32
#: What the parser gets at once. Between two pieces it is looked at how much it holds.
_PIECE_BYTES = 65_536
#: Bytes that the parser may hold of a request that is not complete: chunks of a body have heads of their own.
_RAW_BYTES_MAX = HEAD_BYTES_MAX + 2 * BODY_BYTES_MAX + _PIECE_BYTES


class _Refused(Exception):
    """A request that gets an error and no other answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Connection(HttpToolsProtocol):
    """A connection with bounds. ``shares`` counts the connections of each address; set by ``Server``."""

    shares = Shares(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX)
    _address = ""

    #: When the request that arrives began; 0 between requests.
    _begun = 0.0
    #: Of this request: bytes of its headers and its body, and all that came since it began, whatever they are.
    _head_bytes = 0
    _body_bytes = 0
    _raw_bytes = 0
    _host_seen = False
    #: True once nothing that arrives matters any more.
    _closed = False
    _counted = False
    _made = 0.0
    #: The bytes that waited for the reader at the last sweep, and since when there were as many.
    _waiting = 0
    _waiting_since = 0.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else "localhost"
        if self.shares.full(self._address):
            self._refuse(_Refused(503, "too many connections; close some, or try again later"))
        self.shares.add(self._address)
        self._counted = True
        self._made = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._counted:
            self.shares.remove(self._address)
            self._counted = False
        self._closed = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived. Errors are answered here, in the form of all errors."""
        self._unset_keepalive_if_required()
        self._begun = self._begun or time.monotonic()
        for start in range(0, len(data), _PIECE_BYTES):
            if self._closed:
                return
            piece = data[start : start + _PIECE_BYTES] if len(data) > _PIECE_BYTES else data
            try:
                self.parser.feed_data(piece)
                self._raw_bytes += len(piece)
                if self._begun and self._raw_bytes > _RAW_BYTES_MAX:
                    # A header, or a trailer, that does not end: the parser shows it only when it has.
                    raise _Refused(431, f"the head of a request has at most {HEAD_BYTES_MAX:,} bytes")
            except httptools.HttpParserUpgrade:
                # Answered as if it had not asked for another protocol. What follows is not HTTP any more.
                self._stop_reading()
                if not self._answering():
                    self.transport.close()
            except _Refused as error:
                self._refuse(error)
            except httptools.HttpParserError as error:
                cause = error.__context__
                self._refuse(cause if isinstance(cause, _Refused) else _Refused(400, "this is not valid HTTP/1.1"))

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_bytes = self._body_bytes = self._raw_bytes = 0
        self._host_seen = False

    def on_url(self, url: bytes) -> None:
        """A part of its target arrived."""
        super().on_url(url)
        if len(self.url) > TARGET_BYTES_MAX:
            raise _Refused(414, f"the target of a request has at most {TARGET_BYTES_MAX:,} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header arrived."""
        super().on_header(name, value)
        lower = self.headers[-1][0]
        self._head_bytes += len(name) + len(value)
        if len(self.headers) > HEADERS_MAX or self._head_bytes > HEAD_BYTES_MAX:
            raise _Refused(431, f"a request has at most {HEADERS_MAX} headers and {HEAD_BYTES_MAX:,} bytes of them")
        if lower == b"host":
            if self._host_seen:
                raise _Refused(400, "two Host headers")
            self._host_seen = True
        elif lower == b"content-length" and (not value.isdigit() or int(value) > BODY_BYTES_MAX):
            raise _Refused(413, f"a body has at most {BODY_BYTES_MAX:,} bytes")

    def on_headers_complete(self) -> None:
        """The head is complete: begin to answer."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _Refused(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        if version == "1.1" and not self._host_seen:
            raise _Refused(400, "no Host header")
        if not self.url.startswith(b"/"):
            raise _Refused(400, "the target of a request is a path")
        if self.url.startswith(b"//") or b"%00" in self.url or b"\\" in self.url or b"#" in self.url:
            raise _Refused(400, "no path here has // at its start, zero bytes, backslashes or fragments")
        if len(self.pipeline) >= PIPELINED_MAX:
            raise _Refused(429, f"at most {PIPELINED_MAX} requests may wait for the answer to another")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body arrived."""
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES_MAX:
            raise _Refused(413, f"a body has at most {BODY_BYTES_MAX:,} bytes")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        super().on_message_complete()
        self._begun = 0.0

    def shutdown(self) -> None:
        """Called when the server ends: close it, after the answer that is being sent."""
        if self.transport is not None:
            super().shutdown()

    def sweep(self, now: float) -> None:
        """Close the connection if its request takes too long to arrive, or nobody reads its answer."""
        if self._begun and now - self._begun > REQUEST_SECONDS:
            self._begun = 0.0
            self._refuse(_Refused(408, f"a request must arrive within {REQUEST_SECONDS:g} s"))
            return
        waiting = self.transport.get_write_buffer_size()
        if not waiting or waiting != self._waiting:
            self._waiting, self._waiting_since = waiting, now
        elif now - self._waiting_since > STUCK_SECONDS:
            self.transport.abort()
        if self.cycle is None and not self._begun and now - self._made > IDLE_SECONDS:
            self.transport.close()

    def on_response_complete(self) -> None:
        """An answer is sent."""
        super().on_response_complete()
        if self._closed:
            self.transport.close()

    def _refuse(self, error: _Refused) -> None:
        """Answer with an error, and close. If an earlier request is being answered, close behind that answer."""
        if self._closed:
            return
        self._stop_reading()
        cycle = self.cycle
        if self._answering():
            queued = bool(self.pipeline)
            self.pipeline.clear()
            if queued or not cycle.more_body:
                return
            # The request that is being answered is the one that is wrong: its route waits for the rest of its body.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        answer = problem(error.status, error.detail)
        headers = [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n" + cast("bytes", answer.body))
        self.transport.close()

    def _stop_reading(self) -> None:
        """Take no notice of what else arrives."""
        self._closed = True
        self._begun = 0.0

    def _answering(self) -> bool:
        """True while a route answers a request of this connection."""
        return self.cycle is not None and not self.cycle.response_complete


def sweep(connections: set[Any]) -> None:
    """Look at all connections, once a second."""
    now = time.monotonic()
    for connection in list(connections):
        connection.sweep(now)
