"""The reply of CLUSTER NODES: all nodes that one node knows, also those that CLUSTER SLOTS leaves out, such as replicas
that have received nothing yet, and nodes that have failed.

It has both addresses of a node, its IP address and the host name that it announces. CLUSTER SLOTS has the one that
clients are to use (``cluster-preferred-endpoint-type``), and certificates are made for that one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from engine.errors import WireError
from engine.wire.cluster import SLOTS, Node

#: Most nodes that a valid reply has.
_NODES_MAX = 1000
#: Words of a line before the ranges of slots.
_WORDS_MIN = 8


class Member(NamedTuple):
    """A node, as another one sees it. ``master_id`` is empty for a master. ``reachable`` is False if the other one has
    no link to it. ``slots`` is the number of slots that it serves."""

    id: str
    node: Node
    flags: frozenset[str]
    master_id: str
    reachable: bool
    slots: int

    @property
    def is_master(self) -> bool:
        """True for a master, with slots or without."""
        return "master" in self.flags

    @property
    def failed(self) -> bool:
        """True if the cluster counts it as failed, or begins to."""
        return bool(self.flags & {"fail", "fail?"})


def parse_members(reply: object, asked: Node, hosts: Collection[str] = ()) -> list[Member]:
    """The nodes in the reply of the node ``asked``; without those whose address is unknown. ``hosts`` are
    those of CLUSTER SLOTS: if a host name is among them, nodes are called by their host names. Raises WireError."""
    if not isinstance(reply, bytes):
        raise WireError(f"{asked} answered CLUSTER NODES with something other than text")
    lines = reply.decode("utf-8", "replace").splitlines()
    if len(lines) > _NODES_MAX:
        raise WireError(f"{asked} answered CLUSTER NODES with {len(lines):,} nodes")
    by_name = any(name and name in hosts for name in map(_host_name, lines))
    return [member for line in lines if (member := _member(line, asked, by_name=by_name))]


def _host_name(line: str) -> str:
    """The host name that a node announces; empty if it announces none."""
    return (line.split()[1:2] or [""])[0].partition(",")[2].partition(",")[0]


def _member(line: str, asked: Node, *, by_name: bool) -> Member | None:
    words = line.split()
    if len(words) < _WORDS_MIN:
        raise WireError(f"{asked} answered CLUSTER NODES with {line[:80]!r}")
    flags = frozenset(words[2].split(","))
    host, _, port = words[1].partition("@")[0].rpartition(":")
    if "noaddr" in flags or "handshake" in flags:
        return None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16):
        raise WireError(f"{asked} answered CLUSTER NODES with the address {words[1][:80]!r}")
    # A node that does not know its own address leaves it out.
    node = Node((_host_name(line) if by_name else "") or host or asked.host, int(port))
    master = "" if words[3] == "-" else words[3]
    reachable = words[7] == "connected" or "myself" in flags
    return Member(words[0], node, flags, master, reachable, sum(map(_count, words[_WORDS_MIN:])))


def _count(text: str) -> int:
    """The number of slots in a range; none for one that is on its way."""
    first, _, last = text.partition("-")
    last = last or first
    sound = all(word.isascii() and word.isdecimal() and len(word) <= 5 for word in (first, last))
    return max(int(last) - int(first) + 1, 0) if sound and int(last) < SLOTS else 0
