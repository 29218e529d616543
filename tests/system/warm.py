"""``edge-video`` without the cost of a new interpreter: a fork of one process that has the engine's libraries loaded.

A new interpreter spends two thirds of a second of CPU on imports, and the tests run hundreds of commands. Here, each
worker of pytest starts one warm process. For each command it forks; the fork runs ``python -m engine`` in place, with
the arguments, environment, directory and standard streams of its own, and ends as an interpreter ends.

What a new interpreter reads before the engine runs is out of its reach: see ``fits``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import setproctitle

import engine
from engine.cli.main import _LIBRARY_ENVIRONMENT
from tests.servers.wait import die_with_parent, readable

ROOT = Path(__file__).parent.parent.parent
#: What Python, or a library while it is imported, reads of the environment.
_READ_EARLY = (
    "PYTHON",
    "LC_",
    "LANG",
    "OPENCV_",
    "OPENBLAS_",
    "TERMINAL_WIDTH",
    "FORCE_COLOR",
    "NO_COLOR",
)
_REQUEST_BYTES_MAX = 200_000
_ANSWER_BYTES_MAX = 20


def fits(environment: Mapping[str, str]) -> bool:
    """Whether a process that was started with this worker's first environment behaves as one started with this."""
    return _early(environment) == _FIRST


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_EARLY) and name != "PYTHONPATH"}


_FIRST = _early(os.environ)


class Fork:
    """A command under way, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, arguments: list[str], answers: socket.socket) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._answers = answers
        self.pid = int(answers.recv(_ANSWER_BYTES_MAX))

    def poll(self) -> int | None:
        """The exit code, as Popen's; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not readable(self._answers, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._answers.recv(_ANSWER_BYTES_MAX))
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmProcess:
    """The warm process of this worker, started when it is first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], directory: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``edge-video ARGUMENTS`` to its end. Raises TimeoutExpired, once it is killed, after ``timeout`` s."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = self.start(arguments, environment, directory, out.fileno(), err.fileno())
            try:
                code = child.wait(timeout)
            except subprocess.TimeoutExpired as error:
                child.kill()
                child.wait()
                error.add_note(_text(err))
                raise
            return subprocess.CompletedProcess(child.args, code, _text(out), _text(err))

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        out: int,
        err: int,
        *,
        session: bool = False,
    ) -> Fork:
        """Start ``edge-video ARGUMENTS`` with these descriptors as its outputs, in a ``session`` of its own or in the
        worker's."""
        request = json.dumps([list(arguments), dict(environment), str(directory), session]).encode()
        # Packets: each answer is received whole.
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            socket.send_fds(self._started(), [request], [0, out, err, theirs.fileno()])
        return Fork(list(arguments), answers)

    def _started(self) -> socket.socket:
        if self._channel is None:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _REQUEST_BYTES_MAX)
            with theirs:
                subprocess.Popen(
                    [sys.executable, "-m", "tests.system.warm", str(theirs.fileno())],
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    pass_fds=[theirs.fileno()],
                    preexec_fn=die_with_parent(),  # noqa: PLW1509  (see there)
                )
        return self._channel


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


def _serve(channel: socket.socket) -> list[str]:
    """Fork for each request; returns, in the command's process, its arguments. Exits once the worker has ended."""
    # Nobody waits for the processes that wait for commands.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    die = die_with_parent()
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES_MAX, 4)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            # A worker that is killed takes its sites with it.
            die()
            channel.close()
            return _attend(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _attend(request: bytes, descriptors: list[int]) -> list[str]:
    """Tell the command's process id and exit code; returns, in the command's process, its arguments."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, answers = descriptors
    die = die_with_parent()
    pid = os.fork()
    if pid:
        for descriptor in streams:
            os.close(descriptor)
        with contextlib.suppress(BrokenPipeError):
            os.write(answers, b"%d" % pid)
            _, status = os.waitpid(pid, 0)
            os.write(answers, b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    die()
    os.close(answers)
    for target, descriptor in enumerate(streams):
        os.dup2(descriptor, target)
        os.close(descriptor)
    arguments, environment, directory, session = json.loads(request)
    if session:
        os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    return list(arguments)


def _warm_up() -> None:
    """Load all of the engine, with the environment in which a command loads it."""
    # Finds the place of the title by the environment's, which moves when the environment is replaced.
    setproctitle.getproctitle()
    before = dict(os.environ)
    for name, value in _LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        if module.name != "engine.__main__":
            importlib.import_module(module.name)
    os.environ.clear()
    os.environ.update(before)
    # The garbage collector writes to what it looks at, and each fork would copy it.
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _warm_up()
    sys.argv[1:] = _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("engine", run_name="__main__", alter_sys=True)
