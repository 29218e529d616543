"""Names in Redis. They are built and parsed only here.

A frame's key is ``{vhost}:{prefix}:{camera}:{unix_nano}:{sequence}``. In any part, ``%``, ``:``, whitespace, control
characters and the glob characters ``* ? [ ] \\`` are percent-encoded as UTF-8. So ``parse(build(x)) == x`` for every
name, and a pattern such as ``{vhost}:{prefix}:*`` matches frames only. The engine's own keys begin with ``engine:``; no
vhost may have that name.

Video has keys of its own: ``engine:{vhost}:video:{prefix}/{camera}:{unix_nano}:{sequence}``. There, ``/`` is encoded in
prefix and camera, too. So no pattern for frames matches them.
"""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple
from urllib.parse import unquote

from engine.errors import WireError

#: First part of every key that is not a frame; reserved as a vhost.
ENGINE = "engine"
#: Words that follow the vhost in the engine's own keys. A camera or prefix of that name would let a pattern for
#: frames (``*:{prefix}:{camera}:*``) match an engine key, so both are refused by the configuration.
RESERVED_WORDS = frozenset({"journal", "cursor", "cameras", "rebuild", "lease", "video"})
#: The name in keys of the broker's default vhost, which AMQP names ``/``; a vhost with this name is refused.
DEFAULT_VHOST = "default"
#: Sequence numbers run from 1 to 99999 and then start again at 1: five digits on the wire.
SEQUENCE_MAX = 99_999
#: 19 digits hold every nanosecond from 2001-09-09 to 2286-11-20.
UNIX_NANO_DIGITS = 19

_UNSAFE = re.compile(r"[%:*?\[\]\\\s\x00-\x1f\x7f-\x9f]")
#: Parts that need no encoding, as nearly all.
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
_UNIX_NANO = re.compile(r"[1-9][0-9]{18}")
_SEQUENCE = re.compile(r"[0-9]{5}")


class FrameKey(NamedTuple):
    """The parts of a frame's key, decoded; ``unix_nano`` in nanoseconds UTC, ``sequence`` 1..99999."""

    vhost: str
    prefix: str
    camera: str
    unix_nano: int
    sequence: int


def encode_part(name: str) -> str:
    """Percent-encode the characters that would make ``name`` ambiguous inside a key.

    Raises WireError for an empty name or one that UTF-8 cannot hold (lone surrogates).
    """
    if not name:
        raise WireError("a part of a key is empty")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise WireError(f"{name!r} cannot be part of a key: {error.reason}") from None
    return _UNSAFE.sub(_percent, name)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode())


def decode_part(part: str) -> str:
    """Inverse of encode_part. Raises WireError for anything that encode_part cannot produce."""
    if _PLAIN.fullmatch(part):
        return part
    try:
        name = unquote(part, errors="strict")
        canonical = encode_part(name)
    except (UnicodeDecodeError, WireError):
        canonical = ""
    if not part or canonical != part:
        raise WireError(f"key part {part!r} is not percent-encoded as the engine does")
    return name


def frame_key_prefix(vhost: str, prefix: str, camera: str) -> str:
    """``{vhost}:{prefix}:{camera}:``, the constant part of a camera's keys."""
    return f"{encode_part(vhost)}:{encode_part(prefix)}:{encode_part(camera)}:"


def frame_key_suffix(unix_nano: int, sequence: int) -> str:
    """``{unix_nano}:{sequence}``. Raises WireError for a number that the format cannot hold."""
    check_numbers(unix_nano, sequence)
    return f"{unix_nano}:{sequence:05d}"


def check_numbers(unix_nano: int, sequence: int) -> None:
    """Raises WireError for a number that keys cannot hold."""
    if not 10**18 <= unix_nano < 10**19:
        raise WireError(f"unix_nano {unix_nano} has not {UNIX_NANO_DIGITS} digits")
    if not 1 <= sequence <= SEQUENCE_MAX:
        raise WireError(f"sequence {sequence} is not in 1..{SEQUENCE_MAX}")


def build_frame_key(key: FrameKey) -> str:
    """The Redis key of a frame. Raises WireError for a part that no key can hold."""
    return frame_key_prefix(key.vhost, key.prefix, key.camera) + frame_key_suffix(key.unix_nano, key.sequence)


def parse_frame_key(text: str | bytes) -> FrameKey:
    """Exact inverse of build_frame_key. Raises WireError naming the part that is wrong."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise WireError(f"key {text!r} is not UTF-8") from None
    parts = text.split(":")
    if len(parts) != 5:
        raise WireError(f"key {text!r} has {len(parts)} parts, not vhost:prefix:camera:unix_nano:sequence")
    vhost, prefix, camera = (decode_part(part) for part in parts[:3])
    if not _UNIX_NANO.fullmatch(parts[3]):
        raise WireError(f"unix_nano {parts[3]!r} of key {text!r} is not {UNIX_NANO_DIGITS} digits")
    if not _SEQUENCE.fullmatch(parts[4]) or parts[4] == "00000":
        raise WireError(f"sequence {parts[4]!r} of key {text!r} is not five digits from 00001")
    return FrameKey(vhost, prefix, camera, int(parts[3]), int(parts[4]))


def video_root(vhost: str, prefix: str) -> str:
    """``engine:{vhost}:video:{prefix}/``, with which the keys of all video under a prefix begin."""
    return f"{ENGINE}:{encode_part(vhost)}:video:{_video_part(prefix)}/"


def video_key_prefix(vhost: str, prefix: str, camera: str) -> str:
    """``engine:{vhost}:video:{prefix}/{camera}:``, the constant part of the keys of a camera's access units."""
    return f"{video_root(vhost, prefix)}{_video_part(camera)}:"


def build_video_key(key: FrameKey) -> str:
    """The Redis key of an access unit. Raises WireError for a part that no key can hold."""
    return video_key_prefix(key.vhost, key.prefix, key.camera) + frame_key_suffix(key.unix_nano, key.sequence)


def parse_video_key(text: str | bytes) -> FrameKey:
    """Exact inverse of build_video_key. Raises WireError."""
    with contextlib.suppress(UnicodeDecodeError):
        match (text.decode() if isinstance(text, bytes) else text).split(":"):
            case [first, vhost, "video", name, unix_nano, sequence] if first == ENGINE and name.count("/") == 1:
                prefix, camera = (part.replace("%2F", "/") for part in name.split("/"))
                return parse_frame_key(f"{vhost}:{prefix}:{camera}:{unix_nano}:{sequence}")
    raise WireError(f"key {text!r} is not engine:vhost:video:prefix/camera:unix_nano:sequence")


def matched_by_frames(prefix: str, camera: str) -> bool:
    """True if the page's pattern ``*:{prefix}:{camera}:*`` could match the key of another camera's access unit: the
    prefix looks like ``prefix/camera`` there, and the camera like a time stamp."""
    return "/" in prefix and bool(_UNIX_NANO.fullmatch(camera))


def _video_part(name: str) -> str:
    return encode_part(name).replace("/", "%2F")


def video_journal_key(vhost: str, prefix: str, camera: str) -> str:
    """The stream that lists a camera's stored access units."""
    return f"{ENGINE}:{encode_part(vhost)}:journal:{_video_part(prefix)}/{_video_part(camera)}"


def journal_key(vhost: str, prefix: str, camera: str) -> str:
    """The stream that lists a camera's stored frames."""
    return f"{ENGINE}:{encode_part(vhost)}:journal:{encode_part(prefix)}:{encode_part(camera)}"


def cursor_key(vhost: str, prefix: str) -> str:
    """The hash of camera -> last entry that the broker confirmed, and its number (``engine/wire/marks.py``)."""
    return f"{ENGINE}:{encode_part(vhost)}:cursor:{encode_part(prefix)}"


def cameras_key(vhost: str, prefix: str) -> str:
    """The hash of camera -> state."""
    return f"{ENGINE}:{encode_part(vhost)}:cameras:{encode_part(prefix)}"


def written_key(vhost: str, prefix: str) -> str:
    """The hash of camera -> progress of the writer's numbering (``engine/wire/marks.py``)."""
    return f"{cameras_key(vhost, prefix)}:written"


def video_written_key(vhost: str, prefix: str) -> str:
    """``written_key`` for the entries of video."""
    return f"{cameras_key(vhost, prefix)}:video"


def video_cursor_key(vhost: str, prefix: str) -> str:
    """``cursor_key`` for the entries of video."""
    return f"{cursor_key(vhost, prefix)}:video"


def lease_key(vhost: str, prefix: str, camera: str) -> str:
    """The key of a camera's lease, which says who stores its frames at present."""
    return f"{ENGINE}:{encode_part(vhost)}:lease:{encode_part(prefix)}:{encode_part(camera)}"


def parse_cameras_key(text: bytes) -> tuple[str, str]:
    """(vhost, prefix): exact inverse of cameras_key. Raises WireError."""
    with contextlib.suppress(UnicodeDecodeError):
        match text.decode().split(":"):
            case [first, vhost, "cameras", prefix] if first == ENGINE:
                return decode_part(vhost), decode_part(prefix)
    raise WireError(f"key {text!r} is not engine:vhost:cameras:prefix")


def recovery_key(vhost: str, prefix: str) -> str:
    """The hash of camera -> entry ids that ``edge-video recover`` has forwarded."""
    return f"{cursor_key(vhost, prefix)}:recovery"


def video_recovery_key(vhost: str, prefix: str) -> str:
    """``recovery_key`` for the entries of video."""
    return f"{video_cursor_key(vhost, prefix)}:recovery"


def rebuild_key(vhost: str, token: str) -> str:
    """A journal under reconstruction, until it replaces the old one; ``token`` distinguishes concurrent rebuilds."""
    return f"{ENGINE}:{encode_part(vhost)}:rebuild:{token}"


def rebuilt_key(vhost: str, prefix: str, camera: str) -> str:
    """Says which rebuild last replaced a camera's journal, so that two rebuilds notice each other."""
    return f"{ENGINE}:{encode_part(vhost)}:rebuild:{encode_part(prefix)}:{encode_part(camera)}"


def video_rebuilt_key(vhost: str, prefix: str, camera: str) -> str:
    """``rebuilt_key`` for the journal of a camera's video."""
    return f"{ENGINE}:{encode_part(vhost)}:rebuild:{_video_part(prefix)}/{_video_part(camera)}"


def next_sequence(sequence: int) -> int:
    """The number after ``sequence``: 99999 is followed by 1, and 0 (none yet) by 1."""
    return sequence % SEQUENCE_MAX + 1


def sequence_after(sequence: int, count: int) -> int:
    """The number ``count`` steps after ``sequence``; 0 only if no number was ever used."""
    return (sequence + count - 1) % SEQUENCE_MAX + 1 if sequence + count else 0
