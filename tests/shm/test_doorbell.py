from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from engine.errors import RingMismatch
from engine.shm import ring_file
from engine.shm.doorbell import Bell, Doorbell
from engine.shm.status_page import StatusPage, WriterCount
from tests.shm.children import Peer

#: Longer than any test: a wait that ends only by its timeout is a lost wake-up.
FOR_EVER = 3600.0


class Door(NamedTuple):
    path: Path
    page: StatusPage
    doorbell: Doorbell
    bell: Bell

    @property
    def rings(self) -> int:
        """Bytes that stand in the FIFO."""
        return struct.unpack("i", ioctl(self.doorbell._descriptor, FIONREAD, b"\0" * 4))[0]

    @property
    def waiting(self) -> bool:
        return bool(self.page.counts[WriterCount.WAITING])


@pytest.fixture
def door(shm) -> Iterator[Door]:
    page = StatusPage.claim(shm / "writer 0.status")
    path = shm / "writer 0.doorbell"
    made = Door(path, page, Doorbell(path, page), Bell(path, StatusPage.watch(shm / "writer 0.status")))
    yield made
    made.bell.close()
    made.doorbell.close()
    page.close()


@pytest.fixture
def sleeps(door, monkeypatch) -> list[bool]:
    """Each sleep of a doorbell: whether it was over at once, the bell having rung. Nobody really sleeps."""
    ended: list[bool] = []

    poll = door.doorbell._poll

    def look(_):
        found = poll.poll(0)
        ended.append(bool(found))
        return found

    monkeypatch.setattr(door.doorbell, "_poll", SimpleNamespace(poll=look))
    return ended


def test_a_frame_that_is_there_already_keeps_the_writer_awake(door, sleeps):
    door.doorbell.wait(FOR_EVER, lambda: True)
    assert not sleeps
    assert not door.waiting


def test_nobody_rings_for_a_writer_that_is_awake(door):
    door.bell.wake()
    assert door.rings == 0


def test_the_flag_is_up_when_the_writer_takes_its_last_look(door, sleeps):
    """A frame published right behind that look is one whose producer sees the flag, and rings."""

    def last_look():
        assert door.waiting
        door.bell.wake()
        return False

    door.doorbell.wait(FOR_EVER, last_look)
    assert sleeps == [True]
    assert door.rings == 0
    assert not door.waiting


def test_the_writer_looks_once_more_after_the_flag_is_up(door, sleeps):
    """A frame published right before the flag is one whose producer rings for nobody: only a look finds it."""
    looks = []
    door.bell.wake()
    door.doorbell.wait(FOR_EVER, lambda: bool(looks.append(door.waiting)) or True)
    assert looks == [True]
    assert not sleeps


def test_many_rings_wake_once(door, sleeps):
    def last_look():
        for _ in range(100):
            door.bell.wake()
        return False

    door.doorbell.wait(FOR_EVER, last_look)
    door.doorbell.wait(FOR_EVER, lambda: False)
    assert sleeps == [True, False]


def test_a_full_fifo_holds_nobody_up(door, sleeps):
    door.page.counts[WriterCount.WAITING] = 1
    for _ in range(70_000):
        door.bell.wake()
    assert door.rings == 65_536
    door.doorbell.wait(FOR_EVER, lambda: False)
    assert sleeps == [True]


def test_the_flag_goes_down_whatever_happens(door):
    def broken():
        raise RuntimeError("a ring is damaged")

    with pytest.raises(RuntimeError):
        door.doorbell.wait(FOR_EVER, broken)
    assert not door.waiting


def test_a_sleep_ends_with_its_timeout(door):
    door.doorbell.wait(0.001, lambda: False)
    assert not door.waiting


def test_the_fifo_is_ours_alone(door):
    status = door.path.stat()
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_what_is_no_fifo_is_refused(shm):
    (shm / "file").touch(0o600)
    os.mkfifo(shm / "fifo")
    (shm / "link").symlink_to(shm / "fifo")
    page = StatusPage.claim(shm / "a.status")
    for name in ("file", "link"):
        with pytest.raises(RingMismatch, match=name):
            Doorbell(shm / name, page)
    page.close()


@pytest.mark.slow
def test_every_frame_wakes_a_writer_that_would_sleep_for_an_hour(shm):
    page, frames, bell = shm / "writer 0.status", shm / "cam.ring", shm / "writer 0.doorbell"
    ring_file.create(frames, 4096, "cam")
    with Peer("sleep_on_doorbell", page, frames, bell) as writer:
        assert writer.line() == "ready"
        with Peer("ring_for_each_frame", page, frames, bell, 20_000) as producer:
            assert producer.line() == "done"
