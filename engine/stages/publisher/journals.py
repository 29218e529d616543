"""The publisher's view of Redis: entries not yet announced, cursors, the writer's marks, and the cameras' states.

A bad value under one camera's name affects only that camera. If its journal is no stream, the camera is passed over and
this is logged. Every overview asks for it again, until its journal is a stream. An entry so far ahead of the clock that
no camera wrote it is ignored: once read, it would hide all entries that are written after its removal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from redis.exceptions import ResponseError

from engine.errors import Cause, RedisUnavailable, WireError
from engine.servers.overrides.redis import NodeAway
from engine.servers.redis.errors import BAD_REPLIES
from engine.servers.redis.session import Session
from engine.stages.capture.clock import latest_floor
from engine.stages.publisher.account import Id
from engine.stages.publisher.blocking_read import NOT_YET, BlockingRead
from engine.stages.publisher.cluster_calls import ClusterCalls, NodeUnavailable
from engine.stages.publisher.foreign_keys import ForeignKeys, OnForeign, report_nothing
from engine.stages.publisher.known_stamps import KnownStamps
from engine.stages.publisher.polling_read import PollingRead
from engine.stages.publisher.reads import (
    SERIAL_FIELD,
    CameraRead,
    Cursors,
    Overview,
    is_foreign,
    newest,
    pairs,
    serials,
    unblocked,
)
from engine.stages.publisher.redis_calls import RedisCalls, says_nothing
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_id, parse_entry
from engine.wire.marks import Mark, format_cursor, parse_cursor, parse_mark
from engine.wire.redis_address import RedisAddress

#: Words of an XREAD with a count and one stream.
_ONE_STREAM = 6


class Journals:
    """Journals, cursors, marks and states of one site's ``cameras``. With ``video``, those of their video; states are
    the cameras' own and left out. ``publisher`` is the number of the publisher that saves cursors.

    Every method except ``close``, ``add``, ``remove`` and ``wait`` connects if necessary, and raises RedisUnavailable
    if Redis is away or refuses. The next call connects again.
    """

    def __init__(
        self,
        address: RedisAddress,
        timeout_seconds: float,
        vhost: str,
        prefix: str,
        cameras: Iterable[str],
        on_foreign: OnForeign = report_nothing,
        *,
        video: bool = False,
        publisher: int = 0,
    ) -> None:
        self._session: Session | ClusterCalls
        self._waiting: BlockingRead | PollingRead
        if address.cluster:
            self._session = ClusterCalls(address, timeout_seconds)
            self._waiting = PollingRead(self._session)
        else:
            self._session = Session(address, timeout_seconds)
            self._waiting = BlockingRead(address, timeout_seconds)
        self._redis = RedisCalls(self._session)
        self._is_cluster = bool(address.cluster)
        #: The positions of the read under way, and its cameras by stream.
        self._asked: Mapping[str, Id] = {}
        self._asked_streams: dict[bytes, str] = {}
        #: True if the last read met entries too far ahead. The next one would meet them at once.
        self.met_ahead = False
        self._serial_field = f"{SERIAL_FIELD}{publisher}"
        self._vhost, self._prefix = vhost, prefix
        self._journal_key = keys.video_journal_key if video else keys.journal_key
        self._frame_key_prefix = keys.video_key_prefix if video else keys.frame_key_prefix
        self._streams: dict[bytes, str] = {}
        self._keys: dict[str, bytes] = {}
        self._frames: dict[str, str] = {}
        self._cursor_key = (keys.video_cursor_key if video else keys.cursor_key)(vhost, prefix)
        self._written_key = (keys.video_written_key if video else keys.written_key)(vhost, prefix)
        #: The hash of the cameras' states, if they are wanted.
        self._states_keys = [] if video else [keys.cameras_key(vhost, prefix)]
        self._foreign = ForeignKeys(self._redis, on_foreign)
        #: Cameras of which the last overview knows nothing, because the nodes of their journals are away.
        self._unseen: set[str] = set()
        self._stamps = KnownStamps()
        for camera in cameras:
            self.add(camera)

    def add(self, camera: str) -> None:
        """Add a camera."""
        key = self._journal_key(self._vhost, self._prefix, camera).encode()
        self._streams[key], self._keys[camera] = camera, key
        self._frames[camera] = self._frame_key_prefix(self._vhost, self._prefix, camera)

    def remove(self, camera: str) -> None:
        """Forget a camera."""
        del self._streams[self._keys.pop(camera)], self._frames[camera]
        self._foreign.forget(camera)
        self._unseen.discard(camera)
        self._stamps.forget(camera)

    @property
    def foreign(self) -> frozenset[str]:
        """Cameras that are currently passed over."""
        return frozenset(self._foreign.names & self._keys.keys())

    @property
    def unseen(self) -> frozenset[str]:
        """Cameras of which the last overview knows nothing, because their part of a cluster is away."""
        return frozenset(self._unseen)

    @property
    def away(self) -> RedisUnavailable | None:
        """Why parts of a cluster are away, while others answer; None if all answer."""
        return self._redis.away

    def close(self) -> None:
        """Drop the connections."""
        self._session.close()
        self._waiting.close()

    def cursors(self) -> Cursors:
        """The cursors of the last publisher. Unreadable values are ignored: events may be sent twice, but a publisher
        that cannot begin would send none. Raises NodeUnavailable if their part of a cluster is away."""
        (reply,) = self._redis.call(("HGETALL", self._cursor_key))
        fields, stored = pairs(reply), self._by_camera(reply)
        found = {camera: cursor for camera, text in stored.items() if (cursor := parse_cursor(text))}
        if any(mark.at[0] > self._stamps.latest(camera) for camera, (mark, _) in found.items()):
            self.written()
        found = {camera: cursor for camera, cursor in found.items() if cursor[0].at[0] <= self._stamps.latest(camera)}
        return Cursors(
            {camera: mark for camera, (mark, _) in found.items()},
            frozenset(serial for _, serial in found.values()),
            serials(fields),
            all(field.startswith(SERIAL_FIELD.encode()) for field in fields),
        )

    def save(self, cursors: Mapping[str, Mark], serial: str = "") -> bool:
        """Write the cursors of some cameras in one step, with the ``serial`` of this save if it has one. False if
        their part of a cluster is away: they must be saved later."""
        fields = [(camera, format_cursor(mark, serial)) for camera, mark in cursors.items()]
        if serial:
            fields.append((self._serial_field, serial))
        try:
            self._redis.call(("HSET", self._cursor_key, *(part for field in fields for part in field)))
        except NodeUnavailable:
            return False
        return True

    def read(self, after: Mapping[str, Id], count: int) -> list[CameraRead]:
        """Read up to ``count`` entries of each camera behind the ids in ``after``, without waiting. Cameras whose part
        of a cluster is away are left out."""
        self._stamps.see(after)
        # A node of a cluster refuses an XREAD of streams in several slots.
        alone = after.keys() if self._is_cluster else self._foreign.names
        sound = [camera for camera in after if camera not in alone]
        commands = [self._reading(sound, after, count)] if sound else []
        commands += [self._reading([camera], after, count) for camera in after if camera in alone]
        replies = self._redis.ask(*commands)
        if sound and is_foreign(replies[0]):
            # Ask for each camera separately to find the foreign ones.
            commands = [self._reading([camera], after, count) for camera in after]
            replies = self._redis.ask(*commands)
        found: list[CameraRead] = []
        floor = latest_floor()
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, NodeAway):
                continue
            if len(command) == _ONE_STREAM:
                self._foreign.notice(self._streams[command[4]], command[4].decode(), reply)
            if not is_foreign(reply):
                parsed = (self._stamps.parse(self._streams[stream], entries, floor) for stream, entries in reply or ())
                found += [read for read in parsed if read]
        return found

    @property
    def reading(self) -> bool:
        """True from ``begin_read`` until ``end_read`` has returned its result."""
        return self._waiting.pending

    @property
    def read_waited(self) -> bool:
        """True if Redis had nothing when the last read began, and answered as soon as it had."""
        return self._waiting.waited

    def begin_read(self, after: Mapping[str, Id], count: int, wait_seconds: float) -> None:
        """Ask for up to ``count`` entries of each camera behind the ids in ``after``. Redis answers when there is any,
        or after ``wait_seconds``. Cameras that are passed over are left out."""
        if self._foreign.names:
            after = {camera: at for camera, at in after.items() if camera not in self._foreign.names}
        self._stamps.see(after)
        self._asked = after
        self._asked_streams = {self._keys[camera]: camera for camera in after}
        if after:
            self._waiting.ask(dict(zip(self._asked_streams, after.values(), strict=True)), count, wait_seconds)

    def wait(self, seconds: float) -> None:
        """Sleep until the read under way has an answer, at most ``seconds``."""
        if self.reading:
            self._waiting.wait(seconds)
        else:
            time.sleep(seconds)

    def end_read(self, count: int) -> list[CameraRead] | None:
        """The result of the read under way; None if there is no answer yet. ``count`` is that of the read."""
        if not self.reading or (reply := self._waiting.take()) is NOT_YET:
            return None
        if isinstance(reply, ResponseError):
            if is_foreign(reply):
                return self.read({camera: at for camera, at in self._asked.items() if camera in self._keys}, count)
            self._waiting.close()
            cause = Cause.BUSY if unblocked(reply) else Cause.JOURNALS_FORBIDDEN
            raise RedisUnavailable(f"Redis at {self._session.address} refuses to be read: {reply}", cause=cause)
        streams = self._asked_streams
        floor = latest_floor()
        try:
            found = [
                read for stream, entries in reply or () if (read := self._stamps.parse(streams[stream], entries, floor))
            ]
        except (WireError, *BAD_REPLIES) as error:
            self._waiting.close()
            raise RedisUnavailable(f"Redis at {self._session.address} sent no valid XREAD reply: {error}") from None
        self.met_ahead = len(found) < len(reply or ())
        return found

    @property
    def unread(self) -> frozenset[str]:
        """Cameras of which the last ``end_read`` knows nothing, because their part of a cluster is away."""
        return frozenset(self._asked_streams[stream] for stream in self._waiting.unread)

    def overview(self) -> Overview:
        """States, marks and last entries; each mark is read before the journal that it describes. What is on a part of
        a cluster that is away is left out, and such cameras are ``unseen``."""
        hashes = [*self._states_keys, self._written_key]
        asked: list[tuple[Any, ...]] = [("HGETALL", key) for key in hashes]
        # One server answers in the order of the questions. Nodes of a cluster answer side by side.
        replies = self._redis.ask(*asked) if self._is_cluster else []
        lasts_asked = (
            ("XREVRANGE", key, self._stamps.latest(camera), "-", "COUNT", 1) for camera, key in self._keys.items()
        )
        replies += self._redis.ask(*([] if self._is_cluster else asked), *lasts_asked)
        for key, reply in zip(hashes, replies, strict=False):
            self._foreign.notice(key, key, reply)
        *states, written = replies[: len(hashes)]
        lasts = replies[len(hashes) :]
        for (camera, stream), reply in zip(list(self._keys.items()), lasts, strict=True):
            self._foreign.notice(camera, stream.decode(), reply)
        self._unseen = {camera for camera, reply in zip(self._keys, lasts, strict=True) if isinstance(reply, NodeAway)}
        return Overview(
            {} if not states or says_nothing(states[0]) else self._by_camera(states[0]),
            {} if says_nothing(written) else self._marks(written),
            {
                camera: newest(reply)
                for camera, reply in zip(self._keys, lasts, strict=True)
                if reply and not says_nothing(reply)
            },
        )

    def states(self) -> dict[str, bytes]:
        """The states that the writer wrote, by camera; none if their part of a cluster is away."""
        (reply,) = self._redis.ask(*(("HGETALL", key) for key in self._states_keys))
        return {} if says_nothing(reply) else self._by_camera(reply)

    def before(self, camera: str, at: Id, count: int) -> list[JournalEntry]:
        """Up to ``count`` entries of a camera before the id ``at``, newest first, as far as they parse. Raises
        NodeUnavailable if their part of a cluster is away."""
        (reply,) = self._redis.there(("XREVRANGE", self._keys[camera], f"({entry_id(*at)}", "-", "COUNT", count))
        entries: list[JournalEntry] = []
        with contextlib.suppress(WireError):
            for identifier, fields in [] if is_foreign(reply) else reply:
                entries.append(parse_entry(identifier, fields))
        return entries

    def written(self) -> dict[str, Mark]:
        """The writer's marks, by camera. Raises NodeUnavailable if their part of a cluster is away."""
        (reply,) = self._redis.there(("HGETALL", self._written_key))
        return {} if is_foreign(reply) else self._marks(reply)

    def alive(self, frames: Iterable[tuple[str, JournalEntry]]) -> list[bool]:
        """For each frame, whether Redis still has it. One whose part of a cluster is away counts as there."""
        commands = [
            ("EXISTS", self._frames[camera] + keys.frame_key_suffix(entry.unix_nano, entry.sequence))
            for camera, entry in frames
        ]
        if not commands:
            return []
        replies = self._redis.ask(*commands)
        sound = [1 if isinstance(reply, NodeAway) else reply for reply in replies]
        return [bool(reply) for reply in self._redis.sound(commands, sound)]

    def _reading(self, cameras: Iterable[str], after: Mapping[str, Id], count: int) -> tuple[Any, ...]:
        asked = list(cameras)
        ids = (entry_id(*after[camera]) for camera in asked)
        return ("XREAD", "COUNT", count, "STREAMS", *(self._keys[camera] for camera in asked), *ids)

    def _by_camera(self, reply: list[bytes]) -> dict[str, bytes]:
        stored = pairs(reply)
        return {camera: stored[camera.encode()] for camera in self._keys if camera.encode() in stored}

    def _marks(self, reply: list[bytes]) -> dict[str, Mark]:
        marks = ((camera, parse_mark(text)) for camera, text in self._by_camera(reply).items())
        found = {camera: mark for camera, mark in marks if mark}
        self._stamps.see({camera: mark.at for camera, mark in found.items()})
        return found
