"""Other users of the machine: code and commands that run as one. Needs root, as tests that mount do."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.servers.wait import wait_until

#: Two users of no name, and of no rights.
SOMEBODY = 64_001
STRANGER = 64_002
#: Users whose processes are counted, one for each process that tests.
COUNTED = 200_000


def as_user(uid: int, function: Callable[[], Any]) -> Any:
    """What ``function`` returns, or the exception that it raises, in a process of that user."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.umask(0)
            try:
                result = function()
            except Exception as error:
                result = error
            os.write(write, pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(data)


def command_of(uid: int, workspace: Path, *command: str) -> list[str]:
    """``command`` as that user, who may read this interpreter, its packages and the checkout wherever they are.

    Where they lie below a directory that is closed to others, such as /root, that is replaced by an empty one with
    nothing else in it, in a mount namespace of the command's own.
    """
    needed = {Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2], Path(sysconfig.get_path("purelib"))}
    closed = {
        next(parent for parent in reversed((path / "x").parents) if not parent.stat().st_mode & 0o005)
        for path in needed
        if any(not parent.stat().st_mode & 0o005 for parent in (path / "x").parents)
    }
    script = ["mount --make-rprivate /"]
    hidden = sorted(path for path in needed if any(path.is_relative_to(root) for root in closed))
    for number, path in enumerate(hidden):
        place = workspace / f"mount{number}"
        place.mkdir()
        script.append(f"mount --rbind '{path}' '{place}'")
    script += [f"mount -t tmpfs -o mode=755 tmpfs '{root}'" for root in sorted(closed)]
    for number, path in enumerate(hidden):
        script.append(f"mkdir -p '{path}' && mount --rbind '{workspace}/mount{number}' '{path}'")
    script.append(f'exec setpriv --reuid {uid} --regid {uid} --clear-groups --bounding-set -all "$@"')
    return ["unshare", "--mount", "sh", "-ec", "\n".join(script), "sh", *command]


def counted_user() -> int:
    """A user whose processes are this test's alone."""
    return COUNTED + os.getpid()


def counted(user: int) -> list[str]:
    """What comes before a command for its processes to be counted: root's never are, those of a real user are, while
    the effective one is still root, and owns the files."""
    return ["setpriv", "--ruid", str(user), "--bounding-set", "-sys_resource,-sys_admin"]


@contextlib.contextmanager
def crowd(user: int, size: int) -> Iterator[None]:
    """So many processes of a user, who has no limit here."""
    script = "for i in $(seq $0); do sleep 600 & done; wait"
    process = subprocess.Popen([*counted(user), "sh", "-c", script, str(size)], start_new_session=True)
    try:
        wait_until(lambda: len(psutil.Process(process.pid).children()) == size, 20, "the crowd is there")
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
