"""Announces finished GOPs of stored video: an event for each, in order per camera, at least once.

The video journals are read behind their own cursors. Their entries become GOPs (``gop_assembly.py``), and a cursor
moves past a GOP when the broker has confirmed its event. If Redis no longer has the key frame of a GOP, no event is
sent: its access units count as expired, as do those that were trimmed from the journal before they were read. If Redis
came back without the newest data, a GOP may have lost its end: only its beginning is announced. So each access unit
that the site stored is announced in one GOP or counted, also after kills and outages.

A GOP that nothing follows counts as finished after a few seconds, and at a stop at once. If more of it comes later, its
event comes again, with all access units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.servers.amqp.broker import Broker
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.account import Id
from engine.stages.publisher.accounts import Accounts
from engine.stages.publisher.cluster_calls import NodeUnavailable
from engine.stages.publisher.foreign_keys import OnForeign
from engine.stages.publisher.gop_assembly import Assembly, Finished, beginning, part_before
from engine.stages.publisher.journals import Journals
from engine.stages.publisher.reads import CameraRead, Newest, Overview
from engine.wire.journal import JournalEntry
from engine.wire.metadata import Gop, GopEvents, encode_event

#: Seconds between reads: a GOP lasts longer.
_READ_SECONDS = 0.25
#: Entries of one read over all cameras, and of one camera at least.
_ENTRIES_MAX = 4096
_CAMERA_ENTRIES_MIN = 64
#: Finished GOPs that wait for the broker, at most: more are left in the journals.
_READY_MAX = 1024
#: GOPs whose key frames are looked up in one round trip.
_ASKED_MAX = 256
#: Seconds without another access unit after which a GOP counts as finished.
QUIET_SECONDS = 5.0
#: Entries of one look back, and the number of such looks: more than any GOP has.
_BACK_ENTRIES = 512
_BACK_LOOKS = 16


class GopToken(NamedTuple):
    """Identifies a sent event: its camera and GOP."""

    camera: str
    finished: Finished


class Gops:
    """The GOPs of the cameras of the publisher ``number``. Methods that ask Redis raise RedisUnavailable,
    ServerRefused, and may be called again."""

    def __init__(
        self,
        config: Config,
        page: StatusPage,
        broker: Broker,
        log: FilteringBoundLogger,
        on_foreign: OnForeign,
        number: int = 0,
    ) -> None:
        cameras = [camera.id for camera in config.cameras if camera.video and config.publisher_of(camera.id) == number]
        self._journals = Journals(
            config.publisher_redis_address,
            config.redis.timeout_seconds,
            config.vhost,
            config.prefix,
            cameras,
            on_foreign,
            video=True,
            publisher=number,
        )
        self._accounts = Accounts(config, page, self._journals, log, number, video=True)
        self._config = config
        self._counts = page.counts
        self._broker = broker
        self._makers: dict[str, GopEvents] = {}
        self._assemblies: dict[str, Assembly] = {}
        #: Since when (monotonic seconds) nothing has followed a camera's open GOP.
        self._quiet: dict[str, float] = {}
        self._ready: deque[GopToken] = deque()
        self._read_at = 0.0
        #: In a stop: the last entries to announce, and if those of all cameras are known.
        self._targets: dict[str, Newest] = {}
        self._targets_known = False

    def begin(self) -> None:
        """Continue where the last publisher stopped, with the first connection to Redis."""
        if not self._accounts.begun:
            self._accounts.begin()

    def look(self) -> Overview:
        """Follow the rings, and count what has expired; called now and then."""
        overview = self._journals.overview()
        self._accounts.look(overview, {token.camera for token in self._ready})
        for camera in self._assemblies.keys() - self._accounts.by_camera.keys():
            del self._assemblies[camera]
        oldest = {token.camera: token for token in reversed(self._ready)}
        self._drop_gone(list(oldest.values()))
        return overview

    @property
    def behind(self) -> bool:
        """True if the last read may have left entries in the journals."""
        return self._read_at == 0.0 and len(self._ready) < _READY_MAX

    def do_work(self, now: float) -> int:
        """Read entries if it is time, and send events; returns the number of events. ``now`` is in monotonic
        seconds."""
        if now >= self._read_at and len(self._ready) < _READY_MAX:
            self._fill(now)
        return self._send()

    def confirm(self, token: GopToken) -> None:
        """The broker has confirmed an event."""
        self._accounts.by_camera[token.camera].confirm(token.finished.entries, _id(token.finished.gop.last))
        self._counts[PublisherCount.GOPS] += 1

    def rewind(self) -> None:
        """Unconfirmed events are lost with the connection: read their entries again."""
        self._ready.clear()
        self._assemblies.clear()
        self._quiet.clear()
        self._accounts.rewind()

    def save(self, *, all_of_them: bool) -> None:
        """Save the cursors that have moved."""
        self._accounts.save(all_of_them=all_of_them)

    def drained(self, *, waits: bool = False) -> bool:
        """True if all GOPs that the journals list at the first call are confirmed. With ``waits``, also those of
        journals whose part of a cluster is away."""
        if not self._accounts.begun:
            return False
        if not self._targets_known:
            self._targets = self.look().newest | self._targets
            self._targets_known = not (waits and self._journals.unseen)
        accounts, done = self._accounts.by_camera, self._targets_known
        for camera, target in self._targets.items():
            account = accounts.get(camera)
            if account and account.cursor < target.at:
                done = False
                if account.read >= target.at and camera in self._assemblies:
                    self._finish(camera, self._assemblies[camera])
        return done

    def disconnect(self) -> None:
        """Redis is away: drop the connection."""
        self._journals.close()
        # Until its first read afterwards nobody knows what has followed.
        self._quiet.clear()

    def _fill(self, now: float) -> None:
        """Read the next entries of all cameras, and finish the GOPs that nothing follows."""
        accounts = self._accounts.by_camera
        room = max(_ENTRIES_MAX // max(len(accounts), 1), _CAMERA_ENTRIES_MIN)
        found = self._journals.read({camera: account.read for camera, account in accounts.items()}, room)
        # Redis is asked for all that is needed before anything moves.
        earlier: dict[str, Gop | None] = {}
        for read in list(found):
            try:
                earlier[read.camera] = self._look_back(read)
            except NodeUnavailable:
                # It was there for the read. Its entries are read again.
                found.remove(read)
        self._accounts.take(found)
        longest = 0
        for camera, entries, _, unreadable in found:
            self._quiet.pop(camera, None)
            self._assemble(camera, entries, earlier[camera])
            longest = max(longest, len(entries) + unreadable)
        self._read_at = 0.0 if longest >= room else now + _READ_SECONDS
        for camera, assembly in self._assemblies.items():
            waits = camera not in earlier and assembly.is_open
            if waits and now - self._quiet.setdefault(camera, now) > QUIET_SECONDS:
                self._finish(camera, assembly)

    def _look_back(self, read: CameraRead) -> Gop | None:
        """The part of a GOP that was announced before, if the first of these entries continues it."""
        camera, entries, _, _ = read
        if camera not in self._assemblies:
            # It begins where its account has read to.
            self._assemblies[camera] = Assembly(self._accounts.by_camera[camera].read[1])
        if not entries or not self._assemblies[camera].continues(entries[0]):
            return None

        def older() -> Iterator[JournalEntry]:
            at = _id(entries[0])
            for _ in range(_BACK_LOOKS):
                found = self._journals.before(camera, at, _BACK_ENTRIES)
                yield from found
                if len(found) < _BACK_ENTRIES:
                    return
                at = _id(found[-1])

        return part_before(entries[0], older())

    def _assemble(self, camera: str, entries: list[JournalEntry], earlier: Gop | None) -> None:
        account, assembly = self._accounts.by_camera[camera], self._assemblies[camera]
        assembly.resume(earlier)
        for entry in entries:
            place = assembly.place
            finished, belongs = assembly.add(entry)
            if finished:
                self._ready.append(GopToken(camera, finished))
            if not belongs:
                account.drop(place, 1, _id(entry))

    def _finish(self, camera: str, assembly: Assembly) -> None:
        self._quiet.pop(camera, None)
        if finished := assembly.finish():
            self._ready.append(GopToken(camera, finished))

    def _send(self) -> int:
        """Send events while the broker accepts them; returns their number."""
        room = self._config.publisher.window - self._broker.in_flight
        if not self._ready or not self._broker.ready or room <= 0:
            return 0
        sent = self._drop_gone([self._ready[place] for place in range(min(len(self._ready), room, _ASKED_MAX))])
        for token in sent:
            self._ready.popleft()
            event = self._maker(token.camera).event(token.finished.gop)
            self._broker.publish(encode_event(event), self._config.metadata.video_routing_key, token)
        return len(sent)

    def _drop_gone(self, tokens: list[GopToken]) -> list[GopToken]:
        """Count what Redis no longer has of the waiting ``tokens`` as expired, and remove or shorten those tokens.
        Returns the tokens that still wait."""
        gops = [(token.camera, token.finished.gop) for token in tokens]
        alive = self._journals.alive((camera, end) for camera, gop in gops for end in (gop.first, gop.last))
        lefts = [
            None if not begins else token.finished.gop if ends else self._left(token)
            for token, begins, ends in zip(tokens, alive[::2], alive[1::2], strict=True)
        ]
        # All that Redis is asked for is known: now change the queue.
        waiting = []
        for token, left in zip(tokens, lefts, strict=True):
            finished = token.finished
            if left is finished.gop:
                waiting.append(token)
                continue
            # A beginning that was announced before is not announced again.
            kept = max(finished.entries - finished.gop.frames + left.frames, 0) if left else 0
            place = self._ready.index(token)
            del self._ready[place]
            if left and kept:
                waiting.append(GopToken(token.camera, Finished(left, finished.place, kept)))
                self._ready.insert(place, waiting[-1])
            account, lost = self._accounts.by_camera[token.camera], finished.entries - kept
            account.drop(finished.place + kept, lost, _id(finished.gop.last))
        return waiting

    def _left(self, token: GopToken) -> Gop | None:
        """The beginning of a GOP, as far as Redis still has it; all of it while nobody can tell."""
        camera, gop = token.camera, token.finished.gop
        try:
            before = self._journals.before(camera, _id(gop.last), gop.frames)
        except NodeUnavailable:
            return gop
        listed = [entry for entry in before if entry >= gop.first]
        listed.reverse()
        alive = self._journals.alive((camera, entry) for entry in listed)
        return beginning(entry for entry, lives in zip(listed, alive, strict=True) if lives)

    def _maker(self, camera: str) -> GopEvents:
        if camera not in self._makers:
            config = self._config
            ttl_seconds = config.ttl_seconds(video=True)
            self._makers[camera] = GopEvents(config.vhost, config.prefix, camera, ttl_seconds)
        return self._makers[camera]


def _id(entry: JournalEntry) -> Id:
    return entry.unix_nano, entry.sequence
