"""A publisher killed at any moment of a save: its successor counts what came through, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.booking import Booking


@pytest.fixture
def page(tmp_path: Path) -> Iterator[StatusPage]:
    made = StatusPage.claim(tmp_path / "publisher.status")
    yield made
    made.close()


def counted(page: StatusPage) -> tuple[int, int]:
    return page.counts[PublisherCount.EXPIRED], page.counts[PublisherCount.UNREADABLE]


def test_what_is_saved_is_shown(page: StatusPage) -> None:
    booking = Booking(page)
    for expired, unreadable in ((3, 1), (0, 0), (4, 0)):
        booking.add(expired, unreadable)
        assert bool(booking.intend()) == bool(expired + unreadable)
        booking.settle()
    assert counted(page) == (7, 1)


def test_a_save_that_failed_is_part_of_the_next(page: StatusPage) -> None:
    booking = Booking(page)
    booking.add(3, 1)
    booking.intend()
    assert counted(page) == (0, 0)
    booking.add(2, 0)
    booking.intend()
    booking.settle()
    assert counted(page) == (5, 1)


@pytest.mark.parametrize("shown", [False, True], ids=["killed before it was shown", "killed behind it"])
def test_a_save_that_came_through_is_shown_by_the_successor_once(page: StatusPage, *, shown: bool) -> None:
    booking = Booking(page)
    booking.add(3, 1)
    serial = booking.intend().encode()
    if shown:
        booking.settle()
    for _ in range(2):
        Booking(page).recover({b"12", serial})
        assert counted(page) == (3, 1)


@pytest.mark.parametrize("serial", [b"", b"0", b"7", b"\xff"])
def test_a_save_that_did_not_come_through_counts_nothing(page: StatusPage, serial: bytes) -> None:
    booking = Booking(page)
    booking.add(3, 1)
    intended = booking.intend().encode()
    Booking(page).recover({b"12", serial})
    assert counted(page) == (0, 0)
    # The entries were read again, and an older save's serial means nothing.
    Booking(page).recover({intended})
    assert counted(page) == (0, 0)


def test_counts_of_a_journal_that_another_wrote_to_stay_within_their_word(page: StatusPage) -> None:
    booking = Booking(page)
    for _ in range(20):
        booking.add(10**18 - 1, 0)
        booking.intend()
        booking.settle()
    assert counted(page) == (2**62, 0)
