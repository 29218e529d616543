"""The two steps into a cluster, against a model of one: any order of answers, redirections, refusals, broken nodes."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import from_document
from engine.errors import WireError
from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer
from engine.stages.writer.batch import Batch, Entries
from engine.stages.writer.blocked_slots import BlockedSlots
from engine.stages.writer.camera_writer import CameraWriter
from engine.stages.writer.cluster_link import Question
from engine.stages.writer.delivery import Delivery, Fate
from engine.wire.cluster import SLOTS, FrameSlots, Node, Redirect, slot_of

NANO = 1_731_024_000_000_000_000
NODES = 3
FRAMES = 12


def nano_of(number: int) -> int:
    """The time stamp of a frame; frames of one camera spread over all nodes."""
    return NANO + number * 33_333_337


class ModelLink:
    """The connection to one node: what was asked waits until the test lets the node see it."""

    stalled = False

    def __init__(self, place: int) -> None:
        self.node = Node("10.0.0.1", 7000 + place)
        self.epoch = 1
        self.usable = True
        self.asked: deque[tuple[list[list[bytes]], Question]] = deque()
        self.stores = 0

    def ask(self, buffers: Sequence[bytes | memoryview], question: Question) -> None:
        assert self.usable, "asked a node that is away"
        reader = hiredis.Reader()
        reader.feed(b"".join(buffers))
        commands = []
        while (command := reader.gets()) is not False:
            commands.append(command)
        assert len(commands) == question.replies
        self.asked.append((commands, question))

    def stored(self) -> None:
        self.stores += 1

    def fail(self) -> None:
        self.usable = False
        asked, self.asked = self.asked, deque()
        for _, question in asked:
            question.unanswered()


class ModelCluster:
    """What nodes hold, who serves a slot, and who the writer believes does."""

    def __init__(self) -> None:
        self.links = [ModelLink(place) for place in range(NODES)]
        self.truth = [slot * NODES // SLOTS for slot in range(SLOTS)]
        self.believed = list(self.truth)
        #: Slots on their way to another node.
        self.importing: dict[int, int] = {}
        self.frames: set[bytes] = set()
        self.journal: list[bytes] = []
        self.refuses: set[int] = set()
        self.blocked_slots = BlockedSlots()

    def link_of(self, slot: int) -> ModelLink | None:
        link = self.links[self.believed[slot]]
        return link if link.usable else None

    def redirected(self, redirect: Redirect) -> ModelLink | None:
        place = redirect.node.port - 7000
        if not redirect.ask:
            self.believed[redirect.slot] = place
        return self.links[place] if self.links[place].usable else None

    def refused(self, link: ModelLink, slot: int, error: str) -> None:
        if error.startswith(("MOVED", "ASK")):
            self.blocked_slots.refused(slot, link.node, error)
        else:
            assert error.startswith("OOM")
            link.usable = False

    def answer(self, place: int, *, lost: bool = False) -> None:
        """Let a node do what it was asked first; with ``lost``, its answer is lost with the connection."""
        link = self.links[place]
        commands, question = link.asked.popleft()
        replies = self._run(place, commands)
        if lost:
            link.asked.appendleft((commands, question))
            link.fail()
        else:
            question.answered(replies)

    def reopen(self) -> None:
        for link in self.links:
            if not link.usable:
                link.usable = True
                link.epoch += 1

    def _run(self, place: int, commands: list[list[bytes]]) -> list[Any]:
        replies: list[Any] = []
        asking, queued, aborted = False, None, False
        for name, *words in commands:
            error = self._error(place, words[0], asking=asking) if words else None
            if name == b"ASKING":
                asking = True
                replies.append(b"OK")
                continue
            if name == b"MULTI":
                queued = []
                replies.append(b"OK")
                continue
            if name == b"EXEC":
                if aborted:
                    replies.append(hiredis.ReplyError("EXECABORT Transaction discarded because of previous errors."))
                else:
                    replies.append([self._do(name, words) for name, words in queued or []])
                queued = None
            elif error:
                aborted = queued is not None
                replies.append(hiredis.ReplyError(error))
            elif queued is not None:
                queued.append((name, words))
                replies.append(b"QUEUED")
            else:
                replies.append(self._do(name, words))
            if queued is None:
                asking = False
        return replies

    def _error(self, place: int, key: bytes, *, asking: bool) -> str | None:
        if place in self.refuses:
            return "OOM command not allowed when used memory > 'maxmemory'."
        slot = slot_of(key)
        if asking and self.importing.get(slot) == place:
            return None
        if self.truth[slot] != place:
            return f"MOVED {slot} 10.0.0.1:{7000 + self.truth[slot]}"
        if slot in self.importing:
            return f"ASK {slot} 10.0.0.1:{7000 + self.importing[slot]}"
        return None

    def _do(self, name: bytes, words: list[bytes]) -> Any:
        if name == b"SET":
            self.frames.add(words[0])
            return b"OK"
        if name == b"XADD":
            identifier = words[1]
            nano, sequence = identifier.split(b"-")
            assert b"default:frames:cam1:%s:%05d" % (nano, int(sequence)) in self.frames, "an entry without its frame"
            if self.journal and identifier <= self.journal[-1]:
                return hiredis.ReplyError("ERR The ID specified in XADD is equal or smaller")
            self.journal.append(identifier)
            return identifier
        return 1


class Bench:
    """A ring of FRAMES frames, its writer, and the model."""

    def __init__(self, directory: Path) -> None:
        path = directory / "cam1.ring"
        # So small that the first of the frames has to go if an outage lasts.
        ring_file.create(path, FRAMES * 192 + 128, "cam1")
        self.producer = Producer(path, "cam1")
        self.consumer = Consumer(path, "cam1")
        self.consumer.number_from(0)
        config = from_document({"cameras": [{"id": "cam1", "url": "test://"}]}, {})
        self.writer = CameraWriter("cam1", config, self.consumer)
        self.cluster = ModelCluster()
        for number in range(FRAMES):
            self.producer.write((bytes([number]) * 100,), nano_of(number), time.monotonic_ns(), 64, 48)

    def send(self, frames: int) -> list[Delivery]:
        """The next frames on their way; where what has met its fate appears."""
        finished: list[Delivery] = []
        if self.writer.poll(2**30, frames):
            Delivery(self.writer, self.cluster, finished.append).begin()
        return finished

    def apply(self, delivery: Delivery, *, drops: bool = False) -> None:
        """What the agent does; with ``drops``, frames are given up before the nodes are back."""
        assert delivery.fate
        if delivery.fate is Fate.STORED:
            self.writer.stored(delivery.errors, time.monotonic_ns())
            if delivery.errors:
                self.writer.settle_refused({int(entry.split(b"-")[1]) for entry in self.cluster.journal})
        elif delivery.fate is Fate.NOT_STORED:
            self.writer.hand_back()
        else:
            self.writer.connection_broke()
        if drops:
            self.writer.relieve_of(lambda _: True)
        if delivery.fate is Fate.IN_DOUBT:
            self.writer.reconnected()
        self.writer.settle_doubtful({int(entry.split(b"-")[1]) for entry in self.cluster.journal})
        counts = self.producer.counts()
        assert counts.captured == counts.stored + counts.dropped + counts.held
        assert counts.stored <= len(self.cluster.journal)
        listed = [int(entry.split(b"-")[1]) for entry in self.cluster.journal]
        assert listed == sorted(listed)
        if not counts.dropped:
            assert listed == list(range(1, len(listed) + 1)), "a later entry stands without an earlier one"

    def close(self) -> None:
        self.writer.rewind()
        self.producer.close()
        self.consumer.close()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_nodes_answer_entries_stand_in_order_and_each_has_its_frame(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        cluster = bench.cluster
        slots = [bench.writer.slots.journal, *(bench.writer.slots.of(nano_of(n), n + 1) for n in range(FRAMES))]
        for _ in range(data.draw(st.integers(0, 4), "deliveries with faults")):
            finished = bench.send(data.draw(st.integers(1, FRAMES), "frames"))
            while not finished and bench.writer.in_flight:
                waiting = [place for place, link in enumerate(cluster.links) if link.asked]
                events = ["answer", "answer", "answer", "lose", "break", "move", "import", "refuse"]
                event = data.draw(st.sampled_from(events), "event")
                place = data.draw(st.sampled_from(waiting), "node")
                if event in ("answer", "lose"):
                    cluster.answer(place, lost=event == "lose")
                elif event == "break":
                    cluster.links[place].fail()
                elif event == "refuse":
                    cluster.refuses = data.draw(st.sets(st.integers(0, NODES - 1)), "refusing")
                else:
                    slot, target = data.draw(st.sampled_from(slots), "slot"), data.draw(st.integers(0, 2), "target")
                    if event == "move":
                        cluster.importing.pop(slot, None)
                        cluster.truth[slot] = target
                    elif cluster.truth[slot] != target:
                        cluster.importing[slot] = target
            for delivery in finished:
                bench.apply(delivery, drops=data.draw(st.booleans(), "frames are given up"))
            if data.draw(st.booleans(), "nodes are back"):
                cluster.reopen()
        cluster.refuses, rounds = set(), 0
        while bench.consumer.held_bytes:
            rounds += 1
            assert rounds < 50, "it does not end"
            cluster.reopen()
            finished = bench.send(FRAMES)
            while not finished:
                cluster.answer(next(place for place, link in enumerate(cluster.links) if link.asked))
            bench.apply(finished[0])
        counts = bench.producer.counts()
        assert counts.stored == len(cluster.journal)
        assert counts.stored + counts.dropped == FRAMES
        bench.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_no_entry_is_sent_before_all_frames_are_acknowledged(bench: Bench) -> None:
    bench.send(FRAMES)
    places = [place for place, link in enumerate(bench.cluster.links) if link.asked]
    assert len(places) > 1
    for place in places[:-1]:
        bench.cluster.answer(place)
        assert not any(link.asked and link.asked[0][0][0] == [b"MULTI"] for link in bench.cluster.links)
    bench.cluster.answer(places[-1])
    (asked,) = [link.asked[0][0] for link in bench.cluster.links if link.asked]
    assert [command[0] for command in asked] == [b"MULTI", *[b"XADD"] * FRAMES, b"PEXPIRE", b"EXEC"]


def test_frames_before_the_first_one_whose_node_is_away_are_stored(bench: Bench) -> None:
    slots, cluster = bench.writer.slots, bench.cluster
    owners = [cluster.truth[slots.of(nano_of(number), number + 1)] for number in range(FRAMES)]
    home = cluster.truth[slots.journal]
    gone = next(owner for owner in owners[1:] if owner not in (home, owners[0]))
    cluster.links[gone].usable = False
    finished = bench.send(FRAMES)
    while not finished:
        cluster.answer(next(place for place, link in enumerate(cluster.links) if link.asked))
    bench.apply(finished[0])
    assert finished[0].fate is Fate.STORED
    assert finished[0].blocked_slot == slots.of(nano_of(owners.index(gone)), owners.index(gone) + 1)
    assert len(cluster.journal) == owners.index(gone) == bench.producer.counts().stored


def test_what_is_no_answer_is_told_to_the_link_and_leaves_the_frames(bench: Bench) -> None:
    finished = bench.send(1)
    (link,) = [link for link in bench.cluster.links if link.asked]
    with pytest.raises(WireError, match="to SET"):
        link.asked.popleft()[1].answered([3])
    assert [delivery.fate for delivery in finished] == [Fate.NOT_STORED]


def test_a_transaction_of_entries_is_that_of_one_server_without_the_frames(bench: Bench) -> None:
    part = bench.writer.poll(2**30, 3)
    assert part
    words = b"".join(Batch([part]).buffers())
    for record in part.records:
        framed = bench.writer.framing.before(record.unix_nano, record.sequence, len(record.payload))
        words = words.replace(framed + bytes(record.payload) + bench.writer.framing.set_end, b"")
    assert b"".join(Entries(part).buffers()) == words


@pytest.mark.parametrize(
    ("key_prefix", "shared"),
    [(b"v:frames:cam1:", False), (b"v:frames:{cam1}:", True), (b"v:{frames:cam1:", False), (b"v:{}:cam1:", False)],
    ids=["plain", "tagged", "unclosed", "empty tag"],
)
def test_slots_of_frames(key_prefix: bytes, shared: bool) -> None:
    slots = FrameSlots(key_prefix, b"engine:v:journal:frames:{cam1}")
    assert slots.shared is shared
    for number in range(1, 50):
        assert slots.of(NANO + number, number) == slot_of(key_prefix + b"%d:%05d" % (NANO + number, number))
