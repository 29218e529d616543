"""Parses metadata messages for consumers: single events, batches, and those of the Go edition.

The Go edition's events have no ``event_type`` and no ``timestamp_nano``, perhaps no ``sequence``, ``vhost`` or
``encoding``, and the size under either name. Before its version 1.2, ``redis_key`` had another order of parts. Missing
fields are read from the key, so that consumers see one form: ``metadata.FrameEvent``. An event of another type may come
from a later version or another program: it is no error, whatever its fields.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from engine.errors import WireError
from engine.wire.keys import (
    DEFAULT_VHOST,
    UNIX_NANO_DIGITS,
    FrameKey,
    build_frame_key,
    encode_part,
    frame_key_suffix,
    parse_frame_key,
    parse_video_key,
)
from engine.wire.metadata import CameraState, Event, FrameEvent, GopEvent, StatusEvent
from engine.wire.old_keys import parse_old_key
from engine.wire.rfc3339 import parse_rfc3339, rfc3339

#: The prefix of keys that are rebuilt because their event has none: the default of all editions.
_PREFIX = "frames"
#: The largest number in any field but a timestamp: a journal entry's numbers have at most 18 digits.
_NUMBER_MAX = 10**18 - 1
#: The Go edition's keys, whose names are not encoded; a vhost or prefix with a colon is ambiguous.
_PLAIN_KEY = re.compile(
    rf"(?P<vhost>[^:]+):(?P<prefix>[^:]+):(?P<camera>.+):(?P<nano>[0-9]{{{UNIX_NANO_DIGITS}}}):(?P<sequence>[0-9]{{5}})",
    re.DOTALL,
)
_SEQUENCE = re.compile(r"[0-9]{1,5}")

_Number = Annotated[int, Meta(ge=0, le=_NUMBER_MAX)]


class _Message(msgspec.Struct, gc=False):
    """An event as received; missing fields have empty defaults. Unknown fields are ignored."""

    event_type: str = "frame"
    camera_id: str = ""
    timestamp: str = ""
    timestamp_nano: Annotated[int, Meta(ge=0)] = 0
    sequence: str = ""
    redis_key: str = ""
    vhost: str = ""
    width: _Number = 0
    height: _Number = 0
    encoding: str = "jpeg"
    size_bytes: _Number = 0
    frame_size_bytes: _Number = 0
    ttl_seconds: _Number = 0
    state: CameraState | None = None
    consecutive_failures: _Number = 0
    last_error: str = ""
    last_timestamp: str = ""
    first_key: str = ""
    last_key: str = ""
    frames: _Number = 0
    duration_seconds: Annotated[float, Meta(ge=0)] = 0.0
    camera_time_nano: Annotated[int, Meta(ge=0)] | None = None


class OtherEvent(msgspec.Struct, frozen=True, gc=False):
    """An event of a type that is not known here."""

    event_type: str


_KNOWN = ("frame", "camera_status", "video_gop")
_decoder: msgspec.json.Decoder[_Message | list[_Message]] = msgspec.json.Decoder(_Message | list[_Message])


def parse_message(body: bytes) -> list[Event | OtherEvent]:
    """The events of one message, in their order: one for an object, all elements of an array.

    Raises WireError naming the field that is wrong; one bad element makes the whole array invalid.
    """
    try:
        decoded = _decoder.decode(body)
    except msgspec.ValidationError as error:
        return _with_others(body, error)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise WireError(f"metadata message: {error}") from None
    if isinstance(decoded, _Message):
        return [_event(decoded, "metadata message")]
    return [_event(message, f"metadata message, element {index}") for index, message in enumerate(decoded)]


def _with_others(body: bytes, error: msgspec.ValidationError) -> list[Event | OtherEvent]:
    """The events of a message that holds others, whose fields are not ours. Raises WireError with ``error`` if it holds
    none."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        document = None
    elements = document if isinstance(document, list) else [document]
    if not any(map(_is_other, elements)):
        raise WireError(f"metadata message: {error}") from None
    found: list[Event | OtherEvent] = []
    for index, element in enumerate(elements):
        where = f"metadata message, element {index}"
        if _is_other(element):
            found.append(OtherEvent(element["event_type"]))
            continue
        try:
            found.append(_event(msgspec.convert(element, _Message), where))
        except msgspec.ValidationError as wrong:
            raise WireError(f"{where}: {wrong}") from None
    return found


def _is_other(element: Any) -> bool:
    kind = element.get("event_type") if isinstance(element, dict) else None
    return isinstance(kind, str) and kind not in _KNOWN


def key_of(redis_key: str, camera: str = "") -> FrameKey:
    """The parts of a frame's key of any edition. Raises WireError naming ``redis_key``.

    A key that has ``camera`` in braces has a hash tag. Without the camera's name, the braces count as part of it.
    """
    try:
        if camera and f":{{{encode_part(camera)}}}:" in redis_key:
            return parse_frame_key(redis_key, tagged=True)
        return parse_frame_key(redis_key)
    except WireError as error:
        refusal = error
    prefix = redis_key.partition(":")[0]
    try:
        if prefix:
            return parse_old_key(redis_key, prefix)
    except WireError:
        pass
    match = _PLAIN_KEY.fullmatch(redis_key)
    if not match:
        raise WireError(f"redis_key: {refusal}") from None
    unix_nano, sequence = int(match["nano"]), int(match["sequence"])
    try:
        frame_key_suffix(unix_nano, sequence)
    except WireError as error:
        raise WireError(f"redis_key {redis_key!r}: {error}") from None
    return FrameKey(match["vhost"], match["prefix"], match["camera"], unix_nano, sequence)


def _event(message: _Message, where: str) -> Event | OtherEvent:
    if message.event_type not in _KNOWN:
        return OtherEvent(message.event_type)
    try:
        if not message.camera_id:
            raise WireError("camera_id is missing or empty")
        if message.event_type == "frame":
            return _frame_event(message)
        return _status_event(message) if message.event_type == "camera_status" else _gop_event(message)
    except WireError as error:
        raise WireError(f"{where}: {error}") from None


def _frame_event(message: _Message) -> FrameEvent:
    redis_key = message.redis_key or _rebuilt_key(message)
    key = key_of(redis_key, message.camera_id)
    unix_nano = message.timestamp_nano or key.unix_nano
    sequence = _sequence(message.sequence) if message.sequence else key.sequence
    try:
        frame_key_suffix(unix_nano, sequence)
    except WireError as error:
        raise WireError(f"timestamp_nano or sequence: {error}") from None
    return FrameEvent(
        message.camera_id,
        _timestamp(message, unix_nano),
        unix_nano,
        f"{sequence:05d}",
        redis_key,
        key.vhost if message.vhost in ("", "/") else message.vhost,
        message.width,
        message.height,
        message.encoding,
        message.size_bytes or message.frame_size_bytes,
        message.frame_size_bytes or message.size_bytes,
        message.ttl_seconds,
        message.camera_time_nano,
    )


def _status_event(message: _Message) -> StatusEvent:
    if message.state is None:
        raise WireError("state is missing")
    if not message.timestamp and not message.timestamp_nano:
        raise WireError("timestamp and timestamp_nano are missing")
    unix_nano = message.timestamp_nano or parse_rfc3339(message.timestamp)
    if len(str(unix_nano)) != UNIX_NANO_DIGITS:
        raise WireError(f"timestamp_nano {unix_nano} has not {UNIX_NANO_DIGITS} digits")
    return StatusEvent(
        message.camera_id,
        _timestamp(message, unix_nano),
        unix_nano,
        message.state,
        message.consecutive_failures,
        message.last_error,
    )


def _gop_event(message: _Message) -> GopEvent:
    first, last = (_video_key(name, getattr(message, name)) for name in ("first_key", "last_key"))
    if last[:3] != first[:3] or last.unix_nano < first.unix_nano:
        raise WireError(f"last_key {message.last_key!r} is not behind first_key {message.first_key!r}")
    if message.last_timestamp:
        parse_rfc3339(message.last_timestamp)
    return GopEvent(
        message.camera_id,
        _timestamp(message, first.unix_nano),
        first.unix_nano,
        f"{first.sequence:05d}",
        message.last_timestamp or rfc3339(last.unix_nano),
        last.unix_nano,
        f"{last.sequence:05d}",
        message.first_key,
        message.last_key,
        first.vhost if message.vhost in ("", "/") else message.vhost,
        message.width,
        message.height,
        message.encoding,
        message.frames,
        message.size_bytes,
        message.duration_seconds,
        message.ttl_seconds,
        message.camera_time_nano,
    )


def _video_key(name: str, text: str) -> FrameKey:
    try:
        return parse_video_key(text)
    except WireError as error:
        raise WireError(f"{name}: {error}") from None


def _rebuilt_key(message: _Message) -> str:
    missing = [name for name in ("timestamp_nano", "sequence", "vhost") if not getattr(message, name)]
    if missing:
        raise WireError(f"redis_key is missing, and cannot be rebuilt without {', '.join(missing)}")
    vhost = DEFAULT_VHOST if message.vhost == "/" else message.vhost
    sequence = _sequence(message.sequence)
    try:
        return build_frame_key(FrameKey(vhost, _PREFIX, message.camera_id, message.timestamp_nano, sequence))
    except WireError as error:
        raise WireError(f"redis_key is missing, and cannot be rebuilt: {error}") from None


def _sequence(text: str) -> int:
    if not _SEQUENCE.fullmatch(text):
        raise WireError(f"sequence {text[:40]!r} is not up to five digits")
    return int(text)


def _timestamp(message: _Message, unix_nano: int) -> str:
    """The event's own text if it has one, so that its time zone is kept."""
    if message.timestamp:
        parse_rfc3339(message.timestamp)
        return message.timestamp
    return rfc3339(unix_nano)
