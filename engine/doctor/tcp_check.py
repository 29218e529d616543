"""Whether a server's address can be connected to at all, and where on the way it ends."""

from __future__ import annotations

import socket
from typing import Literal, NamedTuple

from engine.doctor.findings import Finding, Part

#: ``answers``: something accepts connections there, so the trouble is above TCP.
Way = Literal["answers", "no such name", "refused", "no answer", "unreachable", "no socket"]


class Reach(NamedTuple):
    """How a try to connect ended, and from which host it was made."""

    way: Way
    detail: str
    origin: str


def try_to_reach(host: str, port: int, path: str, timeout_seconds: float) -> Reach:
    """Connect to a Unix socket where ``path`` is given, else by TCP, and say nothing. Never raises OSError."""
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
    """The finding for a server that did not serve us; ``error`` is the engine's own words."""
    todo = {
        "answers": "it accepts connections and does not speak as it should: look at its log, and whether TLS is meant",
        "no such name": "correct the host's name in the site file, or this machine's DNS",
        "refused": "start the server, or correct the port; look at its bind address and, in docker, its published port",
        "no answer": "look for a firewall between the two machines, and whether that host is up and not overloaded",
        "unreachable": "look at this machine's network, and at the rights on the path to a socket",
        "no socket": "start the server, or correct the path; in docker, mount the socket's directory",
    }[reach.way]
    found = error if reach.way == "answers" else f"{address} from {reach.origin}: {reach.way} ({reach.detail})"
    return Finding(part, "reachable", "broken", found, "a connection within the timeout", todo)
