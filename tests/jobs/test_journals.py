"""Entries are put into journals where they belong, while others write there: against a plain sorted list."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.jobs.journal_rebuild import Merged, drop_entries, merge_entries
from engine.jobs.stored_names import StoredNames
from engine.servers.redis.session import BATCH_MAX, Session
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.redis_address import parse_redis_address
from engine.wire.state import CameraStatus, encode_status
from tests.client.stocked import pipe
from tests.jobs.old_frames import SECOND, T0, listed, session
from tests.servers.cluster_client import AnyServer, ReadCluster

JOURNAL = keys.journal_key("loja", "frames", "cam1")
TTL_MS = 600_000
#: Between two frames of the site that writes meanwhile: about a hundred a second, more than most cameras send.
PACE_SECONDS = 0.002


@pytest.fixture(scope="session")
def server(shared_redis: AnyServer) -> AnyServer:
    return shared_redis


@pytest.fixture
def client(server: AnyServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.flushall()
        yield client


def entry(number: int, size: int = 100) -> JournalEntry:
    """One entry a second; two of every ten share their nanosecond, and differ by sequence."""
    return JournalEntry(T0 + number // 2 * SECOND, number % 2 + 1, size + number, 64, 48, "jpeg", True)


def add(client: redis.Redis, entries: Sequence[JournalEntry]) -> None:
    pipe(client, (("XADD", JOURNAL, entry_id(one.unix_nano, one.sequence), *entry_fields(one)) for one in entries))
    if entries:
        client.pexpire(JOURNAL, TTL_MS)


def merge(session_: Session, entries: Sequence[JournalEntry], ttl_ms: int = TTL_MS) -> Merged:
    return merge_entries(session_, StoredNames("loja", "frames"), "cam1", entries, ttl_ms)


@settings(max_examples=60, deadline=None)
@given(
    there=st.sets(st.integers(0, 1200), max_size=80),
    runs=st.lists(st.lists(st.integers(0, 1200), max_size=60), min_size=1, max_size=3),
    dense=st.booleans(),
)
def test_a_journal_is_what_a_sorted_list_would_be(server, there, runs, dense):
    if dense:
        # More than one round trip takes.
        there = there | set(range(100, 100 + BATCH_MAX + 7))
    with server.client() as client, session(server) as one:
        client.flushall()
        add(client, [entry(number) for number in sorted(there)])
        model = {number: entry(number) for number in there}
        for run in runs:
            # Those that are listed are left as they are, whatever else the job says of them.
            merged = merge(one, [entry(number, 7000) for number in run])
            new = set(run) - model.keys()
            assert merged.added == len(new)
            model.update((number, entry(number, 7000)) for number in new)
            assert listed(client, "loja", "cam1") == [model[number] for number in sorted(model)]
            # No draft is left; who swapped last is remembered for a while.
            note = StoredNames("loja", "frames").rebuilt("cam1", cluster=isinstance(server, ReadCluster)).encode()
            assert set(client.scan_iter("engine:*:rebuild:*")) <= {note}
        assert not model or 0 < client.pttl(JOURNAL) <= TTL_MS


@pytest.mark.parametrize(
    ("before", "given_", "after"),
    [(100_000, 50_000, 100_000), (50_000, 100_000, 100_000), (None, 50_000, None), (50_000, -1, None)],
)
def test_a_journal_lives_as_long_as_the_longest_of_its_frames(server, client, before, given_, after):
    add(client, [entry(5)])
    if before is None:
        client.persist(JOURNAL)
    else:
        client.pexpire(JOURNAL, before)
    with session(server) as one:
        merge(one, [entry(1)], given_)
    left = client.pttl(JOURNAL)
    assert left == -1 if after is None else after - 10_000 < left <= after


def test_a_journal_without_entries_begins_with_those_that_are_added(server, client):
    with session(server) as one:
        assert merge(one, [entry(3), entry(1)]).added == 2
    assert listed(client, "loja", "cam1") == [entry(1), entry(3)]
    assert client.hkeys(keys.cameras_key("loja", "frames")) == [b"cam1"]


def test_dropping_entries_leaves_the_others(server, client):
    add(client, [entry(number) for number in range(2000)])
    odd = [entry_id(one.unix_nano, one.sequence).encode() for one in map(entry, range(1, 2000, 2))]
    with session(server) as one:
        assert drop_entries(one, JOURNAL, odd) == 1000
        assert drop_entries(one, JOURNAL, odd) == 0
    assert listed(client, "loja", "cam1") == [entry(number) for number in range(0, 2000, 2)]


def now_nano(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return seconds * SECOND + micros * 1000


class Writing:
    """A site's writer: adds entries stamped now to the journal, each newer than the last, until it is left."""

    def __init__(self, server: AnyServer) -> None:
        self.written: list[JournalEntry] = []
        self.refused: list[str] = []
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._server.client() as client:
            nano = now_nano(client)
            while not self._stop.wait(PACE_SECONDS):
                nano = max(nano + 1, now_nano(client))
                one = JournalEntry(nano, len(self.written) % 99_999 + 1, 10, 64, 48, "jpeg", True)
                try:
                    client.execute_command("XADD", JOURNAL, entry_id(nano, one.sequence), *entry_fields(one))
                except redis.ResponseError as error:
                    self.refused.append(str(error))
                else:
                    self.written.append(one)


def test_no_entry_of_a_site_that_writes_meanwhile_is_lost_or_refused(server, client):
    add(client, [entry(number) for number in range(0, 6000, 2)])
    with Writing(server) as writing, session(server) as one:
        # From the end to the beginning, so that every part goes between others.
        for first in range(5001, 0, -1000):
            had = len(writing.written)
            assert merge(one, [entry(number) for number in range(first, first + 1000, 2)]).added == 500
            assert len(writing.written) > had, "nothing was written meanwhile"
    assert not writing.refused
    assert listed(client, "loja", "cam1") == [*(entry(number) for number in range(6000)), *writing.written]


@pytest.mark.parametrize("state", ["active", "stalled"])
def test_what_is_newer_than_a_written_journals_last_entry_waits(server, client, state):
    """It would lock out the site's frames that are still on their way."""
    now = now_nano(client)
    last = JournalEntry(now - SECOND, 5, 1, 1, 1, "jpeg", True)
    add(client, [last])
    client.hset(keys.cameras_key("loja", "frames"), "cam1", encode_status(CameraStatus(state)))
    younger = last._replace(unix_nano=now - SECOND // 2)
    with session(server) as one:
        merged = merge(one, [entry(1), younger, last._replace(unix_nano=now + 3600 * SECOND)])
    assert merged == Merged(1, (last.unix_nano, last.sequence))
    assert listed(client, "loja", "cam1") == [entry(1), last]


@pytest.mark.parametrize(("state", "age"), [("offline", 1), ("active", 100)])
def test_behind_the_last_entry_of_a_journal_that_nobody_writes_there_is_room(server, client, state, age):
    now = now_nano(client)
    last = JournalEntry(now - age * SECOND, 5, 1, 1, 1, "jpeg", True)
    add(client, [last])
    client.hset(keys.cameras_key("loja", "frames"), "cam1", encode_status(CameraStatus(state)))
    younger = last._replace(unix_nano=now - SECOND // 2)
    with session(server) as one:
        assert merge(one, [younger]).added == 1
    assert listed(client, "loja", "cam1") == [last, younger]


def test_nothing_is_listed_in_the_future_of_a_journal_that_nobody_writes(server, client):
    now = now_nano(client)
    future = JournalEntry(now + 3600 * SECOND, 1, 1, 1, 1, "jpeg", True)
    past = future._replace(unix_nano=now - SECOND)
    with session(server) as one:
        assert merge(one, [past, future]).added == 1
    assert listed(client, "loja", "cam1") == [past]


class Interrupted(Session):
    """A session during which something happens at Redis, once: right before its first command that ``when`` says."""

    def __init__(
        self, server: AnyServer, when: Callable[[tuple[Any, ...]], bool], happens: Callable[[], object]
    ) -> None:
        super().__init__(parse_redis_address(server.url), 20.0)
        self._when = when
        self._happens: Callable[[], object] | None = happens

    def try_call(self, *commands: tuple[Any, ...]) -> list[Any]:
        self._interrupt(commands)
        return super().try_call(*commands)

    def node_of(self, key: str | bytes) -> Session:
        node = super().node_of(key)
        if node is not self:
            ask = type(node).try_call

            def try_call(*commands: tuple[Any, ...]) -> list[Any]:
                self._interrupt(commands)
                return ask(node, *commands)

            node.try_call = try_call  # type: ignore[method-assign]
        return node

    def _interrupt(self, commands: tuple[tuple[Any, ...], ...]) -> None:
        if self._happens and any(map(self._when, commands)):
            happens, self._happens = self._happens, None
            happens()


@pytest.mark.parametrize("frames", [1, BATCH_MAX + 3])
def test_what_a_site_writes_between_the_last_look_and_the_swap_is_kept(server, client, frames):
    """The one moment that a site which writes by the clock meets too seldom to be shown by it."""
    before = [entry(number) for number in range(0, 20, 2)]
    add(client, before)
    late = [entry(number) for number in range(100, 100 + frames)]
    with Interrupted(server, lambda command: command[0] == "MULTI", lambda: add(client, late)) as one:
        assert merge(one, [entry(3)]).added == 1
    assert listed(client, "loja", "cam1") == [*before[:2], entry(3), *before[2:], *late]


def test_another_job_that_adds_to_the_same_journal_meanwhile_loses_nothing(server, client):
    """Two people, or a person and a timer, run a job at the same time: the second swap must not undo the first."""
    add(client, [entry(number) for number in range(0, 20, 2)])

    def other_job() -> None:
        with session(server) as other:
            assert merge(other, [entry(number) for number in range(5, 20, 4)]).added == 4

    with Interrupted(server, lambda command: command[0] == "MULTI", other_job) as one:
        merge(one, [entry(number) for number in range(3, 20, 4)])
    wanted = sorted({*range(0, 20, 2), *range(3, 20, 2)})
    assert listed(client, "loja", "cam1") == [entry(number) for number in wanted]


def drop_drafts(client: redis.Redis) -> None:
    """What Redis does to a draft whose job stood still for longer than a draft lives."""
    drafts = list(client.scan_iter("engine:*:rebuild:*"))
    assert drafts, "there is no draft yet"
    client.delete(*drafts)


@pytest.mark.parametrize("where", ["while it copies", "before it swaps"])
def test_a_job_that_stood_still_until_its_draft_was_gone_loses_no_entry(server, client, where):
    """A laptop's lid, or SIGSTOP: the journal must not be replaced by what was copied since."""
    before = [entry(number) for number in range(0, 4 * BATCH_MAX, 2)]
    add(client, before)
    at = (lambda command: command[0] == "MULTI") if where == "before it swaps" else _second_part
    with Interrupted(server, at, lambda: drop_drafts(client)) as one:
        merge(one, [entry(1)])
    assert listed(client, "loja", "cam1") == [before[0], entry(1), *before[1:]]


def _second_part(command: tuple[Any, ...]) -> bool:
    """The XADD that a second batch of copies begins with."""
    return command[0] == "XADD" and command[2] == _SECOND_PART


_SECOND_PART = entry_id(*entry(2 * BATCH_MAX)[:2]).encode()
