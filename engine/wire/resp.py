"""Redis commands as byte strings, framed around payloads without copying them.

RESP2 arrays of bulk strings (https://redis.io/docs/latest/develop/reference/protocol-spec/). A frame is two commands,
``SET`` and ``XADD``. The payload is sent between the bytes of ``before`` and ``after``.
"""

from __future__ import annotations

from engine.wire.journal import ENCODINGS
from engine.wire.keys import (
    UNIX_NANO_DIGITS,
    frame_key_prefix,
    journal_key,
    video_journal_key,
    video_key_prefix,
)

#: The end of a key: unix_nano, colon, five digits of sequence.
_KEY_TAIL_BYTES = UNIX_NANO_DIGITS + 1 + 5


def command(*arguments: bytes) -> bytes:
    """One command: ``*N``, then N bulk strings."""
    return b"*%d\r\n" % len(arguments) + b"".join(map(bulk, arguments))


def bulk(value: bytes) -> bytes:
    """``$length``, the value, and the line end."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


MULTI = command(b"MULTI")
EXEC = command(b"EXEC")
ASKING = command(b"ASKING")
#: The names of an entry's last fields.
_NUMBER, _CAMERA_TIME = bulk(b"n"), bulk(b"c")


class FrameFraming:
    """The commands that store one camera's frames; parts common to all frames are framed once.

    ``ttl_ms`` is the frames' lifetime in milliseconds. Sizes are in bytes, width and height in pixels.
    """

    #: Replies to one frame: SET's and XADD's.
    replies_per_frame = 2
    _key_prefix = staticmethod(frame_key_prefix)
    _journal_key = staticmethod(journal_key)
    #: Words of XADD: 3, and two for each field of an entry.
    _entry_words = 15

    def __init__(self, vhost: str, prefix: str, camera: str, ttl_ms: int) -> None:
        key = self._key_prefix(vhost, prefix, camera).encode()
        journal = self._journal_key(vhost, prefix, camera).encode()
        ttl = b"%d" % ttl_ms
        self._set = b"*5\r\n$3\r\nSET\r\n$%d\r\n" % (len(key) + _KEY_TAIL_BYTES) + _literal(key) + b"%d:%05d\r\n$%d\r\n"
        #: XADD of an entry without a camera time, and of one with it, before that time.
        self._xadd, self._xadd_timed = (
            b"\r\n" + _literal(bulk(b"PX") + bulk(ttl))
            + b"*%d\r\n" % words + _literal(bulk(b"XADD") + bulk(journal))
            + b"$%d\r\n%b\r\n$1\r\ns\r\n$%d\r\n%b\r\n%b$%d\r\n%b\r\n"
            for words in (self._entry_words, self._entry_words + 2)
        )  # fmt: skip
        #: The shape of the last frame; the next frame's entry ends the same unless its shape differs.
        self._shape = (-1, -1, -1, -1)
        self._shape_fields = b""
        #: The constant beginning of the frames' keys.
        self.key_prefix = key
        #: The bytes between a payload and the next command: the rest of SET.
        self.set_end = b"\r\n" + bulk(b"PX") + bulk(ttl)
        #: The name of the camera's journal.
        self.journal = journal.decode()
        self._journal = journal
        self._expire = command(b"PEXPIRE", journal, ttl)
        self._encodings = tuple(bulk(name.encode()) for name in ENCODINGS)

    def before(self, unix_nano: int, sequence: int, size: int) -> bytes:
        """The bytes before the payload of ``size`` bytes: the start of SET."""
        return self._set % (unix_nano, sequence, size)

    def after(
        self,
        unix_nano: int,
        sequence: int,
        size: int,
        width: int,
        height: int,
        encoding: int,
        keyframe: int,
        number: int = 0,
        offset_us: int = 0,  # noqa: ARG002 - JPEGs are shown when they are captured
        camera_time_nano: int = 0,
    ) -> bytes:
        """The bytes after the payload: the rest of SET, and XADD of the frame's journal entry ``number``.
        ``camera_time_nano`` is 0 if unknown."""
        shape = (width, height, encoding, keyframe)
        if shape != self._shape:
            self._shape, self._shape_fields = shape, self._fields(shape) + _NUMBER
        return self._entry(unix_nano, sequence, size, self._shape_fields, number, camera_time_nano)

    def _entry(
        self, unix_nano: int, sequence: int, size: int, fields: bytes, number: int, camera_time_nano: int
    ) -> bytes:
        """The rest of SET, and XADD of an entry with ``fields`` between its size and its number."""
        identifier, length, entry = b"%d-%d" % (unix_nano, sequence), b"%d" % size, b"%d" % number
        values = (len(identifier), identifier, len(length), length, fields, len(entry), entry)
        if camera_time_nano:
            return self._xadd_timed % values + _CAMERA_TIME + bulk(b"%d" % camera_time_nano)
        return self._xadd % values

    def _fields(self, shape: tuple[int, int, int, int]) -> bytes:
        """The fields of width, height, encoding and key frame."""
        width, height, encoding, keyframe = shape
        return (
            bulk(b"w") + bulk(b"%d" % width) + bulk(b"h") + bulk(b"%d" % height)
            + bulk(b"e") + self._encodings[encoding] + bulk(b"k") + bulk(b"%d" % keyframe)
        )  # fmt: skip

    def keep(self) -> bytes:
        """Extends the journal's life to that of the frame that was just stored. One reply."""
        return self._expire

    def trim(self, oldest_unix_nano: int) -> bytes:
        """Removes journal entries older than ``oldest_unix_nano``, in whole blocks. One reply."""
        return command(b"XTRIM", self._journal, b"MINID", b"~", b"%d" % oldest_unix_nano)

    def lookup(self, unix_nano: int, sequence: int) -> bytes:
        """Asks for one journal entry by id. One reply: an empty array if it does not exist."""
        identifier = b"%d-%d" % (unix_nano, sequence)
        return command(b"XRANGE", self._journal, identifier, identifier)

    def discard(self, unix_nano: int, sequence: int) -> bytes:
        """Removes a frame, by expiry: a writer's user may have no permission to delete keys. One reply."""
        return command(b"PEXPIRE", self.key_prefix + b"%d:%05d" % (unix_nano, sequence), b"0")

    def newest(self) -> bytes:
        """Asks for the journal's last entry. One reply: an empty array if there is none."""
        return command(b"XREVRANGE", self._journal, b"+", b"-", b"COUNT", b"1")

    def newest_before(self, entry: bytes, count: int) -> bytes:
        """Asks for the last entries before ``entry``, an id, or of all for ``+``: at most ``count``. One reply."""
        last = entry if entry == b"+" else b"(" + entry
        return command(b"XREVRANGE", self._journal, last, b"-", b"COUNT", b"%d" % count)

    def exists(self, unix_nano: int, sequence: int) -> bytes:
        """Asks whether a frame is there. One reply: 1 or 0."""
        return command(b"EXISTS", self.key_prefix + b"%d:%05d" % (unix_nano, sequence))

    def strike(self, entry: bytes) -> bytes:
        """Removes a journal entry. One reply."""
        return command(b"XDEL", self._journal, entry)

    def describe(self) -> bytes:
        """Asks for the journal's span. One reply, for ``parse_span``; an error if there is no journal."""
        return command(b"XINFO", b"STREAM", self._journal)


class VideoFraming(FrameFraming):
    """The commands that store one camera's access units. Their entries have one more field, ``p``."""

    _key_prefix = staticmethod(video_key_prefix)
    _journal_key = staticmethod(video_journal_key)
    _entry_words = 17

    def after(
        self,
        unix_nano: int,
        sequence: int,
        size: int,
        width: int,
        height: int,
        encoding: int,
        keyframe: int,
        number: int = 0,
        offset_us: int = 0,
        camera_time_nano: int = 0,
    ) -> bytes:
        """See FrameFraming.after; ``offset_us`` is the presentation time, in microseconds after ``unix_nano``."""
        shape = (width, height, encoding, keyframe)
        if shape != self._shape:
            self._shape, self._shape_fields = shape, self._fields(shape) + bulk(b"p")
        fields = self._shape_fields + bulk(b"%d" % offset_us) + _NUMBER
        return self._entry(unix_nano, sequence, size, fields, number, camera_time_nano)


def _literal(text: bytes) -> bytes:
    """``text`` escaped for %-formatting."""
    return text.replace(b"%", b"%%")
