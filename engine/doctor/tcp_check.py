"""Whether a server's address accepts connections, and if not, why."""

from __future__ import annotations

import socket
from typing import Literal, NamedTuple

from engine.doctor.findings import Finding, Part

#: ``answers``: something accepts connections there, so the trouble is above TCP.
Way = Literal["answers", "no such name", "refused", "no answer", "unreachable", "no socket"]


class Reach(NamedTuple):
    """The result of a try to connect, and the host that it was made from."""

    way: Way
    detail: str
    origin: str


def try_to_reach(host: str, port: int, path: str, timeout_seconds: float) -> Reach:
    """Connect to a Unix socket if ``path`` is given, else by TCP, and send nothing. Never raises OSError."""
    origin = socket.gethostname()
    try:
        if path:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(timeout_seconds)
                link.connect(path)
        else:
            socket.create_connection((host, port), timeout_seconds).close()
    except socket.gaierror as error:
        return Reach("no such name", f"{host}: {error.strerror}", origin)
    except ConnectionRefusedError:
        return Reach("refused", "nothing listens there", origin)
    except TimeoutError:
        return Reach("no answer", f"within {timeout_seconds:g} s", origin)
    except FileNotFoundError:
        return Reach("no socket", path, origin)
    except OSError as error:
        return Reach("unreachable", error.strerror or str(error), origin)
    return Reach("answers", "", origin)


def unreachable(part: Part, address: str, reach: Reach, error: str) -> Finding:
    """The finding for a server that could not be used; ``error`` is the engine's own message."""
    todo = {
        "answers": "it accepts connections but speaks another protocol: look at its log, and whether TLS is meant",
        "no such name": "correct the host's name in the site file, or this machine's DNS",
        "refused": "start the server, or correct the port; look at its bind address and, in docker, its published port",
        "no answer": "look for a firewall between the two machines, and whether that host is up and not overloaded",
        "unreachable": "look at this machine's network, and at the rights on the path to a socket",
        "no socket": "start the server, or correct the path; in docker, mount the socket's directory",
    }[reach.way]
    found = error if reach.way == "answers" else f"{address} from {reach.origin}: {reach.way} ({reach.detail})"
    return Finding(part, "reachable", "broken", found, "a connection within the timeout", todo)
