"""One child process of a test: started until ready, signalled and ended by its own pid."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from tests.servers.wait import comes_within, die_with_parent, wait_until


class Child:
    """A process with a log file and, when it ends, nothing left of what it started itself."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def running(self) -> bool:
        """Whether it is alive and not stopped by SIGSTOP."""
        return bool(self.alive and psutil.Process(self.pid).status() != psutil.STATUS_STOPPED)

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(
        self,
        argv: Sequence[str | Path],
        ready: Callable[[], bool],
        timeout: float,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it and return once `ready()`; its log is in the error when it does not get there."""
        assert not self.alive, f"{self.name} runs already as {self.pid}"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(arg) for arg in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.log.parent,
                env=env,
                # Its own session: Ctrl-C is for the tests, which then stop their servers in order.
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  (see there)
            )
        process = self._process

        def up() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {process.returncode} before it was ready")
            return ready()

        try:
            wait_until(up, timeout, f"{self.name} is ready")
        except BaseException as error:
            self.kill()
            error.add_note(f"end of {self.log}:\n{self.log_tail()}")
            raise

    def log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} is not running"
        assert self.alive, f"{self.name} has ended with {self._process.returncode}"
        self._process.send_signal(number)

    def stop(self, timeout: float) -> None:
        """SIGTERM, and SIGKILL to what is left of it after `timeout` seconds."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """SIGKILL, also to what it started itself."""
        self._end(signal.SIGKILL, timeout=10)

    def _end(self, number: signal.Signals, timeout: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        offspring: list[psutil.Process] = []
        if process.poll() is None:
            offspring = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
        if number != signal.SIGKILL:
            # After a graceful end its offspring may still be at theirs.
            comes_within(lambda: not any(map(lives, offspring)), 3)
        for descendant in filter(lives, offspring):
            with suppress(psutil.NoSuchProcess):
                descendant.kill()
        wait_until(lambda: not any(map(lives, offspring)), 10, f"nothing is left of {self.name}")


class Server:
    """A server of one child process, which subclasses start: the rest of its life, and the context manager."""

    _child: Child
    #: Seconds that it may take to end.
    _stop_seconds_max = 5.0

    def start(self) -> None:
        """Start the server, and return once it answers."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        return self._child.pid

    def stop(self) -> None:
        self._child.stop(self._stop_seconds_max)

    def kill(self) -> None:
        self._child.kill()

    def pause(self) -> None:
        """The server stands still: connections stay open, new ones are still accepted by the kernel."""
        self._child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on; what was due meanwhile comes at once."""
        self._child.send(signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def titled(beginning: str) -> dict[int, str]:
    """The running processes whose title or command line begins so, by their ids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # A process may end meanwhile. One that has ended and is not collected yet has an empty command line.
        with suppress(OSError):
            title = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if title.startswith(beginning):
                found[int(path.parent.name)] = title
    return found


def lives(process: psutil.Process) -> bool:
    """Whether it still runs; an orphan that init has not collected yet does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
