"""Every entry is confirmed or expired, once: whatever is trimmed, expires, is lost on the way or killed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.stages.publisher.account import BEGINNING, Account
from engine.wire.journal import JournalEntry
from engine.wire.marks import Mark
from tests.examples import examples

NANO = 1_731_024_000_000_000_000


def entry(number: int, sequence: int | None = None) -> JournalEntry:
    return JournalEntry(NANO + number, (sequence or number) % 99_999 + 1, 1, 1, 1, "jpeg", True, number)


def ids(one: JournalEntry) -> tuple[int, int]:
    return one.unix_nano, one.sequence


def drop(account: Account, waiting: int, dropped: list[JournalEntry]) -> None:
    """``dropped`` are the oldest of the last ``waiting`` entries that were read."""
    account.drop(account.taken - waiting, len(dropped), ids(dropped[-1]))


def mark_of(number: int, entries: int | None = None) -> Mark:
    return Mark(ids(entry(number)), number if entries is None else entries)


class Journal(RuleBasedStateMachine):
    """A writer, a journal that loses its head or all of it, and a publisher that is cut off and killed."""

    @initialize(before=st.integers(0, 200_000), cursor=st.booleans())
    def begin(self, before: int, cursor: bool) -> None:
        self.before = self.total = before
        self.journal: list[JournalEntry] = []
        self.saved = mark_of(before) if cursor else None
        self.confirmed = self.expired = 0
        self.kill()

    def kill(self) -> None:
        """The successor knows what was saved."""
        self.account = Account(self.saved)
        self.waiting: list[JournalEntry] = []
        self.flight: list[JournalEntry] = []
        self.unsaved_confirmed = 0

    @rule(count=st.integers(1, 5))
    def write(self, count: int) -> None:
        self.journal += [entry(self.total + place, self.total * 3 + place) for place in range(1, count + 1)]
        self.total += count

    @rule()
    def much_is_written_and_trimmed(self) -> None:
        """More than there are sequence numbers."""
        self.journal = []
        self.total += 100_003
        self.write(1)

    @rule(count=st.integers(1, 6))
    def trim(self, count: int) -> None:
        del self.journal[:count]

    @rule(count=st.integers(1, 4))
    def read(self, count: int) -> None:
        found = [one for one in self.journal if ids(one) > self.account.read][:count]
        if self.account.wants_beginning(found):
            self.account.begin_behind(self.before)
        if found:
            self.account.take(found, ids(found[-1]), 0)
            self.waiting += found

    @rule()
    def look(self) -> None:
        if not [one for one in self.journal if ids(one) > self.account.read]:
            self.account.vanished(self.total)

    @rule(count=st.integers(1, 4))
    def send(self, count: int) -> None:
        self.flight += self.waiting[:count]
        del self.waiting[:count]

    @rule(count=st.integers(1, 4))
    def confirm(self, count: int) -> None:
        done, self.flight = self.flight[:count], self.flight[count:]
        if done:
            self.account.confirm(len(done), ids(done[-1]))
            self.unsaved_confirmed += len(done)

    @rule(count=st.integers(1, 4))
    def frames_expire(self, count: int) -> None:
        if self.waiting:
            drop(self.account, len(self.waiting), self.waiting[:count])
            del self.waiting[:count]

    @rule()
    def save(self) -> None:
        if self.account.mark != Mark(BEGINNING):
            self.saved = self.account.mark
        self.expired += self.account.take_counts()[0]
        self.confirmed += self.unsaved_confirmed
        self.unsaved_confirmed = 0

    @rule()
    def cut_off(self) -> None:
        self.waiting.clear()
        self.flight.clear()
        self.account.rewind()

    @rule()
    def killed(self) -> None:
        self.kill()

    @invariant()
    def nothing_counts_twice(self) -> None:
        assert self.confirmed + self.expired <= self.total - self.before

    def teardown(self) -> None:
        if not hasattr(self, "account"):
            return
        self.write(1)
        self.read(10**6)
        self.look()
        self.send(10**6)
        self.confirm(10**6)
        self.save()
        assert self.account.at_rest
        assert self.confirmed + self.expired == self.total - self.before
        assert self.saved == Mark(ids(self.journal[-1]), self.total)


TestJournal = Journal.TestCase
TestJournal.settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)


def test_a_gap_of_sequence_numbers_is_no_gap_of_entries() -> None:
    account = Account(mark_of(1))
    account.take([entry(2, 50_000), entry(3, 99_999)], ids(entry(3, 99_999)), 0)
    account.confirm(2, ids(entry(3, 99_999)))
    assert (account.entries, account.take_counts()) == (3, (0, 0))


def test_what_expires_behind_a_message_on_its_way_counts_when_that_is_confirmed() -> None:
    account = Account(mark_of(0))
    entries = [entry(number) for number in range(1, 6)]
    account.take(entries, ids(entries[-1]), 0)
    drop(account, 4, entries[1:3])
    assert account.cursor == ids(entry(0))
    assert account.take_counts() == (0, 0)
    account.confirm(1, ids(entries[0]))
    assert account.cursor == ids(entries[2])
    assert account.take_counts() == (2, 0)


def test_a_frame_that_expires_before_a_gap_counts_before_it() -> None:
    account = Account(mark_of(0))
    entries = [entry(number) for number in (1, 2, 5)]
    for one in entries:
        account.take([one], ids(one), 0)
    drop(account, 3, entries[:2])
    assert (account.entries, account.cursor, account.take_counts()) == (4, ids(entries[1]), (4, 0))
    account.confirm(1, ids(entries[2]))
    assert (account.entries, account.at_rest, account.take_counts()) == (5, True, (0, 0))


def test_a_lost_connection_forgets_what_was_to_be_passed_over() -> None:
    account = Account(mark_of(0))
    entries = [entry(number) for number in range(4, 7)]
    account.take(entries[:1], ids(entries[0]), 0)
    account.take(entries[1:], ids(entries[-1]), 1)
    drop(account, 2, entries[1:])
    assert account.take_counts() == (3, 0)
    account.rewind()
    assert (account.cursor, account.entries, account.read) == (ids(entry(0)), 3, ids(entry(0)))
    account.take(entries, ids(entries[-1]), 1)
    account.confirm(3, ids(entries[-1]))
    assert account.take_counts() == (0, 1)


def test_entries_that_cannot_be_read_are_passed_once() -> None:
    account = Account(mark_of(0))
    account.take([], (NANO + 7, 1), 3)
    assert account.cursor == (NANO + 7, 1)
    assert account.take_counts() == (0, 3)


@pytest.mark.parametrize("unnumbered", [1, 5])
@given(st.integers(0, 10), st.integers(1, 10))
def test_entries_without_a_number_hide_no_gap_for_long(unnumbered: int, gap: int, more: int) -> None:
    """Those of a job are not the writer's, those of a writer in doubt are: neither makes events that never were."""
    account = Account(mark_of(0))
    found = [entry(number)._replace(number=0) for number in range(1, unnumbered + 1)]
    account.take(found, ids(found[-1]), 0)
    following = [entry(unnumbered + gap + number) for number in range(1, more + 1)]
    account.take(following, ids(following[-1]), 0)
    account.confirm(unnumbered + more, ids(following[-1]))
    assert account.entries == unnumbered + gap + more
    assert account.take_counts() == (gap, 0)


def test_numbers_that_begin_anew_expire_nothing() -> None:
    account = Account(mark_of(500))
    account.take([entry(600)._replace(number=3)], ids(entry(600)), 0)
    account.confirm(1, ids(entry(600)))
    assert (account.entries, account.take_counts()) == (3, (0, 0))


def test_a_cursor_of_an_older_version_counts_from_the_first_number_on() -> None:
    account = Account(Mark(ids(entry(5))))
    assert not account.wants_beginning([entry(9)])
    account.vanished(8)
    account.take([entry(9), entry(10)], ids(entry(10)), 0)
    account.confirm(2, ids(entry(10)))
    assert (account.entries, account.take_counts()) == (10, (0, 0))
    account.vanished(12)
    assert (account.entries, account.take_counts()) == (12, (2, 0))
