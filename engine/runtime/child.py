"""Child processes, made by fork from a supervisor that has cv2 loaded and runs no thread.

The supervisor is its own fork server: a child costs a few milliseconds and the memory that it changes. It dies with its
parent, also when that is killed with -9, because the kernel is asked to kill it then (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable

import setproctitle

from engine.errors import EXIT_FAILED, EngineError
from engine.runtime.agent import MORE_PROCESSES

_PR_SET_PDEATHSIG = 1
#: Signals that the supervisor blocks, to take them with sigtimedwait.
_BLOCKED = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT)

#: What the titles of all our processes begin with.
_TITLE = "edge-video"


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when ``parent``, which started it, ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_FAILED)


def keep_private() -> None:
    """Make this process, and those that it starts, keep what they hold from others: files are their user's alone, and
    a crash leaves no core, which would have frames and secrets in it."""
    os.umask(0o077)
    # Not 0: where the kernel pipes cores to a program, only 1 keeps it from that. A file of so much is not written.
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def reset_signals() -> None:
    """Undo what the supervisor did to its signals, for a program that knows nothing of it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)


def start_advice(error: OSError) -> str:
    """What a person can do where no process can be started."""
    if error.errno == errno.EAGAIN:
        return MORE_PROCESSES
    if error.errno == errno.ENOMEM:
        return "the machine has no memory left: fewer cameras, smaller rings, or a lower maxmemory of Redis"
    return "see fork(2)"


def set_title(role: str, site: str = "") -> None:
    """Show the process as ``edge-video: site: role``; command line and environment with their secrets go from sight.

    Without ``site`` it stays the one of the title so far: a fork has its parent's.
    """
    before = setproctitle.getproctitle().rpartition(": ")[0]
    head = f"{_TITLE}: {site}" if site else before if before.startswith(_TITLE) else _TITLE
    setproctitle.setproctitle(f"{head}: {role}")


def fork(title: str, main: Callable[[], int]) -> int:
    """Run ``main`` in a child process; returns its pid. The child's exit code is what ``main`` returns."""
    parent = os.getpid()
    _flush()
    # Objects made so far are the children's too, unchanged; the collector must not touch (and so copy) their pages.
    gc.freeze()
    pid = os.fork()
    if pid:
        return pid
    code = EXIT_FAILED
    try:
        die_with_parent(parent)
        # SIGTERM stays blocked until the agent's StopSignal waits for it: sent earlier, it is kept and not lost.
        # Ctrl-C, and the end of the terminal, reach the whole foreground group; the parent decides what they mean.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGCHLD, signal.SIGINT})
        set_title(title)
        code = main()
    except EngineError as error:
        code = error.exit_code
        with contextlib.suppress(OSError):
            print(f"{title}: {error}", file=sys.stderr)
    except BaseException:
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    """What is buffered goes out, where it can: nothing hangs on a full disk or a closed pipe."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
