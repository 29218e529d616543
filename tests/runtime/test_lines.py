"""Log lines onto what can and cannot be written."""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path

import pytest

from engine.runtime.log_writer import Lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def lines(path: Path) -> Lines:
    made = Lines(path.open("ab", buffering=0), lambda lost: f"{lost} lost")
    gc.collect()
    return made


def test_lines_are_whole(path: Path) -> None:
    log = lines(path)
    log.info("one")
    log.warning("two \udcff")
    assert path.read_text() == "one\ntwo \\udcff\n"


def test_lines_that_a_closed_pipe_takes_no_more_stop_nobody() -> None:
    reader, writer = os.pipe()
    log = Lines(os.fdopen(writer, "wb", buffering=0), lambda lost: f"{lost} lost")
    os.close(reader)
    for _ in range(3):
        log.info("into nothing")


def test_what_is_lost_is_counted_and_said_when_lines_can_be_written_again(path: Path) -> None:
    log = lines(path)
    log.info("before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a full disk does: the first part of a line fits, nothing more does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        log.info("torn")
        log.info("lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.info("after")
    assert path.read_text() == "before\ntor\n2 lost\nafter\n"
