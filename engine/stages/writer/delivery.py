"""One camera's frames on their way into a cluster, in two steps: the frames, and then their journal entries.

A frame and its journal lie in different slots, so no transaction holds both. First each frame goes to the node of its
key, all nodes at once. When all are acknowledged, their entries go to the node of the journal, as one transaction: a
later entry must never stand without an earlier one. So an entry always means a stored frame. After a kill in
between, both are sent again, which changes nothing.

If a node does not take a frame, the frames before it are delivered and the others stay in the ring. If the journal's
node does not take the entries, all stay in the ring. If it breaks the connection, the entries are in doubt.

Where a hash tag puts frames and journal into one slot, both go in one transaction: one step.

Pure: ``nodes`` sends. Replies arrive in any order among nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Protocol

import hiredis

from engine.errors import WireError
from engine.stages.writer.batch import Batch, Entries, EntryErrors, Part
from engine.stages.writer.blocked_slots import BlockedSlots
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.cluster_link import Question
from engine.wire import resp
from engine.wire.cluster import Node, Redirect, parse_redirect
from engine.wire.replies import shown

#: Redirections that one command follows.
REDIRECTS_MAX = 5


class Linked(Protocol):
    """The link to one node, as a delivery uses it."""

    node: Node
    epoch: int

    @property
    def stalled(self) -> bool:
        """True if the node has not moved a byte for a while."""
        ...

    def ask(self, buffers: Sequence[bytes | memoryview], question: Question) -> None:
        """Send ``buffers``."""
        ...

    def stored(self) -> None:
        """The node has stored something."""
        ...


class Nodes(Protocol):
    """The nodes, as a delivery uses them. See ``ClusterNodes``."""

    blocked_slots: BlockedSlots

    def link_of(self, slot: int) -> Linked | None:
        """The link to the master of ``slot``; None if it cannot be asked now."""
        ...

    def redirected(self, redirect: Redirect) -> Linked | None:
        """Follow a redirection; the link to ask, None if it cannot be asked yet."""
        ...

    def refused(self, link: Any, slot: int, error: str) -> None:
        """A node answered that it does not take what belongs to ``slot``."""
        ...


class Fate(Enum):
    """What became of a delivery's frames."""

    #: They are stored, except refused entries.
    STORED = auto()
    #: Redis has none of their entries.
    NOT_STORED = auto()
    #: Redis may have their entries.
    IN_DOUBT = auto()


class Delivery:
    """The frames that ``writer`` has in flight. ``finished`` is called once, with the delivery."""

    def __init__(self, writer: CameraWriter, nodes: Nodes, finished: Callable[[Delivery], None]) -> None:
        self.writer = writer
        self.fate: Fate | None = None
        #: Refused entries, by the frame's place.
        self.errors: EntryErrors = {}
        #: The slot that did not take a frame or the entries; None if none is known.
        self.blocked_slot: int | None = None
        self._nodes = nodes
        self._finished = finished
        assert writer.in_flight, "nothing is in flight"
        self._part: Part = writer.in_flight
        #: The journal's link when the delivery began, and its epoch.
        self._home = nodes.link_of(writer.slots.journal)
        self._epoch = self._home.epoch if self._home else 0
        #: Frames of step 1 without an answer, and the first place that no node took.
        self._open = 0
        #: The links that have questions of it.
        self.links: list[Linked] = []
        self._taken = len(self._part.records)

    def begin(self) -> None:
        """Send step 1: the frames up to the first one whose node cannot be asked."""
        slots = self.writer.slots
        if self._home is None:
            self.blocked_slot = slots.journal
            self._finish(Fate.NOT_STORED)
            return
        if slots.shared:
            self._send_transaction(Batch([self._part]))
            return
        groups: dict[int, tuple[Linked, list[int]]] = {}
        for place, record in enumerate(self._part.records):
            link = self._nodes.link_of(slots.of(record.unix_nano, record.sequence))
            if link is None:
                self._not_taken(place)
                break
            groups.setdefault(id(link), (link, []))[1].append(place)
        self._open = self._taken
        for link, places in groups.values():
            self._ask(link, self._frames(places), _Frames(self, link, places))
        self._step()

    def _ask(self, link: Linked, buffers: Sequence[bytes | memoryview], question: Question) -> None:
        self.links.append(link)
        link.ask(buffers, question)

    # Step 1: frames

    def _frames(self, places: Sequence[int], before: bytes = b"") -> list[bytes | memoryview]:
        """``SET`` of some frames."""
        framing, records = self._part.framing, self._part.records
        buffers: list[bytes | memoryview] = []
        pending = before
        for place in places:
            record = records[place]
            buffers.append(pending + framing.before(record.unix_nano, record.sequence, len(record.payload)))
            buffers.append(record.payload)
            pending = framing.set_end
        buffers.append(pending)
        return buffers

    def frames_answered(self, link: Linked, places: Sequence[int], replies: Sequence[Any], hops: int) -> None:
        """A node's answer to ``places``."""
        for reply in replies:
            if reply != b"OK" and not isinstance(reply, hiredis.ReplyError):
                self.frames_unanswered(places)
                raise WireError(f"it answered {shown(reply)} to SET")
        for place, reply in zip(places, replies, strict=True):
            if reply == b"OK":
                self._stored(link, place)
            elif self._follow(link, place, str(reply), hops):
                continue
            else:
                self._not_taken(place)
            self._open -= 1
        self._step()

    def _follow(self, link: Linked, place: int, error: str, hops: int) -> bool:
        """Send a frame where its node says; False if that is not possible now."""
        self._nodes.refused(link, self._slot(place), error)
        redirect = parse_redirect(error, link.node)
        target = self._nodes.redirected(redirect) if redirect else None
        if redirect is None or target is None or hops >= REDIRECTS_MAX:
            return False
        asking = resp.ASKING if redirect.ask else b""
        question = _Frames(self, target, [place], hops + 1, asking=redirect.ask)
        self._ask(target, self._frames([place], asking), question)
        return True

    def frames_unanswered(self, places: Sequence[int]) -> None:
        """The connection broke: frames without an entry do no harm, whether they are stored or not."""
        self._open -= len(places)
        for place in places:
            self._not_taken(place)
        self._step()

    def _not_taken(self, place: int) -> None:
        if place < self._taken:
            self._taken = place
            self.blocked_slot = self._slot(place)

    def _slot(self, place: int) -> int:
        record = self._part.records[place]
        return self.writer.slots.of(record.unix_nano, record.sequence)

    def _stored(self, link: Linked, place: int) -> None:
        link.stored()
        if self._nodes.blocked_slots:
            self._nodes.blocked_slots.stored(self._slot(place))

    def _step(self) -> None:
        """All frames are answered: go on with the entries of those that stand before the first one not taken."""
        if self._open or self.fate:
            return
        if self._taken == 0:
            self._finish(Fate.NOT_STORED)
            return
        if self._taken < len(self._part.records):
            self.writer.shorten(self._taken)
            self._part = self._part._replace(records=self._part.records[: self._taken])
        self._send_transaction(Entries(self._part))

    # Step 2: journal entries

    def _send_transaction(self, transaction: Entries | Batch) -> None:
        slot = self.writer.slots.journal
        link = self._nodes.link_of(slot)
        # A node that the journal has come to may lack entries: the camera is settled again first.
        if link is None or link is not self._home or link.epoch != self._epoch:
            self.blocked_slot = slot
            self._finish(Fate.NOT_STORED)
            return
        self._ask(link, transaction.buffers(), _Transaction(self, link, transaction))

    def entries_answered(self, link: Linked, transaction: Entries | Batch, replies: Sequence[Any], hops: int) -> None:
        """A node's answer to the transaction."""
        try:
            (self.errors,) = transaction.parse(replies)
        except hiredis.ReplyError as error:
            self._redirected(link, transaction, str(error), hops)
            return
        except WireError:
            self._finish(Fate.IN_DOUBT)
            raise
        link.stored()
        self._nodes.blocked_slots.stored(self.writer.slots.journal)
        self._finish(Fate.STORED)

    def _redirected(self, link: Linked, transaction: Entries | Batch, error: str, hops: int) -> None:
        """The node has stored nothing of the transaction. Only for ASK it goes elsewhere at once, as a whole: after
        MOVED, the camera is settled at the other node first."""
        journal = self.writer.slots.journal
        self._nodes.refused(link, journal, error)
        redirect = parse_redirect(error, link.node)
        if redirect:
            target = self._nodes.redirected(redirect)
            if target and redirect.ask and hops < REDIRECTS_MAX:
                question = _Transaction(self, target, transaction, hops + 1, asking=True)
                self._ask(target, [resp.ASKING, *transaction.buffers()], question)
                return
        self.blocked_slot = journal
        self._finish(Fate.NOT_STORED)

    def entries_unanswered(self) -> None:
        """The connection broke: the node may have stored the transaction."""
        self._finish(Fate.IN_DOUBT)

    def _finish(self, fate: Fate) -> None:
        self.fate = fate
        self._finished(self)


class _Frames:
    """The question of step 1 to one node."""

    def __init__(
        self, delivery: Delivery, link: Linked, places: Sequence[int], hops: int = 0, *, asking: bool = False
    ) -> None:
        self.replies = len(places) + asking
        self._asking = asking
        self._delivery, self._link, self._places, self._hops = delivery, link, places, hops

    def answered(self, replies: Sequence[Any]) -> None:
        self._delivery.frames_answered(self._link, self._places, replies[self._asking :], self._hops)

    def unanswered(self) -> None:
        self._delivery.frames_unanswered(self._places)


class _Transaction:
    """The question of step 2."""

    def __init__(
        self, delivery: Delivery, link: Linked, transaction: Entries | Batch, hops: int = 0, *, asking: bool = False
    ) -> None:
        self.replies = transaction.replies + asking
        self._asking = asking
        self._delivery, self._link, self._transaction, self._hops = delivery, link, transaction, hops

    def answered(self, replies: Sequence[Any]) -> None:
        self._delivery.entries_answered(self._link, self._transaction, replies[self._asking :], self._hops)

    def unanswered(self) -> None:
        self._delivery.entries_unanswered()
