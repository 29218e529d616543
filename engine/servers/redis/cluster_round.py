"""The commands of one round trip to a cluster: which node is asked what, and what its answers mean. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from engine.servers.redis.cluster_state import ClusterState
from engine.servers.redis.errors import Command, serves_nothing
from engine.wire.cluster import ClusterMap, Node, Redirect, parse_redirect
from engine.wire.cluster_routing import Piece, join, lacks, split


class Request(NamedTuple):
    """What one node is sent. ``places`` has, for each command, the piece that it is for; None if its reply is only to
    be passed over."""

    commands: list[Command]
    places: list[int | None]
    replica: bool


class Round:
    """Commands on their way through a cluster, until each has its reply."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self._commands = commands
        self._pieces: list[Piece] = []
        #: Piece -> its reply; of one that has to be asked again, the error so far.
        self._replies: dict[int, Any] = {}
        self._open: set[int] = set()
        #: Piece -> the node that takes its slot over, which is asked once.
        self._importing: dict[int, Node] = {}
        #: Pieces that only the master can answer.
        self._of_master: set[int] = set()
        #: What the last answers were: slots that have moved, and whether a node cannot serve for now.
        self.redirects: list[Redirect] = []
        self.away: list[Node | None] = []
        self.waits = False

    @property
    def done(self) -> bool:
        """True if every piece has its reply."""
        return bool(self._pieces) and not self._open

    def again(self) -> None:
        """Ask everything once more."""
        self._pieces = []

    def requests(self, state: ClusterState, known: ClusterMap) -> dict[Node, Request]:
        """What to send to each node for the pieces that have no reply."""
        self.redirects, self.away, self.waits = [], [], False
        if not self._pieces or any(self._pieces[n].node not in (None, *known.masters) for n in self._open):
            # At first, and when a master has gone that was asked without a key.
            self._pieces = [piece for n, command in enumerate(self._commands) for piece in split(n, command, known)]
            self._replies, self._importing, self._of_master = {}, {}, set()
            self._open = set(range(len(self._pieces)))
        found: dict[Node, Request] = {}
        for number in sorted(self._open):
            piece = self._pieces[number]
            node, replica = piece.node, False
            if number in self._importing:
                node = self._importing[number]
            elif piece.slot is not None and number in self._of_master:
                node = known.master_of(piece.slot)
            elif piece.slot is not None:
                node, replica = state.reader_of(known, piece.slot)
            if node is None:
                self._replies[number] = ClusterDownError(f"Hash slot {piece.slot} is served by no node")
                self.away.append(None)
                continue
            if (request := found.get(node)) is None:
                # A replica answers only connections that have said so. To a master it changes nothing.
                request = found[node] = Request([("READONLY",)], [None], True) if replica else Request([], [], False)
            if number in self._importing:
                request.commands.append(("ASKING",))
                request.places.append(None)
            request.commands.append(piece.command)
            request.places.append(number)
        return found

    def take(self, node: Node, request: Request, replies: Sequence[Any]) -> None:
        """The replies of a node to its request."""
        for number, reply in zip(request.places, replies, strict=True):
            if number is None:
                continue
            self._importing.pop(number, None)
            self._replies[number] = reply
            if isinstance(reply, ResponseError):
                if not self._passes(number, node, request, reply):
                    self._open.discard(number)
            elif request.replica and lacks(self._pieces[number].command, reply):
                self._of_master.add(number)
            else:
                self._open.discard(number)

    def _passes(self, number: int, node: Node, request: Request, error: ResponseError) -> bool:
        """True for an error after which a piece is asked again, because no node has worked on it."""
        if isinstance(error, AskError):
            word = "MOVED" if isinstance(error, MovedError) else "ASK"
            redirect = parse_redirect(f"{word} {error}", node)
            if redirect is None:
                return False
            if request.replica:
                # It follows another master by now, or its user may not send READONLY.
                self._of_master.add(number)
            elif redirect.ask:
                self._importing[number] = redirect.node
            else:
                self.redirects.append(redirect)
            return True
        if isinstance(error, TryAgainError):
            # Keys of a slot that is being moved are at two nodes.
            self.waits = True
            return True
        if serves_nothing(error):
            if request.replica:
                self._of_master.add(number)
            else:
                self.away.append(node)
            return True
        return False

    def replies(self, known: ClusterMap) -> list[Any]:
        """One reply for each command. Of a command with an error among its pieces, that error."""
        of_command: list[list[int]] = [[] for _ in self._commands]
        for number, piece in enumerate(self._pieces):
            of_command[piece.place].append(number)
        found = []
        for command, numbers in zip(self._commands, of_command, strict=True):
            parts = [self._replies.get(number) for number in numbers]
            error = next((part for part in parts if isinstance(part, ResponseError)), None)
            found.append(error or join(command, [self._pieces[number] for number in numbers], parts, known))
        return found
