from __future__ import annotations

import os
import time

import pytest

from engine.errors import RingMismatch, SiteInUse
from engine.shm import segment
from engine.shm.status_page import TEXT_BYTES_MAX, StatusPage
from tests.servers.wait import wait_until
from tests.shm.children import Peer
from tests.shm.peers import number_of

#: The word that guards the text; odd while it is being written.
TEXT_VERSION_WORD = 6


def test_a_new_page_says_nothing(shm):
    path = shm / "writer 0.status"
    StatusPage.create(path)
    page = StatusPage.watch(path)
    assert (page.pid, page.started_nano, page.restarts, page.heartbeat_nano) == (0, 0, 0, 0)
    assert page.text == b""
    assert page.counts.tolist() == [0] * 64
    assert not page.owned
    page.close()


def test_its_owner_is_seen_by_all(shm):
    path = shm / "a.status"
    before, beaten = time.time_ns(), time.monotonic_ns()
    owner = StatusPage.claim(path)
    watcher = StatusPage.watch(path)
    owner.counts[3] = 7
    assert watcher.pid == os.getpid()
    assert before <= watcher.started_nano <= time.time_ns()
    assert beaten <= watcher.heartbeat_nano <= time.monotonic_ns()
    assert watcher.counts[3] == 7
    assert watcher.owned
    beat = watcher.heartbeat_nano
    owner.beat()
    assert watcher.heartbeat_nano >= beat
    owner.close()
    assert not watcher.owned
    watcher.close()


def test_only_one_process_can_claim_it_and_the_other_is_told_who(shm):
    path = shm / "writer 0.status"
    with Peer("hold_page", path) as peer:
        assert peer.line() == "claimed"
        with pytest.raises(SiteInUse, match=f"writer 0 runs already as pid {peer.pid}"):
            StatusPage.claim(path)
        peer.go()
        assert peer.line() == "closed"
        owner = StatusPage.claim(path)
        assert owner.pid == os.getpid()
        owner.close()


def test_a_killed_owner_owns_it_no_more_and_what_it_left_stays(shm):
    path = shm / "a.status"
    with Peer("hold_page", path) as peer:
        assert peer.line() == "claimed"
        watcher = StatusPage.watch(path)
        watcher.restarts = 5
        assert watcher.owned
        peer.kill()
        wait_until(lambda: not watcher.owned, 30, "the status page is free")
        assert watcher.pid == peer.pid
    successor = StatusPage.claim(path)
    assert (successor.pid, successor.restarts) == (os.getpid(), 5)
    successor.close()
    watcher.close()


def test_asking_who_owns_it_does_not_hinder_a_claim(shm):
    path = shm / "a.status"
    StatusPage.create(path)
    watcher = StatusPage.watch(path)
    with Peer("hold_page", path) as peer:
        while not watcher.owned:
            pass
        assert peer.line() == "claimed"
    watcher.close()


def test_an_owner_that_asks_its_own_page_stays_the_owner(shm):
    owner = StatusPage.claim(shm / "a.status")
    watcher = StatusPage.watch(shm / "a.status")
    assert owner.owned
    assert watcher.owned
    owner.close()
    watcher.close()


@pytest.mark.parametrize("text", [b"", b"x", b"\x00\xff", b"a" * TEXT_BYTES_MAX])
def test_a_text_is_read_as_it_was_written(shm, text):
    owner = StatusPage.claim(shm / "a.status")
    watcher = StatusPage.watch(shm / "a.status")
    version = watcher.text_version
    owner.text = b"something longer before"
    owner.text = text
    assert watcher.text == text
    assert watcher.text_version > version
    owner.close()
    watcher.close()


def test_a_text_that_does_not_fit_is_refused_and_the_old_one_stays(shm):
    owner = StatusPage.claim(shm / "a.status")
    owner.text = b"old"
    with pytest.raises(ValueError, match="3073 bytes; at most 3072"):
        owner.text = b"x" * (TEXT_BYTES_MAX + 1)
    assert owner.text == b"old"
    owner.close()


def test_a_text_whose_writer_was_killed_is_not_shown_and_the_next_one_is(shm):
    path = shm / "a.status"
    owner = StatusPage.claim(path)
    owner.text = b"whole"
    owner._words[TEXT_VERSION_WORD] += 1
    owner._segment.view[1024:1027] = b"tor"
    owner.close()
    watcher = StatusPage.watch(path)
    assert watcher.text == b""
    odd = watcher.text_version
    successor = StatusPage.claim(path)
    successor.text = b"new"
    assert watcher.text == b"new"
    assert watcher.text_version > odd
    successor.close()
    watcher.close()


def test_no_reader_ever_takes_half_a_text_for_a_whole_one(shm):
    path = shm / "a.status"
    with Peer("write_texts", path) as peer:
        assert peer.line() == "writing"
        watcher = StatusPage.watch(path)
        seen = [0]
        deadline = time.monotonic() + 60
        while len(seen) < 3000:
            assert time.monotonic() < deadline, f"only {len(seen)} texts seen"
            text = watcher.text
            if text and number_of(text) != seen[-1]:
                seen.append(number_of(text))
        assert seen == sorted(seen)
    watcher.close()


def test_a_page_that_stands_is_kept(shm):
    path = shm / "a.status"
    owner = StatusPage.claim(path)
    owner.text = b"kept"
    StatusPage.create(path)
    watcher = StatusPage.watch(path)
    assert watcher.text == b"kept"
    owner.close()
    watcher.close()


@pytest.mark.parametrize("content", [b"x" * 4096, bytes(4096), b"x", b"", bytes(8192)], ids=len)
def test_a_file_that_is_no_page_is_refused_and_replaced(shm, content):
    path = shm / "a.status"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(RingMismatch, match=str(path)):
        StatusPage.watch(path)
    StatusPage.create(path)
    StatusPage.watch(path).close()


def test_a_page_of_another_version_is_refused(shm):
    path = shm / "a.status"
    StatusPage.create(path)
    shared = segment.open_existing(path)
    shared.words[1] = 2
    shared.close()
    with pytest.raises(RingMismatch, match="version"):
        StatusPage.watch(path)


def test_a_missing_page_is_just_that(shm):
    with pytest.raises(FileNotFoundError):
        StatusPage.watch(shm / "a.status")


def test_two_processes_that_make_it_at_once_share_it(shm, monkeypatch):
    """The other process makes it between our look and our own try, as a capture process and a writer may."""
    path = shm / "a.status"
    create = segment.create

    def late(*arguments):
        monkeypatch.setattr(segment, "create", create)
        StatusPage.create(path)
        return create(*arguments)

    monkeypatch.setattr(segment, "create", late)
    StatusPage.create(path)
    StatusPage.watch(path).close()


def test_a_page_is_never_seen_half_made(shm, monkeypatch):
    """Who sees one replaces it, and then two processes have two files of one name, each the owner of its own."""
    path = shm / "a.status"
    reserve = os.posix_fallocate

    def look(*arguments):
        reserve(*arguments)
        assert not path.exists()

    monkeypatch.setattr(os, "posix_fallocate", look)
    StatusPage.create(path)
    StatusPage.watch(path).close()
    assert list(shm.iterdir()) == [path]
