"""Redis Cluster: which node has a key's slot, and how other nodes redirect.

The reply of CLUSTER SLOTS, and the errors MOVED and ASK, of the cluster specification
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
"""

from __future__ import annotations

import re
from array import array
from binascii import crc_hqx
from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.errors import WireError

#: Slots of every cluster.
SLOTS = 16_384
#: In the table of a map: no node has the slot.
_NOBODY = 2**16 - 1
_REDIRECT = re.compile(r"(MOVED|ASK) ([0-9]{1,5}) (.*):([0-9]{1,5})")
#: Most nodes that a valid reply has.
_NODES_MAX = 1000


class Node(NamedTuple):
    """Where a node listens for clients."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Redirect(NamedTuple):
    """A node's answer that another one has the key: for this command only (``ask``), or from now on."""

    ask: bool
    slot: int
    node: Node


class ClusterMap:
    """The masters of a cluster, the slots of each, and their replicas. Immutable."""

    def __init__(
        self, masters: tuple[Node, ...], table: array[int], replicas: Mapping[Node, tuple[Node, ...]] | None = None
    ) -> None:
        self.masters = masters
        self.replicas: Mapping[Node, tuple[Node, ...]] = replicas or {}
        #: For each slot, the place of its master in ``masters``.
        self._table = table

    def master_of(self, slot: int) -> Node | None:
        """The master that serves ``slot``; None if no node does."""
        place = self._table[slot]
        return None if place == _NOBODY else self.masters[place]

    def slots_of(self, node: Node) -> frozenset[int]:
        """The slots that a master serves; empty for any other node."""
        if node not in self.masters:
            return frozenset()
        place = self.masters.index(node)
        return frozenset(slot for slot, master in enumerate(self._table) if master == place)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that are known, masters first."""
        return self.masters + tuple(node for nodes in self.replicas.values() for node in nodes)

    @property
    def covered(self) -> bool:
        """True if every slot has a master."""
        return _NOBODY not in self._table

    def has_slots_of(self, other: ClusterMap) -> bool:
        """True if every slot has the same master in both maps."""
        return all(self.master_of(slot) == other.master_of(slot) for slot in range(SLOTS))

    @property
    def uncovered(self) -> int:
        """The number of slots that no node serves."""
        return self._table.count(_NOBODY)

    def moved(self, slot: int, node: Node) -> ClusterMap:
        """The map after ``node`` has become the master of ``slot``."""
        masters = self.masters if node in self.masters else (*self.masters, node)
        table = array("H", self._table)
        table[slot] = masters.index(node)
        return ClusterMap(masters, table, self.replicas)


def slot_of(key: bytes) -> int:
    """The slot of a key, 0..16383: CRC16 (XMODEM) of the key, or of its hash tag, the text in its first braces."""
    return crc_hqx(_tag(key) or key, 0) % SLOTS


def _tag(key: bytes) -> bytes:
    """The hash tag of a key; empty if it has none."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return key[start + 1 : end] if end > start + 1 else b""


class FrameSlots:
    """The slots of one camera's names: of its journal, and of frames, whose keys begin with ``key_prefix``."""

    def __init__(self, key_prefix: bytes, journal: bytes) -> None:
        self.journal = slot_of(journal)
        #: All frames are in the journal's slot, because of a hash tag.
        self.shared = bool(_tag(key_prefix)) and slot_of(key_prefix) == self.journal
        self._constant = slot_of(key_prefix) if _tag(key_prefix) else -1
        self._crc = crc_hqx(key_prefix, 0)

    def of(self, unix_nano: int, sequence: int) -> int:
        """The slot of a frame."""
        if self._constant >= 0:
            return self._constant
        return crc_hqx(b"%d:%05d" % (unix_nano, sequence), self._crc) % SLOTS


def parse_slots(reply: Any, asked: Node) -> ClusterMap:
    """The map in a reply to CLUSTER SLOTS of the node ``asked``. A node that does not know its own address leaves it
    out, and then it is the address at which it was asked. Raises WireError."""
    table = array("H", [_NOBODY]) * SLOTS
    places: dict[Node, int] = {}
    replicas: dict[Node, tuple[Node, ...]] = {}
    try:
        for first, last, master, *others in reply:
            node = _node(master, asked)
            place = places.setdefault(node, len(places))
            if not 0 <= first <= last < SLOTS or place >= _NODES_MAX or len(others) >= _NODES_MAX:
                raise ValueError(f"slots {first} to {last}")
            table[first : last + 1] = array("H", [place]) * (last - first + 1)
            replicas[node] = tuple(_node(other, asked) for other in others)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise WireError(f"{asked} answered CLUSTER SLOTS with an invalid list of slots: {error}") from None
    return ClusterMap(tuple(places), table, replicas)


def _node(words: Any, asked: Node) -> Node:
    host, port = words[0], words[1]
    text = host.decode() if isinstance(host, bytes) else ""
    if not isinstance(port, int) or not 0 < port < 2**16:
        raise ValueError(f"port {port!r}")
    return Node(_host(text, asked), port)


def parse_redirect(error: str, asked: Node) -> Redirect | None:
    """The meaning of an error of the node ``asked``, as Redis words it; None if it is no redirection."""
    match = _REDIRECT.match(error)
    if not match or int(match[2]) >= SLOTS or not 0 < int(match[4]) < 2**16:
        return None
    return Redirect(match[1] == "ASK", int(match[2]), Node(_host(match[3], asked), int(match[4])))


def _host(told: str, asked: Node) -> str:
    """The host that the node ``asked`` has told. "?" stands for a host name that a node should announce and was not
    told."""
    return asked.host if told in ("", "?") else told
