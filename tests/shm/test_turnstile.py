from __future__ import annotations

import fcntl
import multiprocessing
import signal
import time
from pathlib import Path

import pytest

from engine.shm import turnstile
from engine.shm.turnstile import PLACES, Turnstile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "connecting"


def test_so_many_may_enter_and_others_when_one_has_left(path: Path) -> None:
    inside = [Turnstile(path) for _ in range(PLACES)]
    assert all(each.enter() for each in inside)
    waiting = Turnstile(path)
    assert not waiting.enter()
    inside[3].leave()
    assert waiting.enter()
    assert not Turnstile(path).enter()


def test_who_takes_long_holds_nobody_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [Turnstile(path) for _ in range(PLACES)]
    assert all(each.enter() for each in slow)
    later = time.monotonic_ns() + 3 * 10**9
    monkeypatch.setattr(turnstile.time, "monotonic_ns", lambda: later)
    followers = [Turnstile(path) for _ in range(PLACES)]
    assert all(each.enter() for each in followers)
    # The places are the followers' now: the slow ones do not free them.
    for each in slow:
        each.leave()
    assert not Turnstile(path).enter()


def test_a_process_that_was_killed_in_its_place_is_forgotten(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    entered = context.Semaphore(0)

    def stay() -> None:
        if Turnstile(path).enter():
            entered.release()
        signal.pause()

    children = [context.Process(target=stay) for _ in range(PLACES)]
    for child in children:
        child.start()
    for _ in children:
        assert entered.acquire(timeout=20)
    assert not Turnstile(path).enter()
    for child in children:
        child.kill()
        child.join()
    begun = time.monotonic()
    late = Turnstile(path)
    while not late.enter():
        assert time.monotonic() < begun + 10
        time.sleep(0.02)


def test_a_lock_that_somebody_holds_means_not_now(path: Path) -> None:
    path.touch()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not Turnstile(path).enter()
    assert Turnstile(path).enter()


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, bytes(range(1, 1 + 64)), b"short"])
def test_whatever_the_file_has_somebody_may_enter(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert Turnstile(path).enter()


def test_without_a_directory_all_may_enter(tmp_path: Path) -> None:
    lost = Turnstile(tmp_path / "gone" / "connecting")
    assert all(lost.enter() for _ in range(PLACES + 1))
    lost.leave()
