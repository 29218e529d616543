"""One HTTP request to a site: a GET over asyncio, within limits of time and bytes.

No redirect is followed, because a token goes to the site that it is for and to nobody else. TLS always checks
certificate and host name. httptools parses the answer, as in the web role.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import NamedTuple

import httptools

from engine.config.tls import tls_refusal
from engine.errors import Unavailable
from engine.wire.api_url import ApiUrl

#: Most bytes of an answer. The report of a site of a thousand cameras has about two million.
ANSWER_BYTES_MAX = 2**23
#: Bytes that are read at once.
_PIECE_BYTES = 65_536


class Answer(NamedTuple):
    """Status and body of an answer."""

    status: int
    body: bytes


async def get(api: ApiUrl, path: str, token: str, timeout_seconds: float, context: ssl.SSLContext | None) -> Answer:
    """The answer to a GET of ``path``, which begins with a slash. ``context`` is for an API that speaks TLS.

    Raises Unavailable with the reason, also when the whole answer is not there within ``timeout_seconds``.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _get(api, path, token, context)
    except TimeoutError:
        raise Unavailable(f"no answer within {timeout_seconds:g} s") from None
    except ssl.SSLError as error:
        refusal = tls_refusal(error)
        raise Unavailable(f"TLS: {refusal.reason if refusal else error.reason or 'the handshake failed'}") from None
    except OSError as error:
        raise Unavailable(_reason(error)) from None
    except httptools.HttpParserError:
        raise Unavailable("the answer is no HTTP") from None


def _reason(error: OSError) -> str:
    """What the system says. Look-ups of names have negative numbers, and asyncio joins the errors of several addresses
    into one text without a number."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


async def _get(api: ApiUrl, path: str, token: str, context: ssl.SSLContext | None) -> Answer:
    reader, writer = await asyncio.open_connection(api.host, api.port, ssl=context if api.tls else None)
    try:
        lines = [
            f"GET {api.path}{path} HTTP/1.1",
            f"Host: {api.authority}",
            "Accept: application/json",
            "Connection: close",
            *([f"Authorization: Bearer {token}"] if token else []),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        await writer.drain()
        parts = _Parts()
        parser = httptools.HttpResponseParser(parts)
        received = 0
        while not parts.complete:
            piece = await reader.read(_PIECE_BYTES)
            if not piece:
                break
            received += len(piece)
            if received > ANSWER_BYTES_MAX:
                raise Unavailable(f"the answer has more than {ANSWER_BYTES_MAX:,} bytes")
            parser.feed_data(piece)
        if not parts.complete and not parts.until_the_end:
            raise Unavailable("the connection ended within the answer")
        return Answer(parser.get_status_code(), b"".join(parts.body))
    finally:
        # A peer that does not take part in the end of the connection must not hold up the others.
        writer.transport.abort()


class _Parts:
    """What the parser has found of an answer."""

    def __init__(self) -> None:
        self.complete = False
        #: True if no header says how long the body is: the end of the connection is its end.
        self.until_the_end = False
        self.body: list[bytes] = []
        self._sized = False

    def on_header(self, name: bytes, _: bytes) -> None:
        """A line of the head."""
        self._sized |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self.until_the_end = not self._sized

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.body.append(body)

    def on_message_complete(self) -> None:
        """The end of the answer."""
        self.complete = True
