"""What Redis has acknowledged and must still have, against a plain set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.shm.ring import Record
from engine.stages.acknowledged import Acknowledged
from engine.wire.journal import NO_JOURNAL, JournalSpan

stamps = st.integers(1, 50)


def record(nano: int) -> Record:
    return Record(nano, 1, 1, 1, 0, 1, 0, 0, memoryview(bytes(nano)), 0)


def filled(nanos: list[int], ttl: float = 60) -> Acknowledged:
    made = Acknowledged(ttl)
    made.add([record(nano) for nano in nanos], 100)
    return made


@given(st.lists(st.lists(stamps, max_size=5)), stamps, stamps, stamps)
def test_lost_is_what_lies_outside_the_journal_and_was_not_deleted(parts, first, last, deleted):
    deleted = min(deleted, last)
    known = Acknowledged(60)
    added = []
    for part in parts:
        fresh = [nano for nano in dict.fromkeys(part) if nano not in added]
        known.add([record(nano) for nano in fresh], 100)
        added += fresh
    lost = [nano for nano in added if nano > last or deleted < nano < first]
    assert known.take_lost(JournalSpan(first, last, deleted), 101) == (len(lost), sum(lost))
    assert known.take_lost(JournalSpan(first, last, deleted), 101) == (0, 0)


def test_a_journal_that_is_gone_lost_all_of_it():
    assert filled([1, 2, 3]).take_lost(NO_JOURNAL, 101) == (3, 6)


def test_what_was_trimmed_is_nobody_s_loss():
    known = filled([1, 2, 3])
    known.trim(3)
    assert known.take_lost(NO_JOURNAL, 101) == (1, 3)


@pytest.mark.parametrize(("ttl", "later", "lost"), [(60, 58, 3), (60, 59, 0), (1, 0.4, 3), (1, 0.5, 0)])
def test_a_journal_that_has_expired_with_its_frames_has_lost_nothing(ttl, later, lost):
    assert filled([1, 2, 3], ttl).take_lost(NO_JOURNAL, 100 + later)[0] == lost
