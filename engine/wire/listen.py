"""Addresses on which a server listens: ``host:port``."""

from __future__ import annotations

from engine.errors import ConfigError


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:8080``, ``[::1]:8080`` or ``:8080`` (all interfaces). Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535 or (":" in host and not bracketed):
        raise ConfigError(f'web.listen {text!r} is not host:port, such as 127.0.0.1:8080; "" turns the web role off')
    return host, int(port)
