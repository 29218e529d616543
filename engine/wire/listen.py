"""Addresses on which a server listens: ``host:port``, or the path of a Unix socket."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from engine.errors import ConfigError
from engine.wire.urls import is_host

#: The scheme of a Unix socket's path.
_UNIX = "unix:"


class ListenAddress(NamedTuple):
    """Where a server listens: ``host`` (empty: all interfaces) and ``port`` (0: any that is free), or a socket's
    ``path``."""

    host: str
    port: int
    path: str = ""

    @property
    def private(self) -> bool:
        """True if only this machine reaches it: a Unix socket, or the loopback interface."""
        return bool(self.path) or is_loopback(self.host)

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, *, tls: bool = False) -> str:
        """How a browser on this machine asks for it."""
        if self.path:
            return str(self)
        host = "localhost" if not self.host or _is_unspecified(self.host) else self.host
        return f"http{'s' if tls else ''}://{self._replace(host=host)}/"


def parse_listen(text: str) -> ListenAddress:
    """The address in ``127.0.0.1:8080``, ``[::1]:8080``, ``localhost:8080``, ``:8080`` (all interfaces) or
    ``unix:/path``. Raises ConfigError."""
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/"):
            raise ConfigError(f"web.listen {text!r}: the path of a Unix socket is absolute, such as unix:/run/web.sock")
        return ListenAddress("", 0, path)
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    valid = colon and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535
    if not valid or bracketed != (":" in host) or not (host == "" or _is_address(host, bracketed=bracketed)):
        raise ConfigError(f'web.listen {text!r} is not host:port, such as 127.0.0.1:8080; "" turns the web role off')
    return ListenAddress(host, int(port))


def is_loopback(host: str) -> bool:
    """True for ``localhost``, names under it, and addresses of the loopback interface."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_address(host: str, *, bracketed: bool) -> bool:
    if not bracketed:
        return is_host(host) and all(character.isalnum() or character in "-._" for character in host)
    try:
        return ip_address(host).version == 6
    except ValueError:
        return False
