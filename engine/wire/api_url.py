"""The address of a site's API, as others reach it: ``http://host:port`` or ``https://host:port/path``."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from engine.errors import ConfigError
from engine.wire.urls import host_port, is_host

_PORTS = {"http": 80, "https": 443}
#: Most characters of an address.
_CHARACTERS_MAX = 2048
#: What an address consists of. Everything else is percent-encoded in it.
_CHARACTERS = re.compile(r"[!-~]*")


class ApiUrl(NamedTuple):
    """Where an API is. ``path`` is empty or begins with a slash and does not end with one: that of a proxy, below which
    the API's own paths begin."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def tls(self) -> bool:
        """True if the connection is encrypted."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """Host and port, as the header ``Host`` names them."""
        return host_port(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_api_url(url: str, what: str) -> ApiUrl:
    """The API that ``url`` names. Raises ConfigError: it begins with ``what`` and shows no credentials."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _no_form(what) from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or not _CHARACTERS.fullmatch(url):
        raise _no_form(what)
    if "@" in url:
        raise ConfigError(f"{what} has a user or password; the API takes a token instead")
    if "?" in url or "#" in url:
        raise ConfigError(f"{what} has a query or fragment; give only host, port and path")
    if len(url) > _CHARACTERS_MAX:
        raise ConfigError(f"{what} has {len(url):,} characters, at most {_CHARACTERS_MAX:,}")
    if not is_host(parts.hostname) or "%" in parts.hostname:
        raise ConfigError(f"{what} names an invalid host")
    return ApiUrl(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def _no_form(what: str) -> ConfigError:
    return ConfigError(f"{what} must be http://host:port or https://host:port")
