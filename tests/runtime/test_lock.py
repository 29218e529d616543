"""Who holds a run directory, and what is left of it."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.config import Config, from_document
from engine.errors import SiteInUse
from engine.runtime.lock import SiteLock, read_token

#: A process that locks the directory over and over, and counts how often it was not alone.
CONTENDER = """
import os, random, sys, time
from pathlib import Path
from engine.errors import SiteInUse
from engine.runtime.lock import SiteLock
from tests.runtime.test_lock import config

directory, seed = Path(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
got = 0
until = time.monotonic() + 3
while time.monotonic() < until or not got:
    try:
        lock = SiteLock(config(directory), exclusive=True)
    except SiteInUse:
        continue
    mark = directory.parent.parent / "mark"
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    if random.random() < 0.2:
        time.sleep(0.001)
    mark.unlink()
    lock.release()
    got += 1
print(got)
"""


def config(directory: Path) -> Config:
    camera = {"id": "cam1", "url": "test://"}
    return from_document({"site": {"run_directory": str(directory)}, "cameras": [camera]}, {})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "a" / "b"


def test_nothing_is_left_of_a_directory_that_the_site_made(directory: Path) -> None:
    SiteLock(config(directory), exclusive=True).release()
    assert not directory.parent.exists()


def test_what_others_made_and_what_is_kept_stays(directory: Path) -> None:
    directory.parent.mkdir(0o700)
    lock = SiteLock(config(directory), exclusive=True)
    (directory / "edge-video.log").write_text("x")
    lock.release()
    assert os.listdir(directory) == ["edge-video.log"]
    (directory / "edge-video.log").unlink()
    SiteLock(config(directory), exclusive=True).release()
    # It stood before: somebody else may have made it.
    assert directory.is_dir()
    directory.rmdir()
    SiteLock(config(directory), exclusive=True).release()
    assert os.listdir(directory.parent) == []


def test_the_last_of_several_roles_removes_the_lock(directory: Path) -> None:
    one, other = (SiteLock(config(directory), exclusive=False) for _ in range(2))
    token = read_token(config(directory))
    assert len(token) == 16
    one.release()
    assert read_token(config(directory)) == token
    with pytest.raises(SiteInUse, match=f"pid {os.getpid()}"):
        SiteLock(config(directory), exclusive=True)
    other.release()
    assert not directory.exists()


def test_a_killed_site_is_known_by_its_token_and_a_stopped_one_is_not(directory: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from engine.runtime.lock import SiteLock\n"
        "from tests.runtime.test_lock import config\n"
        "SiteLock(config(Path(sys.argv[1])), exclusive=True); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], check=False)
    token = read_token(config(directory))
    assert len(token) == 16
    lock = SiteLock(config(directory), exclusive=True)
    assert read_token(config(directory)) == token
    lock.release()
    assert read_token(config(directory)) == ""
    lock = SiteLock(config(directory), exclusive=True)
    assert read_token(config(directory)) not in ("", token)
    lock.release()


def test_a_lock_whose_file_was_removed_while_it_was_waited_for_is_none(directory: Path) -> None:
    """The one that stops removes the file between another's opening and locking it."""
    first = SiteLock(config(directory), exclusive=True)
    real, calls = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            first.release()
        real(descriptor, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        second = SiteLock(config(directory), exclusive=True)
    assert second.path.exists()
    with pytest.raises(SiteInUse):
        SiteLock(config(directory), exclusive=True)
    second.release()
    assert not directory.exists()


@pytest.mark.slow
def test_of_many_that_start_and_stop_at_once_never_two_hold_it(directory: Path) -> None:
    seeds = [random.SystemRandom().randrange(2**32) for _ in range(4)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(directory), str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for seed in seeds
    ]
    for process in running:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
        assert int(out) > 0
    # Empty it may stay: who made it may have been refused, and then forgets.
    assert not directory.exists() or not os.listdir(directory)


#: A supervisor that locks the directory, forks a child that shares the lock, and is killed. The child ends when asked.
KILLED = """
import os, sys, time
from pathlib import Path
from engine.runtime.lock import SiteLock
from tests.runtime.test_lock import config

lock = SiteLock(config(Path(sys.argv[1])), exclusive=True)
holder = os.getpid()
if os.fork():
    os.kill(holder, 9)
while os.getppid() == holder:
    time.sleep(0.001)
print("locked", flush=True)
sys.stdin.readline()
"""


def test_a_start_waits_for_the_children_of_a_killed_holder(directory: Path) -> None:
    """They end a moment later; without the wait, the start after a kill would say that the site is in use."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == b"locked\n"
    threading.Timer(0.3, process.stdin.close).start()
    SiteLock(config(directory), exclusive=True).release()
    process.wait()
    process.stdout.close()


def test_a_cleaner_of_old_files_keeps_away_from_a_directory_in_use(directory: Path) -> None:
    """As systemd-tmpfiles does: it goes into no directory that it cannot lock."""
    lock = SiteLock(config(directory), exclusive=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    lock.release()
