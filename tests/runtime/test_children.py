"""What a parent does where the kernel gives it no process."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from engine.config import from_document
from engine.runtime import child_process, children
from engine.runtime.child_process import Child
from engine.runtime.children import Children
from engine.runtime.roles import WRITER, Launch


@pytest.fixture
def said() -> LogCapture:
    return LogCapture()


@pytest.fixture
def family(said: LogCapture, tmp_path: Path) -> Any:
    log = structlog.wrap_logger(None, processors=[said], wrapper_class=structlog.make_filtering_bound_logger(0))
    made = Children(log, heartbeat_seconds=20)
    config = from_document({"cameras": [{"id": "cam1", "url": "test://"}]}, {})
    instance = WRITER.instance(config)._replace(page=tmp_path / "writer.status")
    made.all = [Child(instance, Launch(config, log))]
    return made


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EAGAIN, "raise the limit on processes"), (errno.ENOMEM, "has no memory left")]
)
def test_a_failed_fork_is_tried_again_with_longer_pauses_and_said_once(
    family: Children, said: LogCapture, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    (child,) = family.all
    now = [1000.0]
    tried: list[float] = []

    def fork(*_: object) -> int:
        tried.append(now[0])
        if now[0] < 1100:
            raise OSError(number, os.strerror(number))
        return os.getpid()

    monkeypatch.setattr(child_process, "fork", fork)
    monkeypatch.setattr(children.time, "monotonic", lambda: now[0])
    while not child.pid:
        family.watch()
        now[0] += 0.05
        assert now[0] < 1200
    pauses = [after - before for before, after in itertools.pairwise(tried)]
    assert pauses[0] < 0.2
    assert 15 <= max(pauses) <= 30.1
    assert len(tried) < 20
    first, last = said.entries
    assert (first["event"], first["process"]) == ("process cannot be started; trying again", "writer")
    assert errno.errorcode[number] in first["error"]
    assert advice in first["advice"]
    assert (last["event"], last["tries"]) == ("process could be started", len(tried))
    child.pid = 0


def test_a_drain_goes_on_trying_to_start_who_is_needed(
    family: Children, said: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that is down and cannot be started leaves its stage undone, and that is said."""
    now = [1000.0]

    def fork(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def pause(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(child_process, "fork", fork)
    monkeypatch.setattr(children.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(family, "pause", pause)
    assert family.drain(WRITER, 1002.0) is False
    assert now[0] >= 1002
    assert [entry["event"] for entry in said.entries] == [
        "process cannot be started; trying again",
        "stage not drained in time",
    ]


def test_a_child_that_hangs_is_killed_once(family: Children, said: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end takes more than one look of its parent on a loaded machine."""
    (child,) = family.all
    now = [1000.0]
    with subprocess.Popen(["sleep", "60"]) as hanging, subprocess.Popen(["sleep", "60"]) as next_one:
        pids = [hanging.pid, next_one.pid]
        monkeypatch.setattr(child_process, "fork", lambda *_: pids.pop(0))
        monkeypatch.setattr(children.time, "monotonic", lambda: now[0])
        family.watch()
        now[0] += 21
        family.watch()
        family.watch()
        assert [entry["event"] for entry in said.entries] == ["process hangs; killed"]
        # A wait that leaves it as it is, for its parent to reap.
        os.waitid(os.P_PID, hanging.pid, os.WEXITED | os.WNOWAIT)
        family.reap()
        assert child.code == -signal.SIGKILL
        # The next process is looked at like the first.
        now[0] += 31
        family.watch()
        now[0] += 21
        family.watch()
        assert [entry["event"] for entry in said.entries].count("process hangs; killed") == 2
        os.waitid(os.P_PID, next_one.pid, os.WEXITED | os.WNOWAIT)
        family.reap()
