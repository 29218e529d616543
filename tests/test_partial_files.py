"""Files that a command writes are whole or are not there, whenever signals end it."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from engine.cli import output

#: Exit code of a child whose command ended before the moment came.
_PAST = 3


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_second_signal_at_any_moment_of_the_cleanup_leaves_nothing(tmp_path: Path, first: signal.Signals) -> None:
    moment, code = 1, -1
    while (code := _ended(tmp_path / "a.mp4", first, moment)) != _PAST:
        assert code == 128 + signal.SIGTERM
        assert not list(tmp_path.iterdir()), f"at instruction {moment} after the first signal"
        moment += 1
    assert moment > 20
    assert not list(tmp_path.iterdir())


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        output.clean_up_at_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def _ended(path: Path, first: signal.Signals, moment: int) -> int:
    """The exit code of a process that gets ``first`` while it writes, and SIGTERM so many instructions later."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # What the collector of garbage calls would be traced too, and nothing that it calls can end a process.
    gc.disable()
    left = moment

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGTERM)
        return trace

    code: Any = 1
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with output.whole_file(path, force=False) as partial:
            partial.write_bytes(b"part")
            sys.settrace(trace)
            signal.raise_signal(first)
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        code = 128 + first
    finally:
        sys.settrace(None)
        os._exit(_PAST if left > 0 else code)
