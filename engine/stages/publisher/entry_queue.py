"""Entries that were read and wait to be sent: one read ahead of the broker.

A frame may be gone before its event is sent. The queue asks Redis, but only for a camera whose oldest entry has waited.
It has waited if it was here at the look before, or if one read of its journal spans more than a second. While events
flow, no entry waits. Frames expire in the order in which they were stored. So the queue asks for the oldest first, and
for the next ones only if it is gone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from engine.stages.publisher.account import BEGINNING, Id
from engine.stages.publisher.accounts import Accounts
from engine.stages.publisher.arrivals import Arrivals
from engine.stages.publisher.journals import Journals
from engine.stages.publisher.reads import CameraRead
from engine.wire.journal import JournalEntry

#: Entries held at a time, over all cameras: a few windows, so that the next messages are ready.
_QUEUE_MAX = 2048
#: Seconds from a read that brought entries to the next one: most, where entries come all the time, and least. A read
#: costs nearly the same for one entry as for many, so this trades latency for CPU, within the 3 ms that half of all
#: events may take from stored to received.
_LINGER_SECONDS_MAX = 0.0045
_LINGER_SECONDS_MIN = 0.0022
#: Seconds from the read of an entry until its event is received, for each entry of the read.
_EVENT_SECONDS = 0.0002
#: The same while a journal has entries that are too far ahead to be taken: Redis answers at once.
_AHEAD_SECONDS = 0.04
#: Seconds that a read waits for entries, at most. Cameras that come meanwhile are in the next read.
_BLOCK_SECONDS = 1.0
#: If the stamps of one read span more nanoseconds than this, its first entry has waited.
_BEHIND_NANO = 10**9
#: Rounds of looking for expired entries before other work continues.
_EXPIRY_ROUNDS_MAX = 64
#: Frames of one camera in one question to Redis, at most.
_ASKED_MAX = 256

#: A frame to announce: its camera, its journal entry, and since when it is stored (monotonic nanoseconds). A message's
#: token is the list of its items.
Item = tuple[str, JournalEntry, int]


class EntryQueue:
    """Entries of all cameras, each camera's in order. Methods that ask Redis raise RedisUnavailable, ServerRefused."""

    def __init__(self, journals: Journals, accounts: Accounts) -> None:
        self.items: deque[Item] = deque()
        #: When to begin the next read (monotonic seconds), if any entries are wanted.
        self._read_at = 0.0
        #: When the last entries were read.
        self._found_at = 0.0
        #: Of the read under way: the positions of the cameras, and the number of entries of each that it may bring.
        self._asked: dict[str, Id] = {}
        self._room = 0
        self._journals = journals
        self._accounts = accounts
        #: The last entry of each camera at the last look: it and all before it have waited since.
        self._waited: dict[str, Id] = {}
        self._arrivals = Arrivals()

    @property
    def wants_entries(self) -> bool:
        """True if too few entries are ready."""
        return len(self.items) < _QUEUE_MAX // 2

    def clear(self) -> None:
        """Forget all entries; the caller rewinds the accounts."""
        self.items.clear()
        self._waited.clear()
        self._arrivals.forget()

    def oldest(self) -> dict[str, Id]:
        """The id of the oldest entry of each camera that has any."""
        return {camera: _id(entries[0]) for camera, entries in self._by_camera().items()}

    def wait(self, seconds: float) -> None:
        """Sleep until new entries can be taken, at most ``seconds``. Begins the next read when it is due."""
        if not self._journals.reading:
            pause = self._read_at - time.monotonic()
            if pause > 0:
                time.sleep(min(pause, seconds))
            self._begin()
        self._journals.wait(seconds)

    def fill(self) -> None:
        """Take new entries if Redis has sent any, and begin a read if one is due."""
        if self._journals.reading:
            found = self._journals.end_read(self._room)
            if found is not None:
                fresh = self._journals.read_waited
                for camera in self._journals.unread:
                    self._asked.pop(camera, None)
                self._drop_gone(self._take(self._current(found), self._asked, self._room, fresh=fresh))
        else:
            self._begin()

    def expire(self) -> None:
        """Drop the entries whose frames are gone; called now and then."""
        self._drop_gone(
            {camera for camera, oldest in self.oldest().items() if oldest <= self._waited.get(camera, BEGINNING)}
        )
        self._waited = {camera: _id(entries[-1]) for camera, entries in self._by_camera().items()}

    def overtake(self, cameras: set[str]) -> None:
        """The read under way does not count for some cameras: what it may bring was counted."""
        for camera in cameras:
            self._asked.pop(camera, None)

    def _begin(self) -> None:
        if self.wants_entries and time.monotonic() >= self._read_at:
            self._asked = self._positions()
            self._room = self._room_for(len(self._asked))
            self._journals.begin_read(self._asked, self._room, _BLOCK_SECONDS)

    def _current(self, found: list[CameraRead]) -> list[CameraRead]:
        """What counts of a read: that of cameras which nothing has overtaken, rewound or removed since it began."""
        accounts = self._accounts.by_camera
        return [
            read
            for read in found
            if (account := accounts.get(read.camera)) and self._asked.get(read.camera) == account.read
        ]

    def _positions(self) -> dict[str, Id]:
        return {camera: account.read for camera, account in self._accounts.by_camera.items()}

    def _room_for(self, cameras: int) -> int:
        return max((_QUEUE_MAX - len(self.items)) // max(cameras, 1), 1)

    def _read(self) -> set[str]:
        """Read without waiting; returns as ``_take``. A read that is under way then counts for other cameras only."""
        positions = self._positions()
        room = self._room_for(len(positions))
        return self._take(self._journals.read(positions, room), positions, room, fresh=False)

    def _take(self, found: list[CameraRead], asked: Mapping[str, Id], room: int, *, fresh: bool) -> set[str]:
        """Queue the entries of a read of ``room`` per camera of those ``asked``. They are ``fresh`` if Redis waited for
        them. Returns the cameras whose oldest entry has waited."""
        self._accounts.take(found)
        longest = 0
        behind = set()
        self._arrivals.begin(fresh=fresh)
        for camera, entries, _, unreadable in found:
            self.items += self._arrivals.stamped(camera, entries)
            longest = max(longest, len(entries) + unreadable)
            if entries and entries[-1].unix_nano - entries[0].unix_nano > _BEHIND_NANO:
                behind.add(camera)
        self._arrivals.end(asked if longest < room else {})
        now = time.monotonic()
        if longest >= room:
            # Some camera may have more entries than one read returns.
            self._read_at = 0.0
        elif self._journals.met_ahead:
            self._read_at = now + _AHEAD_SECONDS
        elif found:
            self._read_at = now + linger_seconds(now - self._found_at, max(sum(len(read.entries) for read in found), 1))
        if found:
            self._found_at = now
        return behind

    def _drop_gone(self, cameras: set[str]) -> None:
        """Drop the oldest entries of some cameras if their frames are gone, and read others in their place."""
        for _ in range(_EXPIRY_ROUNDS_MAX):
            if not cameras:
                return
            suspects = {camera: entries for camera, entries in self._by_camera().items() if camera in cameras}
            gone = self._gone(suspects)
            if not gone:
                return
            for camera, count in gone.items():
                account, waiting = self._accounts.by_camera[camera], suspects[camera]
                account.drop(account.taken - len(waiting), count, _id(waiting[count - 1]))
            self._pass_over(gone)
            # If all frames of a camera were gone, the next ones may be gone too.
            emptied = {camera for camera, count in gone.items() if count == len(suspects[camera])}
            cameras = emptied | self._read()

    def _gone(self, suspects: dict[str, list[JournalEntry]]) -> dict[str, int]:
        """Camera -> how many of its oldest entries have lost their frame; cameras without any are left out."""
        gone = dict.fromkeys(suspects, 0)
        asked = {camera: entries[:1] for camera, entries in suspects.items()}
        while asked:
            alive = iter(self._journals.alive((camera, entry) for camera, part in asked.items() for entry in part))
            following = {}
            for camera, part in asked.items():
                lives = [next(alive) for _ in part]
                gone[camera] += lives.index(True) if True in lives else len(part)
                rest = suspects[camera][gone[camera] :]
                if True not in lives and rest:
                    following[camera] = rest[: min(4 * len(part), _ASKED_MAX)]
            asked = following
        return {camera: count for camera, count in gone.items() if count}

    def _pass_over(self, gone: dict[str, int]) -> None:
        """Remove the oldest entries of some cameras from the queue."""
        left = dict(gone)
        # In place: others hold a reference to the queue.
        for _ in range(len(self.items)):
            item = self.items.popleft()
            if left.get(item[0]):
                left[item[0]] -= 1
            else:
                self.items.append(item)

    def _by_camera(self) -> dict[str, list[JournalEntry]]:
        waiting: dict[str, list[JournalEntry]] = {}
        for camera, entry, _ in self.items:
            waiting.setdefault(camera, []).append(entry)
        return waiting


def linger_seconds(elapsed: float, entries: int) -> float:
    """How long to wait after a read of so many ``entries``, if the one before it was ``elapsed`` seconds ago.

    Of several entries that come in a pause, half wait less than half of it, but more events then wait for each other.
    Of one, nobody knows: cameras keep their rates, so it may come at the beginning of every pause.
    """
    interval = elapsed / entries
    return max(_LINGER_SECONDS_MAX - interval / 2 - entries * _EVENT_SECONDS, _LINGER_SECONDS_MIN)


def _id(entry: JournalEntry) -> Id:
    return entry.unix_nano, entry.sequence
