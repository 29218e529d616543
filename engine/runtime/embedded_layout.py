"""The embedded servers of a site: their files, their settings, and the slots of each.

One server has ``redis.sock`` and its other files in the run directory itself. Several are a Redis Cluster of masters
without a cluster bus:

    run directory/
      redis-1.sock, redis-2.sock          where clients connect; only the site's user may
      server-1-of-2.lock, …               engine/runtime/server_process.py
      valkey-1.log, …
      redis-1-of-2/                       a server's own directory: nodes.conf, append-only files

The bus has no login: a user who reaches it can take slots from a node, and the node deletes their keys. So no server
listens on it. ``bind`` names an address that no machine has, and the hyphen before it lets a server start without it.
The address of all nodes is the broadcast address, to which the kernel connects nobody. Each node knows the others from
the ``nodes.conf`` that is written here, and the time until it misses them is longer than any site runs.

Clients are told ``embedded:1`` and so on, which ``RedisAddress.node`` turns into the path of a socket.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.config import Config
from engine.wire.cluster import SLOTS
from engine.wire.redis_address import EMBEDDED, RedisAddress, embedded_address

#: Reserved for documentation (RFC 5737), so that no machine has it.
_NO_ADDRESS = "-192.0.2.1"
_NODE_IP = "255.255.255.255"
#: Milliseconds: 30 years.
_NODE_TIMEOUT_MS = 10**12
#: With ``port 0``, a server wants to know the port of its bus.
_BUS_PORT = 1
_LOCK = re.compile(r"server(?:-([0-9]+)-of-([0-9]+))?\.lock")
_OWN_DIRECTORY = re.compile(r"redis-[0-9]+-of-([0-9]+)")
_APPEND_ONLY = "appendonlydir"
_NODES = "nodes.conf"


class ServerFiles(NamedTuple):
    """The files of server ``number`` (from 1) of ``servers``, in a site's run directory."""

    directory: Path
    number: int = 1
    servers: int = 1

    @property
    def lock(self) -> Path:
        """The file by which a running server is found."""
        return self.directory / ("server.lock" if self.servers == 1 else f"server-{self.number}-of-{self.servers}.lock")

    @property
    def log(self) -> Path:
        """Its log."""
        return self.directory / ("valkey.log" if self.servers == 1 else f"valkey-{self.number}.log")

    @property
    def data(self) -> Path:
        """The directory of what it writes."""
        return self.directory if self.servers == 1 else self.directory / f"redis-{self.number}-of-{self.servers}"

    @property
    def address(self) -> RedisAddress:
        """Its socket, as the address of one server."""
        whole = embedded_address(str(self.directory), self.servers)
        return whole.node(EMBEDDED, self.number) if whole.cluster else whole

    def make(self) -> None:
        """Make its directory, and write what it knows of the other servers. Raises OSError."""
        if self.servers == 1:
            return
        self.data.mkdir(mode=0o700, exist_ok=True)
        (self.data / _NODES).write_text(self._nodes())

    def remove(self) -> None:
        """Remove what ``make`` made, unless append-only files are there."""
        if self.servers > 1:
            (self.data / _NODES).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.data.rmdir()

    def _nodes(self) -> str:
        lines = []
        for number in range(1, self.servers + 1):
            first, last = (SLOTS * part // self.servers for part in (number - 1, number))
            flags = "myself,master" if number == self.number else "master"
            where = f"{_NODE_IP}:{number}@{_BUS_PORT},{EMBEDDED}"
            lines.append(f"{number:040x} {where} {flags} - 0 0 {number} connected {first}-{last - 1}")
        return "\n".join([*lines, f"vars currentEpoch {self.servers} lastVoteEpoch 0", ""])

    def settings(self, config: Config) -> dict[str, str]:
        """The server's settings. The servers share the memory that the site file gives them."""
        # Loaded here, because `edge-video status` needs only the names of the files.
        import psutil

        memory = psutil.virtual_memory().total * config.redis.max_memory_percent // 100
        found = {
            "port": "0",
            "unixsocket": self.address.path,
            "unixsocketperm": "600",
            "dir": str(self.data),
            "logfile": str(self.log),
            "loglevel": "warning",
            "maxmemory": str(memory // self.servers),
            "maxmemory-policy": "volatile-ttl",
            "save": "",
            "appendonly": "yes" if config.redis.persistence == "aof" else "no",
        }
        if self.servers > 1:
            found |= {
                "bind": _NO_ADDRESS,
                "cluster-enabled": "yes",
                "cluster-port": str(_BUS_PORT),
                "cluster-node-timeout": str(_NODE_TIMEOUT_MS),
                "cluster-announce-ip": _NODE_IP,
                "cluster-announce-port": str(self.number),
                "cluster-announce-bus-port": str(_BUS_PORT),
                "cluster-announce-hostname": EMBEDDED,
                "cluster-preferred-endpoint-type": "hostname",
            }
        return found


def layout(config: Config) -> list[ServerFiles]:
    """The servers that the site file asks for."""
    count = config.redis.embedded_servers
    return [ServerFiles(config.run_directory, number, count) for number in range(1, count + 1)]


def standing(directory: Path) -> Iterator[ServerFiles]:
    """The servers whose lock files are in a run directory, of any layout; they need not run."""
    for path in sorted(directory.glob("server*.lock")):
        if match := _LOCK.fullmatch(path.name):
            yield ServerFiles(directory, int(match[1] or 1), int(match[2] or 1))


def kept_counts(directory: Path) -> set[int]:
    """The numbers of servers for which append-only files are in a run directory."""
    found = {1} if (directory / _APPEND_ONLY).is_dir() else set()
    for path in directory.glob("redis-*-of-*"):
        if (match := _OWN_DIRECTORY.fullmatch(path.name)) and (path / _APPEND_ONLY).is_dir():
            found.add(int(match[1]))
    return found
