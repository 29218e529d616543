"""A Redis service of a test's own: master, replica, and sentinels that watch them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import redis

from tests.servers.process import Child
from tests.servers.redis_server import RedisServer
from tests.servers.wait import accepts_tcp, free_port, wait_until

_SENTINEL = """\
port {port}
bind 127.0.0.1
dir {directory}
sentinel monitor {service} 127.0.0.1 {master} {quorum}
sentinel down-after-milliseconds {service} 500
sentinel failover-timeout {service} 2000
"""


#: A replica need not wait five seconds for others that might want the same.
_SERVER = ("--repl-diskless-sync-delay", "0")
#: Seconds after which a failover that was asked for has happened or been given up.
_FAILOVER_SECONDS = 6.0


class SentinelService:
    """A master with one replica and ``count`` sentinels, which agree by majority."""

    def __init__(self, directory: Path, service: str = "mymaster", count: int = 3) -> None:
        self.directory = directory
        self.service = service
        self.servers = [RedisServer(directory / f"redis{number}", args=_SERVER) for number in range(2)]
        self.ports = [free_port() for _ in range(count)]
        self._sentinels = [Child("redis-sentinel", directory / f"sentinel{port}.log") for port in self.ports]

    @property
    def addresses(self) -> list[str]:
        """The sentinels', as a site's file has them."""
        return [f"127.0.0.1:{port}" for port in self.ports]

    @property
    def master(self) -> RedisServer:
        """The server that is the master by the first sentinel's word."""
        _, port = self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(server for server in self.servers if server.port == int(port))

    def client(self, **options: str) -> redis.Redis:
        """A client of the first sentinel."""
        return redis.Redis(host="127.0.0.1", port=self.ports[0], **options)

    def ask(self, *command: str) -> list[bytes]:
        """What the first sentinel answers."""
        with self.client() as client:
            answer: list[bytes] = client.execute_command(*command)
            return answer

    def failover(self) -> RedisServer:
        """The replica takes over, in order, with all that the master has by then; the new master."""
        old = self.master
        (replica,) = (server for server in self.servers if server is not old)
        # Sentinel does not wait for it.
        written = _offset(old)
        wait_until(lambda: _offset(replica) >= written, 30, "the replica has what its master has")
        asked_at = 0.0

        def handed_over() -> bool:
            nonlocal asked_at
            if self.master is not old:
                return True
            if time.monotonic() - asked_at > _FAILOVER_SECONDS:
                asked_at = time.monotonic()
                # A sentinel that has not heard of the replica for a moment takes none, and gives up.
                with suppress(redis.ResponseError):
                    self.ask("SENTINEL", "FAILOVER", self.service)
            return False

        wait_until(handed_over, 40, "the sentinels name another master")
        return self.master

    def kill_master(self) -> RedisServer:
        """SIGKILL to the master; the new one, once the sentinels have made it."""
        old = self.master
        old.kill()
        wait_until(lambda: self.master is not old, 30, "the sentinels name another master")
        return self.master

    def start(self) -> None:
        """Start all, and wait until the replica follows and the sentinels know each other."""
        master, replica = self.servers
        master.start()
        replica.args += ["--replicaof", "127.0.0.1", str(master.port)]
        replica.start()
        for port, sentinel in zip(self.ports, self._sentinels, strict=True):
            file = self.directory / f"sentinel{port}.conf"
            file.write_text(
                _SENTINEL.format(
                    port=port,
                    directory=self.directory,
                    service=self.service,
                    master=master.port,
                    quorum=len(self.ports) // 2 + 1,
                )
            )
            sentinel.start(["redis-server", file, "--sentinel"], lambda port=port: accepts_tcp(port), 20)  # type: ignore[misc]
        if len(self.ports) == 1:
            # What a sentinel does every two and every ten seconds it does at a test's pace. Several would undo what one
            # has done before it tells them.
            self.ask("SENTINEL", "DEBUG", "PUBLISH-PERIOD", "100", "INFO-PERIOD", "300")
        wait_until(self.settled, 30, "the sentinels know each other and the replica")

    def stop(self) -> None:
        """End all of them."""
        for child in self._sentinels:
            child.kill()
        for server in self.servers:
            server.kill()

    def settled(self) -> bool:
        """Whether the replica follows its master and the sentinels know each other."""
        with self.master.client() as client:
            if client.info("replication").get("slave0", {}).get("state") != "online":
                return False
        with self.client() as client:
            state = client.sentinel_master(self.service)
        others = len(self.ports) - 1
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == others)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _offset(server: RedisServer) -> int:
    """How many bytes of the replication stream the server has, as master or as replica."""
    with server.client() as client:
        state = client.info("replication")
        return int(state["master_repl_offset"] if state["role"] == "master" else state["slave_repl_offset"])
