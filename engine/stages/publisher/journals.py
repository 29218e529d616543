"""The publisher's view of Redis: entries not yet announced, cursors, the writer's marks, and the cameras' states.

A bad value under one camera's name affects only that camera. If its journal is no stream, the camera is passed over and
this is logged. Every overview asks for it again, until its journal is a stream. An entry so far ahead of the clock that
no camera wrote it is ignored: once read, it would hide all entries that are written after its removal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from redis.exceptions import ResponseError

from engine.errors import Cause, RedisUnavailable, WireError
from engine.servers.overrides.redis import NodeAway
from engine.servers.redis.errors import BAD_REPLIES
from engine.servers.redis.session import Session
from engine.stages.capture.clock import AHEAD_NANO_MAX, latest_floor
from engine.stages.publisher.account import Id
from engine.stages.publisher.blocking_read import NOT_YET, BlockingRead
from engine.stages.publisher.cluster_calls import ClusterCalls, NodeUnavailable
from engine.stages.publisher.polling_read import PollingRead
from engine.stages.publisher.reads import CameraRead, Cursors, Overview, is_foreign, newest, pairs, unblocked, within
from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_id, parse_entry, parse_entry_id
from engine.wire.marks import Mark, format_cursor, parse_cursor, parse_mark
from engine.wire.redis_address import RedisAddress
from engine.wire.replies import foreign_key

#: Begins the fields of a cursor hash that have the serial of a publisher's last save, by the publisher's number. With
#: another number of publishers, a camera's own field may be overwritten before the publisher that saved it reads it. No
#: camera has such a name: site files contain no zero bytes.
_SERIAL_FIELD = "\0"


class OnForeign(Protocol):
    """Called for a camera that is passed over, with the reason; for one that is read again, with an empty error."""

    def __call__(self, camera: str, error: str) -> None:
        """Report it."""


def _nobody(camera: str, error: str) -> None:
    """Report nothing; for callers that ask once."""


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
        on_foreign: OnForeign = _nobody,
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
        self._is_cluster = bool(address.cluster)
        #: The positions of the read under way, and its cameras by stream.
        self._asked: Mapping[str, Id] = {}
        self._asked_streams: dict[bytes, str] = {}
        #: True if the last read met entries too far ahead. The next one would meet them at once.
        self.met_ahead = False
        self._serial_field = f"{_SERIAL_FIELD}{publisher}"
        self._vhost, self._prefix = vhost, prefix
        self._on_foreign = on_foreign
        self._journal_key = keys.video_journal_key if video else keys.journal_key
        self._frame_key_prefix = keys.video_key_prefix if video else keys.frame_key_prefix
        self._streams: dict[bytes, str] = {}
        self._keys: dict[str, bytes] = {}
        self._frames: dict[str, str] = {}
        self._cursor_key = (keys.video_cursor_key if video else keys.cursor_key)(vhost, prefix)
        self._written_key = (keys.video_written_key if video else keys.written_key)(vhost, prefix)
        #: The hash of the cameras' states, if they are wanted.
        self._states_keys = [] if video else [keys.cameras_key(vhost, prefix)]
        #: Cameras, and keys that belong to no camera, whose key has another type.
        self._foreign: set[str] = set()
        #: Cameras of which the last overview knows nothing, because the nodes of their journals are away.
        self._unseen: set[str] = set()
        #: The latest known stamp of each camera itself; the clock may have been set back since.
        self._known: dict[str, int] = {}
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
        self._foreign.discard(camera)
        self._unseen.discard(camera)
        self._known.pop(camera, None)

    @property
    def foreign(self) -> frozenset[str]:
        """Cameras that are currently passed over."""
        return frozenset(self._foreign & self._keys.keys())

    @property
    def unseen(self) -> frozenset[str]:
        """Cameras of which the last overview knows nothing, because their part of a cluster is away."""
        return frozenset(self._unseen)

    @property
    def away(self) -> RedisUnavailable | None:
        """Why parts of a cluster are away, while others answer; None if all answer."""
        return self._session.away if isinstance(self._session, ClusterCalls) else None

    def close(self) -> None:
        """Drop the connections."""
        self._session.close()
        self._waiting.close()

    def cursors(self) -> Cursors:
        """The cursors of the last publisher. Unreadable values are ignored: events may be sent twice, but a publisher
        that cannot begin would send none. Raises NodeUnavailable if their part of a cluster is away."""
        (reply,) = self._call(("HGETALL", self._cursor_key))
        fields, stored = pairs(reply), self._by_camera(reply)
        found = {camera: cursor for camera, text in stored.items() if (cursor := parse_cursor(text))}
        if any(mark.at[0] > self._latest(camera) for camera, (mark, _) in found.items()):
            self.written()
        found = {camera: cursor for camera, cursor in found.items() if cursor[0].at[0] <= self._latest(camera)}
        return Cursors(
            {camera: mark for camera, (mark, _) in found.items()},
            frozenset(serial for _, serial in found.values()),
            _serials(fields),
            all(field.startswith(_SERIAL_FIELD.encode()) for field in fields),
        )

    def save(self, cursors: Mapping[str, Mark], serial: str = "") -> bool:
        """Write the cursors of some cameras in one step, with the ``serial`` of this save if it has one. False if
        their part of a cluster is away: they must be saved later."""
        fields = [(camera, format_cursor(mark, serial)) for camera, mark in cursors.items()]
        if serial:
            fields.append((self._serial_field, serial))
        try:
            self._call(("HSET", self._cursor_key, *(part for field in fields for part in field)))
        except NodeUnavailable:
            return False
        return True

    def read(self, after: Mapping[str, Id], count: int) -> list[CameraRead]:
        """Read up to ``count`` entries of each camera behind the ids in ``after``, without waiting. Cameras whose part
        of a cluster is away are left out."""
        for camera, (nano, _) in after.items():
            self._known[camera] = max(nano, self._known.get(camera, 0))
        # A node of a cluster refuses an XREAD of streams in several slots.
        alone = after.keys() if self._is_cluster else self._foreign
        sound = [camera for camera in after if camera not in alone]
        commands = [self._reading(sound, after, count)] if sound else []
        commands += [self._reading([camera], after, count) for camera in after if camera in alone]
        replies = self._ask(*commands)
        if sound and is_foreign(replies[0]):
            # Ask for each camera separately to find the foreign ones.
            commands = [self._reading([camera], after, count) for camera in after]
            replies = self._ask(*commands)
        found: list[CameraRead] = []
        floor = latest_floor()
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, NodeAway):
                continue
            if len(command) == _ONE_STREAM:
                self._notice(self._streams[command[4]], command[4].decode(), reply)
            if not is_foreign(reply):
                parsed = (self._parse(self._streams[stream], entries, floor) for stream, entries in reply or ())
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
        if self._foreign:
            after = {camera: at for camera, at in after.items() if camera not in self._foreign}
        for camera, (nano, _) in after.items():
            if nano > self._known.get(camera, 0):
                self._known[camera] = nano
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
            found = [read for stream, entries in reply or () if (read := self._parse(streams[stream], entries, floor))]
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
        replies = self._ask(*asked) if self._is_cluster else []
        lasts_asked = (("XREVRANGE", key, self._latest(camera), "-", "COUNT", 1) for camera, key in self._keys.items())
        replies += self._ask(*([] if self._is_cluster else asked), *lasts_asked)
        for key, reply in zip(hashes, replies, strict=False):
            self._notice(key, key, reply)
        *states, written = replies[: len(hashes)]
        lasts = replies[len(hashes) :]
        for (camera, stream), reply in zip(list(self._keys.items()), lasts, strict=True):
            self._notice(camera, stream.decode(), reply)
        self._unseen = {camera for camera, reply in zip(self._keys, lasts, strict=True) if isinstance(reply, NodeAway)}
        return Overview(
            {} if not states or _nothing(states[0]) else self._by_camera(states[0]),
            {} if _nothing(written) else self._marks(written),
            {
                camera: newest(reply)
                for camera, reply in zip(self._keys, lasts, strict=True)
                if reply and not _nothing(reply)
            },
        )

    def states(self) -> dict[str, bytes]:
        """The states that the writer wrote, by camera; none if their part of a cluster is away."""
        (reply,) = self._ask(*(("HGETALL", key) for key in self._states_keys))
        return {} if _nothing(reply) else self._by_camera(reply)

    def before(self, camera: str, at: Id, count: int) -> list[JournalEntry]:
        """Up to ``count`` entries of a camera before the id ``at``, newest first, as far as they parse. Raises
        NodeUnavailable if their part of a cluster is away."""
        (reply,) = self._there(("XREVRANGE", self._keys[camera], f"({entry_id(*at)}", "-", "COUNT", count))
        entries: list[JournalEntry] = []
        with contextlib.suppress(WireError):
            for identifier, fields in [] if is_foreign(reply) else reply:
                entries.append(parse_entry(identifier, fields))
        return entries

    def written(self) -> dict[str, Mark]:
        """The writer's marks, by camera. Raises NodeUnavailable if their part of a cluster is away."""
        (reply,) = self._there(("HGETALL", self._written_key))
        return {} if is_foreign(reply) else self._marks(reply)

    def alive(self, frames: Iterable[tuple[str, JournalEntry]]) -> list[bool]:
        """For each frame, whether Redis still has it. One whose part of a cluster is away counts as there."""
        commands = [
            ("EXISTS", self._frames[camera] + keys.frame_key_suffix(entry.unix_nano, entry.sequence))
            for camera, entry in frames
        ]
        if not commands:
            return []
        replies = self._ask(*commands)
        sound = [1 if isinstance(reply, NodeAway) else reply for reply in replies]
        return [bool(reply) for reply in self._sound(commands, sound)]

    def _reading(self, cameras: Iterable[str], after: Mapping[str, Id], count: int) -> tuple[Any, ...]:
        asked = list(cameras)
        ids = (entry_id(*after[camera]) for camera in asked)
        return ("XREAD", "COUNT", count, "STREAMS", *(self._keys[camera] for camera in asked), *ids)

    def _latest(self, camera: str) -> int:
        """The latest stamp that an entry of this camera may have."""
        return max(latest_floor(), self._known.get(camera, 0) + AHEAD_NANO_MAX)

    def _parse(self, camera: str, found: list[list[Any]], floor: int) -> CameraRead | None:
        """The entries of one stream's reply; None if there are none but such that are too far ahead. No stamp up to
        ``floor`` is."""
        entries: list[JournalEntry] = []
        for identifier, fields in found:
            try:
                entries.append(parse_entry(identifier, fields))
            except WireError:
                continue
        unreadable = len(found) - len(entries)
        last = parse_entry_id(found[-1][0]) if unreadable else (entries[-1].unix_nano, entries[-1].sequence)
        if last[0] > floor and last[0] > (latest := self._latest(camera)):
            while found and not within(found[-1][0], latest):
                found.pop()
            return self._parse(camera, found, latest) if found else None
        return CameraRead(camera, entries, last, unreadable)

    def _by_camera(self, reply: list[bytes]) -> dict[str, bytes]:
        stored = pairs(reply)
        return {camera: stored[camera.encode()] for camera in self._keys if camera.encode() in stored}

    def _marks(self, reply: list[bytes]) -> dict[str, Mark]:
        marks = ((camera, parse_mark(text)) for camera, text in self._by_camera(reply).items())
        found = {camera: mark for camera, mark in marks if mark}
        for camera, mark in found.items():
            self._known[camera] = max(mark.at[0], self._known.get(camera, 0))
        return found

    def _notice(self, name: str, key: str, reply: object) -> None:
        """Report once that another type is in a stream's or hash's place, and once that it is gone."""
        foreign = is_foreign(reply)
        if foreign == (name in self._foreign) or isinstance(reply, NodeAway):
            return
        if not foreign:
            self._foreign.discard(name)
            self._on_foreign(name, "")
            return
        (kind,) = self._ask(("TYPE", key), tolerant=True)
        self._foreign.add(name)
        self._on_foreign(name, foreign_key(key, kind.decode() if isinstance(kind, bytes) else ""))

    def _call(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Replies without errors. Raises RedisUnavailable for the first error."""
        return self._sound(commands, self._there(*commands))

    def _sound(self, commands: Sequence[tuple[Any, ...]], replies: list[Any]) -> list[Any]:
        """The replies. Raises RedisUnavailable for the first error."""
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ResponseError):
                raise RedisUnavailable(f"Redis at {self._session.address} refuses {command[0]} {command[1]}: {reply}")
        return replies

    def _there(self, *commands: tuple[Any, ...]) -> list[Any]:
        """As ``_ask``. Raises NodeUnavailable in place of a NodeAway."""
        replies = self._ask(*commands)
        if gone := next((reply for reply in replies if isinstance(reply, NodeAway)), None):
            raise NodeUnavailable(str(gone), cause=Cause.REDIS_AWAY, subject=f"Redis at {self._session.address}")
        return replies

    def _ask(self, *commands: tuple[Any, ...], tolerant: bool = False) -> list[Any]:
        """Replies. A WRONGTYPE error is returned, not raised, and so is NodeAway; with ``tolerant`` any error is."""
        replies = self._session.try_call(*commands)
        for reply in replies:
            if isinstance(reply, ResponseError) and not (tolerant or _nothing(reply)):
                raise RedisUnavailable(
                    f"Redis at {self._session.address} refuses to be read: {reply}", cause=Cause.JOURNALS_FORBIDDEN
                )
        return replies


def _serials(fields: Mapping[bytes, bytes]) -> dict[int, bytes]:
    """The serial of each publisher's last save, by its number."""
    found = {}
    for field, serial in fields.items():
        number = field.removeprefix(_SERIAL_FIELD.encode())
        if number != field and number.isdigit() and len(number) <= _PUBLISHER_DIGITS_MAX:
            found[int(number)] = serial
    return found


#: Digits of a publisher's number.
_PUBLISHER_DIGITS_MAX = 2
#: Words of an XREAD with a count and one stream.
_ONE_STREAM = 6


def _nothing(reply: object) -> bool:
    """True for an error that leaves the other replies valid: a key of another type, or a node that is away."""
    return is_foreign(reply) or isinstance(reply, NodeAway)
