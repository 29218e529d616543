"""The socket on which the web role listens."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from engine.web.server import BACKLOG
from engine.wire.listen import ListenAddress


def open_socket(address: ListenAddress) -> socket.socket:
    """A listening socket. Raises OSError.

    It has SO_REUSEADDR, so that a restart need not wait for old connections, and not SO_REUSEPORT, with which two
    processes would both think that they serve. An empty host is all interfaces, of IPv4 and, where there is one, IPv6.
    """
    if address.path:
        return _unix_socket(address.path)
    if not address.host and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", address.port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True, reuse_port=False
        )
    found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # localhost has two addresses. Browsers try both, older programs the first one of IPv4 only.
    family, _, _, _, place = min(found, key=lambda one: one[0] != socket.AF_INET)
    return socket.create_server((str(place[0]), int(place[1])), family=family, backlog=BACKLOG, reuse_port=False)


def bound(address: ListenAddress, listening: socket.socket) -> ListenAddress:
    """The address with the port that the kernel chose."""
    return address if address.path else address._replace(port=listening.getsockname()[1])


def _unix_socket(path: str) -> socket.socket:
    """A socket that this user alone may use. One that nobody listens on any more is replaced."""
    if _is_dead(path):
        Path(path).unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(path)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening


def _is_dead(path: str) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        if stat.S_ISSOCK(Path(path).stat().st_mode):
            try:
                client.connect(path)
            except ConnectionRefusedError:
                return True
    return False
