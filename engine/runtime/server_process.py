"""A server process that may outlive the process that started it, and how the next process finds it.

The server inherits a descriptor of a lock file and unknowingly keeps it as long as it lives. The lock says that it
lives; the file's text says which process it is. The lock is taken before the fork, and the text is written before the
program is loaded. So a running server can always be found, even if its starter was killed at any moment.

A process holds the site's lock (``engine/runtime/lock.py``) while it starts a server, so only one starts at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.errors import InputError

#: Seconds to wait for a lock that another process takes for a moment to look.
_LOCK_SECONDS = 0.5
#: Seconds to wait for a lock whose holder is not a known server: a server that just started has not written its text
#: yet, and a fork of a killed server ends when it notices.
_NAMELESS_SECONDS = 5.0
#: Seconds between two checks.
_TICK_SECONDS = 0.01
_FILE_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class ServerProcess:
    """A server that was alive when it was found. While this is open, its process id cannot be reused."""

    def __init__(self, pid: int, descriptor: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._descriptor = descriptor
        # Set in its parent, which alone can collect it.
        self._child = child

    def ended(self, seconds: float = 0.0) -> bool:
        """True once it has ended; waits for that at most ``seconds``."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        over = bool(poll.poll(1000 * seconds))
        if over and self._child:
            self._child.wait()
        return over

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it is alive."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Close the handle; the server keeps running."""
        os.close(self._descriptor)
        if self._child:
            # Otherwise ``Popen`` warns that the process still runs.
            self._child.returncode = self._child.poll() or 0


def find(lock: Path, seconds: float = _NAMELESS_SECONDS) -> ServerProcess | None:
    """The server that holds ``lock``; None if none is alive.

    If the holder is not known as a server within ``seconds``, the lock counts as free. Raises InputError if the lock
    cannot be opened.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            descriptor = os.open(lock, _FILE_FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{lock} cannot be opened: {error.strerror}") from None
        try:
            if _lock(descriptor, fcntl.LOCK_SH):
                return None
            process = _holder(descriptor)
        finally:
            os.close(descriptor)
        if process or time.monotonic() > deadline:
            return process
        time.sleep(_TICK_SECONDS)


def spawn(
    lock: Path,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    prepare: Callable[[], None],
) -> ServerProcess:
    """Start a server, which holds ``lock`` from its first moment; ``prepare`` runs in it before its program.

    Call it only if ``find`` finds none. Raises OSError if the server cannot be started, InputError if ``prepare``
    failed.
    """
    descriptor = -1
    try:
        descriptor = os.open(lock, _FILE_FLAGS | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                # Its holder is not a server. What is left of an old one keeps the old file.
                lock.unlink()
                os.close(descriptor)
                descriptor = os.open(lock, _FILE_FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            time.sleep(_TICK_SECONDS)
        os.ftruncate(descriptor, 0)

        def introduce() -> None:
            os.pwrite(descriptor, b"%d %d\n" % (os.getpid(), descriptor), 0)
            prepare()

        child = subprocess.Popen(
            list(arguments),
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(descriptor,),
            preexec_fn=introduce,  # noqa: PLW1509 - the supervisor has no threads
        )
        try:
            return ServerProcess(child.pid, os.pidfd_open(child.pid), child)
        except OSError:
            child.kill()
            child.wait()
            raise
    except (OSError, subprocess.SubprocessError) as error:
        # Nobody holds it: the process whose program could not be loaded has ended by now.
        with contextlib.suppress(OSError):
            lock.unlink()
        if isinstance(error, OSError):
            raise
        raise InputError(f"the embedded server cannot be started: {error}") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> ServerProcess | None:
    """The process that the lock file's text names, if the descriptor named there is the lock file."""
    pid, _, number = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip().partition(" ")
    if not (pid.isdigit() and number.isdigit()):
        return None
    try:
        found = os.pidfd_open(int(pid))
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if os.path.samestat(Path(f"/proc/{pid}/fd/{number}").stat(), os.fstat(descriptor)):
            return ServerProcess(int(pid), found)
    os.close(found)
    return None
