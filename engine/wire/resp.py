"""Redis commands as byte strings, framed around payloads that stay where they are.

RESP2 arrays of bulk strings (https://redis.io/docs/latest/develop/reference/protocol-spec/). A frame is two commands,
``SET`` and ``XADD``; the payload stands between the bytes of ``before`` and ``after`` and is never copied here.
"""

from __future__ import annotations

from engine.wire.journal import ENCODINGS
from engine.wire.keys import UNIX_NANO_DIGITS, frame_key_prefix, journal_key

#: Digits that a key ends with: unix_nano, colon, five digits of sequence.
_KEY_TAIL_BYTES = UNIX_NANO_DIGITS + 1 + 5


def command(*arguments: bytes) -> bytes:
    """One command: ``*N`` and N bulk strings."""
    return b"*%d\r\n" % len(arguments) + b"".join(map(bulk, arguments))


def bulk(value: bytes) -> bytes:
    """``$length``, the value, and the line end."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


MULTI = command(b"MULTI")
EXEC = command(b"EXEC")


class FrameFraming:
    """The commands that store one camera's frames; what never changes between frames is framed once.

    ``ttl_ms`` is the frames' lifetime in milliseconds. Sizes in bytes, width and height in pixels.
    """

    #: Replies that one frame brings: SET's and XADD's.
    replies_per_frame = 2

    def __init__(self, vhost: str, prefix: str, camera: str, ttl_ms: int) -> None:
        key = frame_key_prefix(vhost, prefix, camera).encode()
        journal = journal_key(vhost, prefix, camera).encode()
        ttl = b"%d" % ttl_ms
        self._set = b"*5\r\n$3\r\nSET\r\n$%d\r\n" % (len(key) + _KEY_TAIL_BYTES) + _literal(key) + b"%d:%05d\r\n$%d\r\n"
        self._xadd = (
            b"\r\n" + _literal(bulk(b"PX") + bulk(ttl))
            + b"*15\r\n" + _literal(bulk(b"XADD") + bulk(journal))
            + b"$%d\r\n%b\r\n$1\r\ns\r\n$%d\r\n%b\r\n%b$%d\r\n%b\r\n"
        )  # fmt: skip
        #: The end of the last frame's entry, which the next one's is too unless the picture changes its shape.
        self._shape = (-1, -1, -1, -1)
        self._shape_fields = b""
        self._key = key
        #: The name of the camera's journal.
        self.journal = journal.decode()
        self._journal = journal
        self._expire = command(b"PEXPIRE", journal, ttl)
        self._encodings = tuple(bulk(name.encode()) for name in ENCODINGS)

    def before(self, unix_nano: int, sequence: int, size: int) -> bytes:
        """``SET key`` up to the payload of ``size`` bytes."""
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
    ) -> bytes:
        """The rest of SET behind the payload, and the frame's journal entry, the journal's ``number``-th."""
        shape = (width, height, encoding, keyframe)
        if shape != self._shape:
            self._shape = shape
            self._shape_fields = (
                bulk(b"w") + bulk(b"%d" % width) + bulk(b"h") + bulk(b"%d" % height)
                + bulk(b"e") + self._encodings[encoding] + bulk(b"k") + bulk(b"%d" % keyframe) + bulk(b"n")
            )  # fmt: skip
        identifier, length, entry = b"%d-%d" % (unix_nano, sequence), b"%d" % size, b"%d" % number
        return self._xadd % (
            len(identifier), identifier, len(length), length, self._shape_fields, len(entry), entry,
        )  # fmt: skip

    def keep(self) -> bytes:
        """Lets the journal live as long as the frame that was just stored. One reply."""
        return self._expire

    def trim(self, oldest_unix_nano: int) -> bytes:
        """Drops journal entries older than ``oldest_unix_nano``, a block of them at a time. One reply."""
        return command(b"XTRIM", self._journal, b"MINID", b"~", b"%d" % oldest_unix_nano)

    def lookup(self, unix_nano: int, sequence: int) -> bytes:
        """Asks for one journal entry by id. One reply: an empty array where it does not stand."""
        identifier = b"%d-%d" % (unix_nano, sequence)
        return command(b"XRANGE", self._journal, identifier, identifier)

    def discard(self, unix_nano: int, sequence: int) -> bytes:
        """Takes a frame away again; a writer's user may let keys expire and not delete them. One reply."""
        return command(b"PEXPIRE", self._key + b"%d:%05d" % (unix_nano, sequence), b"0")

    def newest(self) -> bytes:
        """Asks for the journal's last entry. One reply: an empty array where there is none."""
        return command(b"XREVRANGE", self._journal, b"+", b"-", b"COUNT", b"1")

    def describe(self) -> bytes:
        """Asks what the journal spans. One reply, for ``parse_span``; an error where there is no journal."""
        return command(b"XINFO", b"STREAM", self._journal)


def _literal(text: bytes) -> bytes:
    """Text that %-formatting leaves as it is."""
    return text.replace(b"%", b"%%")
