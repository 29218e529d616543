"""Tokens and sessions: who a bearer token or a cookie speaks for.

A session is a signed value: who it is for, until when, and a MAC whose key is derived from that reader's token. It
needs no memory here, survives a restart, and ends when the token is changed. The token itself is in no cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from urllib.parse import quote, unquote

import msgspec

from engine.config.web import Tokens
from engine.web.reader import Reader

#: Seconds for which a log-in is valid: a week.
SESSION_SECONDS = 7 * 86_400
_VERSION = "1"
#: Separates the use of a token as a MAC key from all others.
_PURPOSE = b"edge-video web session"


class _Holder(msgspec.Struct, frozen=True):
    """Whose token it is. ``name`` is the tenant's vhost, empty for the operator."""

    name: str
    token: bytes
    reader: Reader
    key: bytes


class Sessions:
    """The tokens of a site, and the sessions that were opened with them."""

    def __init__(self, tokens: Tokens, vhost: str, clock: Callable[[], float] = time.time) -> None:
        named = [("", tokens.operator, Reader(vhost, all_tenants=True))] if tokens.operator else []
        named += [(name, token, Reader(name)) for name, token in tokens.tenants.items()]
        self._clock = clock
        self._salt = os.urandom(16)
        self._by_digest: dict[bytes, _Holder] = {}
        self._by_name: dict[str, _Holder] = {}
        for name, token, reader in named:
            key = hmac.digest(token.encode(), _PURPOSE, "sha256")
            holder = _Holder(name, token.encode(), reader, key)
            self._by_digest[self._digest(holder.token)] = self._by_name[name] = holder

    def of_token(self, token: bytes) -> Reader | None:
        """Whose token it is. The time that it takes tells nothing about a token: the table is by salted digests, and
        the comparison is constant."""
        holder = self._by_digest.get(self._digest(token))
        return holder.reader if holder and hmac.compare_digest(holder.token, token) else None

    def of_session(self, value: str) -> Reader | None:
        """Whose session it is; None if it is none of ours, or has expired."""
        version, _, rest = value.partition(".")
        text, _, signature = rest.rpartition(".")
        name, _, until = text.rpartition(".")
        holder = self._by_name.get(unquote(name))
        if version != _VERSION or holder is None or not (until.isascii() and until.isdigit()) or len(until) > 12:
            return None
        if not hmac.compare_digest(self._signature(holder, text).encode(), signature.encode()):
            return None
        return holder.reader if self._clock() < int(until) else None

    def open_session(self, reader: Reader) -> str:
        """A new session of a reader that showed its token."""
        holder = self._by_name["" if reader.all_tenants else reader.vhost]
        text = f"{quote(holder.name, safe='')}.{int(self._clock()) + SESSION_SECONDS}"
        return f"{_VERSION}.{text}.{self._signature(holder, text)}"

    def _digest(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, digest_size=16, key=self._salt).digest()

    @staticmethod
    def _signature(holder: _Holder, text: str) -> str:
        return hmac.digest(holder.key, text.encode(), "sha256").hex()
