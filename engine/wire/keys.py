"""Names in Redis. They are built and parsed only here.

A frame's key is ``{vhost}:{prefix}:{camera}:{unix_nano}:{sequence}``. In any part, ``%``, ``:``, whitespace, control
characters and the glob characters ``* ? [ ] \\`` are percent-encoded as UTF-8. So ``parse(build(x)) == x`` for every
name, and a pattern such as ``{vhost}:{prefix}:*`` matches frames only. The engine's own keys begin with ``engine:``; no
vhost may have that name.

Video has keys of its own: ``engine:{vhost}:video:{prefix}/{camera}:{unix_nano}:{sequence}``. There, ``/`` is encoded in
prefix and camera, too. So no pattern for frames matches them.

Under a ``TaggedPrefix``, the camera's part of these keys, and of those of its journals, stands in braces:
``default:frames:{cam1}:…``. Redis Cluster hashes only the text in the first braces of a key, its hash tag. So all of
these keys of a camera lie in one slot, and one transaction may change them together. The vhost, the prefix and the
camera have no braces then.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
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


class TaggedPrefix(str):
    """A prefix whose keys have hash tags. It equals the same text without them, because that is its name; only the
    functions here see the difference, so it is passed on wherever a prefix is."""

    __slots__ = ()


def prefix_of(name: str, *, tagged: bool) -> str:
    """The prefix ``name``, for keys with hash tags or without."""
    return TaggedPrefix(name) if tagged else str(name)


def is_tagged(prefix: str) -> bool:
    """True if the keys under ``prefix`` have hash tags."""
    return isinstance(prefix, TaggedPrefix)


class FrameKey(NamedTuple):
    """The parts of a frame's key, decoded; ``unix_nano`` in nanoseconds UTC, ``sequence`` 1..99999. The key has a hash
    tag if ``prefix`` is a TaggedPrefix."""

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


def check_names(*names: str, tagged: bool = True) -> None:
    """Raises WireError for a name that no key can hold; ``tagged``: that no key with a hash tag can hold."""
    for name in names:
        encode_part(name)
        if tagged and ("{" in name or "}" in name):
            raise WireError(f"{name!r} has a brace; names have none where keys have hash tags (redis.key_tags)")


def _camera_part(vhost: str, prefix: str, camera: str, encode: Callable[[str], str] = encode_part) -> str:
    """The camera's part of a key, in braces if keys under ``prefix`` have hash tags. Raises WireError."""
    if not is_tagged(prefix):
        return encode(camera)
    check_names(vhost, prefix, camera)
    return f"{{{encode(camera)}}}"


def frame_key_prefix(vhost: str, prefix: str, camera: str) -> str:
    """``{vhost}:{prefix}:{camera}:``, the constant part of a camera's keys."""
    return f"{encode_part(vhost)}:{encode_part(prefix)}:{_camera_part(vhost, prefix, camera)}:"


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


def parse_frame_key(text: str | bytes, *, tagged: bool = False) -> FrameKey:
    """Exact inverse of build_frame_key, for keys with hash tags if ``tagged``. Raises WireError naming the part that is
    wrong."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise WireError(f"key {text!r} is not UTF-8") from None
    parts = text.split(":")
    if len(parts) != 5:
        raise WireError(f"key {text!r} has {len(parts)} parts, not vhost:prefix:camera:unix_nano:sequence")
    if tagged:
        if not (parts[2].startswith("{") and parts[2].endswith("}")):
            raise WireError(f"camera {parts[2]!r} of key {text!r} is not in braces, as keys with hash tags have it")
        parts[2] = parts[2][1:-1]
    vhost, prefix, camera = (decode_part(part) for part in parts[:3])
    if tagged:
        check_names(vhost, prefix, camera)
        prefix = TaggedPrefix(prefix)
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
    return f"{ENGINE}:{encode_part(vhost)}:video:{_video_name(vhost, prefix, camera)}:"


def build_video_key(key: FrameKey) -> str:
    """The Redis key of an access unit. Raises WireError for a part that no key can hold."""
    return video_key_prefix(key.vhost, key.prefix, key.camera) + frame_key_suffix(key.unix_nano, key.sequence)


def parse_video_key(text: str | bytes, *, tagged: bool = False) -> FrameKey:
    """Exact inverse of build_video_key, for keys with hash tags if ``tagged``. Raises WireError."""
    with contextlib.suppress(UnicodeDecodeError):
        match (text.decode() if isinstance(text, bytes) else text).split(":"):
            case [first, vhost, "video", name, unix_nano, sequence] if first == ENGINE and name.count("/") == 1:
                prefix, camera = (part.replace("%2F", "/") for part in name.split("/"))
                return parse_frame_key(f"{vhost}:{prefix}:{camera}:{unix_nano}:{sequence}", tagged=tagged)
    raise WireError(f"key {text!r} is not engine:vhost:video:prefix/camera:unix_nano:sequence")


def matched_by_frames(prefix: str, camera: str) -> bool:
    """True if the page's pattern ``*:{prefix}:{camera}:*`` could match the key of another camera's access unit: the
    prefix looks like ``prefix/camera`` there, and the camera like a time stamp."""
    return "/" in prefix and bool(_UNIX_NANO.fullmatch(camera))


def _video_part(name: str) -> str:
    return encode_part(name).replace("/", "%2F")


def _video_name(vhost: str, prefix: str, camera: str) -> str:
    return f"{_video_part(prefix)}/{_camera_part(vhost, prefix, camera, _video_part)}"


def video_journal_key(vhost: str, prefix: str, camera: str) -> str:
    """The stream that lists a camera's stored access units."""
    return f"{ENGINE}:{encode_part(vhost)}:journal:{_video_name(vhost, prefix, camera)}"


def journal_key(vhost: str, prefix: str, camera: str) -> str:
    """The stream that lists a camera's stored frames."""
    return f"{ENGINE}:{encode_part(vhost)}:journal:{encode_part(prefix)}:{_camera_part(vhost, prefix, camera)}"


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
    """The key of a camera's lease, which names the site that stores its frames. It has no hash tag. Two sites with the
    same names, one with tags and one without, keep the camera's state and progress in the same hashes. So each of them
    must find the other's lease."""
    return f"{ENGINE}:{encode_part(vhost)}:lease:{encode_part(prefix)}:{encode_part(camera)}"


def site_key(vhost: str, site: str) -> str:
    """The key of a site's entry (``engine/wire/site_entry.py``): the lease of its name under a vhost."""
    return f"{ENGINE}:{encode_part(vhost)}:lease:{encode_part(site)}"


def parse_site_key(text: bytes) -> tuple[str, str]:
    """(vhost, site): exact inverse of site_key. Raises WireError, also for a camera's lease."""
    with contextlib.suppress(UnicodeDecodeError):
        match text.decode().split(":"):
            case [first, vhost, "lease", site] if first == ENGINE:
                return decode_part(vhost), decode_part(site)
    raise WireError(f"key {text!r} is not engine:vhost:lease:site")


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


def draft_key(vhost: str, prefix: str, camera: str, token: str) -> str:
    """``rebuild_key`` for the journal of one camera: in that journal's slot if keys have hash tags."""
    return rebuild_key(vhost, token + (_camera_part(vhost, prefix, camera) if is_tagged(prefix) else ""))


def rebuilt_key(vhost: str, prefix: str, camera: str) -> str:
    """Says which rebuild last replaced a camera's journal, so that two rebuilds notice each other."""
    return f"{ENGINE}:{encode_part(vhost)}:rebuild:{encode_part(prefix)}:{_camera_part(vhost, prefix, camera)}"


def video_rebuilt_key(vhost: str, prefix: str, camera: str) -> str:
    """``rebuilt_key`` for the journal of a camera's video."""
    return f"{ENGINE}:{encode_part(vhost)}:rebuild:{_video_name(vhost, prefix, camera)}"


def next_sequence(sequence: int) -> int:
    """The number after ``sequence``: 99999 is followed by 1, and 0 (none yet) by 1."""
    return sequence % SEQUENCE_MAX + 1


def sequence_after(sequence: int, count: int) -> int:
    """The number ``count`` steps after ``sequence``; 0 only if no number was ever used."""
    return (sequence + count - 1) % SEQUENCE_MAX + 1 if sequence + count else 0
