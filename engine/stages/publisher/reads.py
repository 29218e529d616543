"""What the publisher reads from Redis, and how replies become it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from engine.errors import WireError
from engine.stages.publisher.account import Id
from engine.wire.journal import JournalEntry, parse_entry, parse_entry_id
from engine.wire.marks import Mark

#: Begins the fields of a cursor hash that have the serial of a publisher's last save, by the publisher's number. With
#: another number of publishers, a camera's own field may be overwritten before the publisher that saved it reads it. No
#: camera has such a name: site files contain no zero bytes.
SERIAL_FIELD = "\0"
#: Digits of a publisher's number.
_PUBLISHER_DIGITS_MAX = 2


class CameraRead(NamedTuple):
    """The result of one read of a camera: entries in order, the id of the last, and how many did not parse."""

    camera: str
    entries: list[JournalEntry]
    last: Id
    unreadable: int


class Newest(NamedTuple):
    """The last entry of a journal, and its number; 0 if it has none."""

    at: Id
    number: int


class Overview(NamedTuple):
    """By camera: the state and the mark that the writer wrote, and the journal's last entry if it has any."""

    states: dict[str, bytes]
    written: dict[str, Mark]
    newest: dict[str, Newest]


class Cursors(NamedTuple):
    """The cursor of each camera that has one, and the serials of the saves that moved them.

    ``saved`` has the last serial of each publisher, by its number. ``lost`` is True if Redis has no cursor of any
    camera.
    """

    marks: dict[str, Mark]
    serials: frozenset[bytes]
    saved: Mapping[int, bytes] = MappingProxyType({})
    lost: bool = False


def within(identifier: bytes, latest: int) -> bool:
    """True for an entry id whose time is at most ``latest``."""
    try:
        return parse_entry_id(identifier)[0] <= latest
    except WireError:
        return False


def newest(reply: list[list[Any]]) -> Newest:
    """The entry of an XREVRANGE reply that has one."""
    identifier, fields = reply[0]
    try:
        return Newest(parse_entry_id(identifier), parse_entry(identifier, fields).number)
    except WireError:
        return Newest(parse_entry_id(identifier), 0)


def is_foreign(reply: object) -> bool:
    """True for the error of a key of another type."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def unblocked(reply: object) -> bool:
    """True for the error of a read that waited at a master which has become a replica."""
    return isinstance(reply, ResponseError) and str(reply).startswith("UNBLOCKED")


def pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    """The fields of an HGETALL reply."""
    return dict(zip(flat[0::2], flat[1::2], strict=True))


def serials(fields: Mapping[bytes, bytes]) -> dict[int, bytes]:
    """The serial of each publisher's last save, by its number."""
    found = {}
    for field, serial in fields.items():
        number = field.removeprefix(SERIAL_FIELD.encode())
        if number != field and number.isdigit() and len(number) <= _PUBLISHER_DIGITS_MAX:
            found[int(number)] = serial
    return found
