"""Splits commands into pieces that single nodes of a Redis Cluster answer, and joins their replies.

A node takes several keys in one command only if they share a slot, and keys of frames and journals share none. So a
command with many keys is split by slot, also among the slots of one node. What a caller gets is what one server with
all keys would answer, with two exceptions: a command without a key goes to one master, to each, or to one after
another, as ``split`` says; and an XREAD over several slots does not wait (``wait_ms``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.wire.cluster import ClusterMap, Node, slot_of

Command = tuple[Any, ...]

#: Commands that count keys.
_COUNTED = frozenset(("DEL", "EXISTS", "TOUCH", "UNLINK"))
#: Commands without a key that every master answers.
_EVERYWHERE = frozenset(("DBSIZE", "PING"))
#: Commands without a key that one master answers.
_ANYWHERE = frozenset(
    ("ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "ECHO", "HELLO", "INFO", "LATENCY", "ROLE", "SLOWLOG", "TIME")
)
#: Commands whose key follows a word.
_KEY_SECOND = frozenset(("MEMORY", "OBJECT", "XGROUP", "XINFO"))
#: Commands of a transaction, which belongs to one connection.
_TRANSACTION = frozenset(("DISCARD", "EXEC", "MULTI", "UNWATCH", "WATCH"))


class Piece(NamedTuple):
    """What one node is asked of a command: of its ``place``-th, about a slot, or (``slot`` is None) of a ``node``."""

    place: int
    command: Command
    slot: int | None
    node: Node | None
    #: Which of the command's keys are asked about.
    keys: tuple[int, ...] = ()


def split(place: int, command: Command, known: ClusterMap) -> list[Piece]:
    """The pieces of one command; ``place`` is its place in a round trip.

    DBSIZE and PING go to every master. SCAN goes to one master after another: its cursor names the node. Other commands
    without a key (HELLO, INFO, TIME, CONFIG) go to the first master. Of a command with several keys, those in
    ``_COUNTED``, MGET and XREAD are split, and others go where their first key is. Raises ValueError for the commands
    of a transaction, which belong to one node's connection.
    """
    name = _name(command)
    if name in _TRANSACTION:
        raise ValueError(f"{name} belongs to one node's connection: Session.node_of(key)")
    if name == "MGET" or name in _COUNTED:
        return _by_slot(place, command[1:], lambda keys: (name, *(command[1 + key] for key in keys)))
    if name == "XREAD":
        return _split_read(place, command)
    if name == "SCAN":
        node, cursor = _scanned(command, known)
        return [Piece(place, (name, cursor, *command[2:]), None, node)]
    if name in _EVERYWHERE:
        return [Piece(place, command, None, node) for node in known.masters]
    if name in _ANYWHERE or len(command) < 2:
        return [Piece(place, command, None, known.masters[0])]
    key = command[2 if name in _KEY_SECOND and len(command) > 2 else 1]
    return [Piece(place, command, _slot(key), None)]


def join(command: Command, pieces: Sequence[Piece], replies: Sequence[Any], known: ClusterMap) -> Any:
    """The reply to a command, from the replies to its pieces, none of which is an error."""
    name = _name(command)
    if name == "SCAN":
        return _next_step(pieces[0], replies[0], known)
    if name == "DBSIZE" or name in _COUNTED:
        return sum(replies)
    if name == "MGET":
        values: list[Any] = [None] * (len(command) - 1)
        for piece, found in zip(pieces, replies, strict=True):
            for key, value in zip(piece.keys, found, strict=True):
                values[key] = value
        return values
    if name == "XREAD":
        return _join_read(command, replies)
    return replies[0]


def wait_ms(commands: Sequence[Command]) -> int | None:
    """How long XREADs over several slots are to wait for entries, in milliseconds (0: without end); None if there are
    none. Redis would wait for the streams of one slot only, so the caller asks again until then."""
    waits = []
    for command in commands:
        if _name(command) == "XREAD":
            words, streams, _ = _read_words(command)
            if (block := _block_at(words)) is not None and len({_slot(stream) for stream in streams}) > 1:
                waits.append(int(words[block + 1]))
    return None if not waits else 0 if 0 in waits else max(waits)


def lacks(command: Command, reply: Any) -> bool:
    """True if a reply says that a key or an entry does not exist. A replica may say so of what its master has."""
    name = _name(command)
    if name == "MGET":
        return None in reply
    if name == "EXISTS":
        return bool(reply < len(command) - 1)
    if name == "XRANGE":
        # One entry by its id; where a range ends may be a moment behind.
        return bool(not reply and command[2] == command[3])
    return (name == "GET" and reply is None) or (name == "PTTL" and reply == -2)


def _name(command: Command) -> str:
    word = command[0]
    return (word.decode("ascii", "replace") if isinstance(word, bytes) else str(word)).upper()


def _slot(key: Any) -> int:
    return slot_of(key if isinstance(key, bytes) else str(key).encode())


def _by_slot(place: int, keys: Sequence[Any], command: Callable[[list[int]], Command]) -> list[Piece]:
    """A piece for each slot of some keys; ``command`` makes it for the keys in these places."""
    found: dict[int, list[int]] = {}
    for number, key in enumerate(keys):
        found.setdefault(_slot(key), []).append(number)
    return [Piece(place, command(numbers), slot, None, tuple(numbers)) for slot, numbers in found.items()]


# XREAD


def _read_words(command: Command) -> tuple[list[Any], list[Any], list[Any]]:
    """The words of an XREAD before its streams (with STREAMS), the streams, and the ids after which they are read."""
    at = next(place for place, word in enumerate(command) if isinstance(word, str) and word.upper() == "STREAMS")
    named = list(command[at + 1 :])
    middle = len(named) // 2
    return list(command[: at + 1]), named[:middle], named[middle:]


def _block_at(words: Sequence[Any]) -> int | None:
    return next((at for at, word in enumerate(words) if isinstance(word, str) and word.upper() == "BLOCK"), None)


def _split_read(place: int, command: Command) -> list[Piece]:
    words, streams, after = _read_words(command)
    if (at := _block_at(words)) is not None and len({_slot(stream) for stream in streams}) > 1:
        del words[at : at + 2]
    return _by_slot(
        place, streams, lambda keys: (*words, *(streams[key] for key in keys), *(after[key] for key in keys))
    )


def _join_read(command: Command, replies: Sequence[Any]) -> Any:
    found = [stream for reply in replies if reply is not None for stream in reply]
    if len(replies) > 1:
        asked = [name if isinstance(name, bytes) else str(name).encode() for name in _read_words(command)[1]]
        order = {name: place for place, name in enumerate(asked)}
        found.sort(key=lambda stream: order[stream[0]])
    return found or None


# SCAN. A cursor is "0" at the beginning and the end, and between them "cursor@node".


def _order(known: ClusterMap) -> list[Node]:
    """Masters in an order that stays while slots are moved."""
    return sorted(known.masters)


def _scanned(command: Command, known: ClusterMap) -> tuple[Node, str]:
    """Which master a SCAN goes to, and with which cursor. Where the node has gone, the scan begins again."""
    word = command[1]
    cursor, _, name = (word.decode("ascii", "replace") if isinstance(word, bytes) else str(word)).partition("@")
    nodes = _order(known)
    if not name:
        return nodes[0], cursor
    return next(((node, cursor) for node in nodes if str(node) == name), (nodes[0], "0"))


def _next_step(piece: Piece, reply: Any, known: ClusterMap) -> list[Any]:
    cursor, keys = reply
    assert piece.node is not None
    node: Node | None = piece.node
    if cursor == b"0":
        node = next((other for other in _order(known) if other > piece.node), None)
    return [b"0" if node is None else b"%b@%b" % (cursor, str(node).encode()), keys]
