"""Every stored access unit is announced in a GOP, or counted as expired: whatever is trimmed, expires, is away or
killed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.config import from_document
from engine.errors import RedisUnavailable
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher import gops
from engine.stages.publisher.account import Id
from engine.stages.publisher.gops import QUIET_SECONDS, Gops, GopToken
from engine.stages.publisher.reads import CameraRead, Cursors, Newest, Overview
from engine.wire.journal import JournalEntry
from engine.wire.keys import next_sequence, parse_video_key
from engine.wire.marks import Mark
from engine.wire.metadata import GopEvent, decode_event
from tests.examples import examples

NANO = 1_731_024_000_000_000_000
CAMERA = "cam1"


class Redis:
    """What Redis has of one camera's video: its journal, which access units are there, the cursor, the writer's
    mark."""

    def __init__(self, before: int) -> None:
        self.before = self.total = before
        self.journal: list[JournalEntry] = []
        self.there: set[Id] = set()
        self.cursors: dict[str, Mark] = {}
        self.serials: frozenset[bytes] = frozenset()
        #: Replies until it is away; None: it stays.
        self.answers: int | None = None


class FakeJournals:
    """``Journals`` of that Redis."""

    foreign: frozenset[str] = frozenset()
    unseen: frozenset[str] = frozenset()
    redis: Redis

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def _ask(self) -> Redis:
        if self.redis.answers is not None:
            self.redis.answers -= 1
            if self.redis.answers < 0:
                raise RedisUnavailable("away")
        return self.redis

    def add(self, camera: str) -> None:
        """One camera is all there is."""

    def close(self) -> None:
        """There is no connection."""

    def cursors(self) -> Cursors:
        redis = self._ask()
        return Cursors(dict(redis.cursors), redis.serials)

    def save(self, cursors: Mapping[str, Mark], serial: str = "") -> bool:
        redis = self._ask()
        redis.cursors |= cursors
        redis.serials = frozenset({serial.encode()})
        return True

    def read(self, after: Mapping[str, Id], count: int) -> list[CameraRead]:
        found = [entry for entry in self._ask().journal if ids(entry) > after[CAMERA]][:count]
        return [CameraRead(CAMERA, found, ids(found[-1]), 0)] if found else []

    def before(self, _: str, at: Id, count: int) -> list[JournalEntry]:
        return [entry for entry in reversed(self._ask().journal) if ids(entry) < at][:count]

    def overview(self) -> Overview:
        redis = self._ask()
        newest = {CAMERA: Newest(ids(redis.journal[-1]), redis.journal[-1].number)} if redis.journal else {}
        return Overview({}, self.marks, newest)

    def written(self) -> dict[str, Mark]:
        self._ask()
        return self.marks

    @property
    def marks(self) -> dict[str, Mark]:
        return {CAMERA: Mark((1, 1), self.redis.total, self.redis.before)}

    def alive(self, frames: Iterable[tuple[str, JournalEntry]]) -> list[bool]:
        asked = list(frames)
        return [ids(entry) in self._ask().there for _, entry in asked] if asked else []


class FakeBroker:
    """Takes messages and confirms them when told to. Each must name access units that ``redis`` has."""

    def __init__(self, redis: Redis) -> None:
        self.ready = True
        self._redis = redis
        self.sent: list[tuple[GopEvent, GopToken]] = []

    @property
    def in_flight(self) -> int:
        return len(self.sent)

    def publish(self, body: bytes, routing_key: str, token: Any) -> None:
        assert routing_key == "camera.metadata.event.video"
        event = decode_event(body)
        assert isinstance(event, GopEvent)
        for named in (parse_video_key(event.first_key), parse_video_key(event.last_key)):
            assert (named.unix_nano, named.sequence) in self._redis.there, event
        self.sent.append((event, token))


def ids(entry: JournalEntry) -> Id:
    return entry.unix_nano, entry.sequence


class Journal(RuleBasedStateMachine):
    """A writer that also drops units, a Redis that forgets, and a publisher that is cut off and killed."""

    @initialize(before=st.integers(0, 200_000), sequence=st.integers(0, 99_999), window=st.sampled_from([1, 2, 512]))
    def begin(self, before: int, sequence: int, window: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        path = self.directory.name
        self.config = from_document(
            {
                "site": {"run_directory": f"{path}/run"},
                "ring": {"directory": path},
                "amqp": {"amqp_url": "amqp://localhost"},
                "metadata": {"video": "gop"},
                "publisher": {"window": window},
                "cameras": [{"id": CAMERA, "url": "rtsp://192.0.2.1/x", "video": True}],
            },
            {},
        )
        self.redis = Redis(before)
        self.stored: list[JournalEntry] = []
        self.announced: list[GopEvent] = []
        self.sequence, self.nano, self.now = sequence, NANO, 0.0
        self.broken = True
        #: True if a confirm may have been lost: its units may count as expired as well.
        self.forgot = False
        #: True after a kill before the first cursor was saved: as if Redis had lost it, counting begins again.
        self.uncounted = False
        self.page: StatusPage | None = None
        self.start()

    def start(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(gops, "Journals", type("Journals", (FakeJournals,), {"redis": self.redis}))
        self.page = StatusPage.claim(Path(self.directory.name) / "publisher.status")
        self.broker = FakeBroker(self.redis)
        self.gops = Gops(self.config, self.page, self.broker, structlog.get_logger(), lambda *_: None)  # type: ignore[arg-type]

    def attempt(self, ask: Any) -> None:
        try:
            ask()
        except RedisUnavailable:
            self.gops.disconnect()
            self.redis.answers = None

    def turn(self, *, look: bool = False) -> None:
        def round_() -> None:
            self.gops.begin()
            if look:
                self.gops.look()
            self.gops.do_work(self.now)

        self.now += 0.3
        self.attempt(round_)

    @rule(pattern=st.text(alphabet="K..", min_size=1, max_size=8))
    def write(self, pattern: str) -> None:
        """After a loss the next unit is a key frame."""
        for letter in pattern:
            self.nano += 40_000_000
            self.sequence = next_sequence(self.sequence)
            keyframe = self.broken or letter == "K"
            self.broken = False
            self.redis.total += 1
            entry = JournalEntry(self.nano, self.sequence, 10, 64, 48, "h264", keyframe, self.redis.total)
            self.stored.append(entry)
            self.redis.journal.append(entry)
            self.redis.there.add(ids(entry))

    @rule(count=st.integers(1, 3))
    def lose(self, count: int) -> None:
        for _ in range(count):
            self.sequence = next_sequence(self.sequence)
        self.broken = True

    @rule(count=st.integers(1, 12))
    def expire(self, count: int) -> None:
        """The oldest units; the journal's entries stay for a while."""
        for identifier in sorted(self.redis.there)[:count]:
            self.redis.there.remove(identifier)

    @rule(count=st.integers(1, 12))
    def trim(self, count: int) -> None:
        for entry in self.redis.journal[:count]:
            self.redis.there.discard(ids(entry))
        del self.redis.journal[:count]

    @rule(count=st.integers(1, 12))
    def come_back_without_the_newest(self, count: int) -> None:
        """Redis was restarted, and had not yet saved these. The writer counts them as lost, and ends the GOP."""
        for entry in self.redis.journal[-count:]:
            self.redis.there.discard(ids(entry))
        del self.redis.journal[-count:]
        self.lose(1)

    @rule(look=st.booleans(), times=st.integers(1, 3))
    def work(self, look: bool, times: int) -> None:
        for _ in range(times):
            self.turn(look=look)

    @rule()
    def nothing_comes_for_long(self) -> None:
        self.turn()
        self.turn()
        self.now += QUIET_SECONDS
        self.turn()

    @rule(count=st.integers(1, 4))
    def confirm(self, count: int) -> None:
        for event, token in self.broker.sent[:count]:
            self.announced.append(event)
            self.gops.confirm(token)
        del self.broker.sent[:count]

    @rule()
    def save(self) -> None:
        self.attempt(lambda: self.gops.save(all_of_them=False))

    @rule(ready=st.booleans())
    def broker_is_ready(self, ready: bool) -> None:
        self.broker.ready = ready

    @rule(answers=st.integers(0, 3))
    def redis_goes_away(self, answers: int) -> None:
        self.redis.answers = answers

    @rule(arrived=st.integers(0, 3))
    def broker_is_lost(self, arrived: int) -> None:
        """Some of what was sent arrived all the same."""
        self._arrive(arrived)
        self.broker.sent.clear()
        self.gops.rewind()

    @rule(arrived=st.integers(0, 3))
    def killed(self, arrived: int) -> None:
        self._arrive(arrived)
        self.forgot = self.forgot or bool(self.announced)
        assert self.page
        self.uncounted = self.uncounted or bool(self.page.counts[PublisherCount.GOPS] and not self.redis.cursors)
        self.kill()
        self.start()

    def _arrive(self, count: int) -> None:
        self.announced += [event for event, _ in self.broker.sent[:count]]
        self.forgot = self.forgot or bool(self.broker.sent[:count])

    def kill(self) -> None:
        if self.page:
            self.page.close()
        self.page = None
        self.patch.undo()

    @invariant()
    def announced_gops_are_gops(self) -> None:
        for event in getattr(self, "announced", ()):
            first, last = (parse_video_key(key) for key in (event.first_key, event.last_key))
            part = [one for one in self.stored if first.unix_nano <= one.unix_nano <= last.unix_nano]
            assert (event.frames, event.size_bytes) == (len(part), 10 * len(part))
            assert [one.keyframe for one in part] == [True] + [False] * (len(part) - 1)
            assert (part[0].sequence, part[-1].sequence) == (first.sequence, last.sequence)

    def teardown(self) -> None:
        if not hasattr(self, "gops"):
            return
        try:
            self.redis.answers, self.broker.ready = None, True
            self.write("K")
            for _ in range(200):
                self.turn(look=True)
                self.confirm(10**6)
                if self.gops.drained():
                    break
            assert self.gops.drained(), "a cursor stays behind"
            self.save()
            assert self.page
            expired = self.page.counts[PublisherCount.VIDEO_EXPIRED]
            covered: set[int] = set()
            for event in self.announced:
                covered |= {
                    one.number
                    for one in self.stored
                    if event.timestamp_nano <= one.unix_nano <= event.last_timestamp_nano
                }
            missing = [one.number for one in self.stored if one.number not in covered]
            if self.uncounted:
                assert expired <= len(self.stored)
            elif self.forgot:
                assert expired >= len(missing)
            else:
                assert expired == len(missing), missing
            newest = self.stored[-1]
            assert self.redis.cursors[CAMERA] == Mark(ids(newest), newest.number)
        finally:
            self.kill()
            self.directory.cleanup()


TestJournal = Journal.TestCase
TestJournal.settings = settings(max_examples=examples(400), stateful_step_count=40, deadline=None)


@pytest.fixture
def machine() -> Iterator[Journal]:
    made = Journal()
    made.begin(0, 0, 512)
    yield made
    made.teardown()


def announce(machine: Journal) -> None:
    machine.nothing_comes_for_long()
    machine.confirm(10)
    machine.save()


def test_a_gop_that_goes_on_is_announced_again_with_all_of_its_units(machine: Journal) -> None:
    machine.write("K..")
    announce(machine)
    machine.write("..K")
    announce(machine)
    first, again, last = machine.announced
    assert (first.first_key, first.frames, last.frames) == (again.first_key, 3, 1)
    assert (again.frames, again.last_timestamp_nano) == (5, machine.stored[4].unix_nano)
    assert again.duration_seconds == 0.2


def test_a_successor_knows_the_beginning_of_a_gop_that_goes_on(machine: Journal) -> None:
    machine.write("K..")
    announce(machine)
    machine.killed(0)
    machine.write("..")
    announce(machine)
    assert [event.frames for event in machine.announced] == [3, 5]


@pytest.mark.parametrize("looked", [False, True])
def test_a_gop_that_goes_on_after_its_key_frame_is_gone_expires_in_part(machine: Journal, looked: bool) -> None:
    machine.write("K..")
    announce(machine)
    machine.write("..")
    machine.broker.ready = False
    machine.nothing_comes_for_long()
    machine.expire(1)
    if looked:
        machine.turn(look=True)
    machine.broker.ready = True
    announce(machine)
    assert machine.page
    assert machine.page.counts[PublisherCount.VIDEO_EXPIRED] == 2
    assert [event.frames for event in machine.announced] == [3]


def test_a_gop_without_its_key_frame_is_not_announced(machine: Journal) -> None:
    machine.write("K..K..K")
    machine.expire(1)
    machine.turn()
    machine.confirm(10)
    machine.save()
    assert machine.page
    assert machine.page.counts[PublisherCount.VIDEO_EXPIRED] == 3
    assert [event.timestamp_nano for event in machine.announced] == [machine.stored[3].unix_nano]


def test_the_cursor_moves_past_confirmed_gops_only(machine: Journal) -> None:
    machine.write("K..K..K.")
    machine.turn()
    machine.confirm(1)
    machine.save()
    assert machine.redis.cursors[CAMERA] == Mark(ids(machine.stored[2]), 3)
    machine.killed(0)
    machine.turn()
    assert [event.timestamp_nano for event, _ in machine.broker.sent] == [machine.stored[3].unix_nano]


def test_at_a_stop_the_last_gop_is_finished_at_once(machine: Journal) -> None:
    machine.write("K..")
    machine.turn()
    assert not machine.broker.sent
    assert not machine.gops.drained()
    machine.turn()
    assert [event.frames for event, _ in machine.broker.sent] == [3]
    machine.confirm(1)
    assert machine.gops.drained()
    machine.save()
    machine.killed(0)


def test_of_a_gop_whose_end_redis_lost_the_beginning_is_announced(machine: Journal) -> None:
    machine.write("K..K....")
    machine.turn()
    machine.come_back_without_the_newest(3)
    machine.write("K")
    machine.nothing_comes_for_long()
    machine.confirm(10)
    machine.save()
    assert [event.frames for event in machine.announced] == [3, 2, 1]
    assert machine.announced[1].duration_seconds == pytest.approx(0.04)
    assert machine.page
    assert machine.page.counts[PublisherCount.VIDEO_EXPIRED] == 3


def test_of_a_gop_that_went_on_and_lost_that_again_nothing_more_is_announced(machine: Journal) -> None:
    machine.write("K....")
    announce(machine)
    machine.write("..")
    machine.turn()
    machine.come_back_without_the_newest(3)
    machine.nothing_comes_for_long()
    machine.confirm(10)
    machine.save()
    assert [event.frames for event in machine.announced] == [5]
    assert machine.page
    assert machine.page.counts[PublisherCount.VIDEO_EXPIRED] == 2
