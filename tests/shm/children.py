"""The other process: starts functions of ``peers`` in processes of their own, which end with the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import engine
from tests.servers.wait import die_with_parent, readable

_ROOT = Path(engine.__file__).parents[1]
#: Seconds that a child may take for anything it is waited for.
DEADLINE_SECONDS = 60.0


class Peer:
    """A process that runs one function of ``tests/shm/peers.py``; killed when the test is through with it."""

    def __init__(self, function: str, *arguments: object) -> None:
        self._name = function
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.shm.peers", function, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it takes no lock
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, timeout: float = DEADLINE_SECONDS) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            assert readable(descriptor, timeout), f"{self._name} said nothing for {timeout:g} s"
            data = os.read(descriptor, 65_536)
            assert data, f"{self._name} ended with {self._process.wait(timeout)}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def go(self) -> None:
        """Let it go on from its ``wait_for_go``."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def join(self, timeout: float = DEADLINE_SECONDS) -> None:
        """Wait for its good end."""
        assert self._process.wait(timeout) == 0, f"{self._name} ended with {self._process.returncode}"

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait(DEADLINE_SECONDS)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
