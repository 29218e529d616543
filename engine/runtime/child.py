"""Child processes, forked from a supervisor that has loaded their libraries and runs no threads.

The supervisor is its own fork server: a child costs a few milliseconds and the memory that it changes. The kernel kills
a child when its parent ends (PR_SET_PDEATHSIG), also when the parent is killed with -9.
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

from engine.errors import EXIT_FAILED, EngineError
from engine.runtime.agent import MORE_PROCESSES
from engine.runtime.title import set_title

_PR_SET_PDEATHSIG = 1
#: Looked up before any fork, because a look-up changes 0.2 MB of memory in each process that does it.
_prctl = ctypes.CDLL(None, use_errno=True).prctl
#: Signals that the supervisor blocks, to take them with sigtimedwait.
_BLOCKED = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its ``parent`` ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_FAILED)


def keep_private() -> None:
    """Protect the data of this process and its children: only their user can read their files, and a crash leaves no
    core file, which would contain frames and secrets."""
    os.umask(0o077)
    # Not 0: if the kernel pipes cores to a program, only 1 prevents that. A file of one byte is not written.
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def reset_signals() -> None:
    """Unblock the signals that the supervisor blocks, for another program that is about to start."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)


def start_advice(error: OSError) -> str:
    """What a person can do if a process cannot be started."""
    if error.errno == errno.EAGAIN:
        return MORE_PROCESSES
    if error.errno == errno.ENOMEM:
        return "the machine has no memory left: fewer cameras, smaller rings, or a lower maxmemory of Redis"
    return "see fork(2)"


def fork(title: str, main: Callable[[], int]) -> int:
    """Run ``main`` in a child process; returns its pid. The child's exit code is what ``main`` returns."""
    parent = os.getpid()
    _flush()
    # The children share all objects made so far. The collector must not touch their pages, which would copy them.
    gc.freeze()
    pid = os.fork()
    if pid:
        return pid
    code = EXIT_FAILED
    try:
        die_with_parent(parent)
        # SIGTERM stays blocked until the agent's StopSignal waits for it, so that an early one is not lost.
        # Ctrl-C and a hangup reach the whole foreground group; the parent decides what they mean.
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
    """Flush standard output and error. A full disk or a closed pipe is ignored."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
