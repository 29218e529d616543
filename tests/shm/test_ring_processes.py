"""Two processes at full speed over a small ring, each killed again and again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Observer, RingCounts
from engine.wire.keys import SEQUENCE_MAX
from tests.servers.wait import wait_until
from tests.shm.children import Peer
from tests.shm.peers import POLL_FRAMES
from tests.shm.rings import assert_balanced

CAMERA = "cam"
FRAME_BYTES_MAX = 4000
#: Frames stored between one kill and the next.
LAP = 4000


@pytest.fixture
def path(shm: Path) -> Path:
    ring_file.create(shm / "cam.ring", 16_384, CAMERA)
    return shm / "cam.ring"


@contextlib.contextmanager
def settled(path: Path) -> Iterator[tuple[Producer, RingCounts]]:
    """The ring as those who take it over find it."""
    producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
    yield producer, consumer.counts()
    producer.close()
    consumer.close()


def stored_frames(log: Path) -> list[tuple[int, int]]:
    """(frame, number) as consumers noted them, each once; a consumer begins again where its predecessor was killed."""
    frames: list[tuple[int, int]] = []
    for line in log.read_text().splitlines():
        frame, number = map(int, line.split())
        if frame < len(frames):
            again = frames[frame:]
            assert len(again) <= POLL_FRAMES, f"frame {frame} came again behind {frames[-1]}"
            assert again[0] == (frame, number), f"frame {frame} came again as {number} and was {again[0]}"
            del frames[frame:]
        frames.append((frame, number))
    return frames


@pytest.mark.slow
def test_every_frame_arrives_whole_and_in_order_or_is_counted_as_lost(path, shm):
    log = shm / "frames"
    log.touch()
    observer = Observer(path, CAMERA)

    def one_lap():
        goal = observer.counts().stored + LAP
        wait_until(lambda: observer.counts().stored >= goal, 60, f"{LAP} frames stored", interval=0.001)

    with contextlib.ExitStack() as stack:
        running = {
            "produce": stack.enter_context(Peer("produce", path, FRAME_BYTES_MAX)),
            "consume": stack.enter_context(Peer("consume", path, log)),
        }
        for victims in (("produce",), ("consume",), ("produce", "consume"), ("consume", "produce"), ("produce",)):
            one_lap()
            for victim in victims:
                running[victim].kill()
            for victim in reversed(victims):
                arguments = (path, FRAME_BYTES_MAX) if victim == "produce" else (path, log)
                running[victim] = stack.enter_context(Peer(victim, *arguments))
        one_lap()
        running["produce"].kill()
        wait_until(lambda: observer.held_bytes == 0, 60, "the ring is empty")
        running["consume"].kill()
    observer.close()

    with settled(path) as (producer, counts):
        assert_balanced(counts)
        assert counts.held == 0
        assert {label for label, count in counts.drops.items() if count} <= {"ring_full", "interrupted"}
        frames = stored_frames(log)
        assert [frame for frame, _ in frames] == list(range(counts.stored)), "a frame is missing or stands twice"
        numbers = [number for _, number in frames]
        gaps = sum((now - before) % SEQUENCE_MAX - 1 for before, now in zip([0, *numbers], numbers, strict=False))
        gaps += (producer.last_sequence - numbers[-1]) % SEQUENCE_MAX
        assert gaps % SEQUENCE_MAX == counts.dropped % SEQUENCE_MAX, "a number is missing and nobody counted it"


@pytest.mark.slow
def test_a_ring_that_is_never_full_loses_nothing_at_full_speed(path, shm):
    """A producer that waits for room, which capture never does: every single frame must come out."""
    log = shm / "frames"
    log.touch()
    with Peer("consume", path, log), Peer("produce_patiently", path, FRAME_BYTES_MAX, 20_000) as producer:
        assert producer.line() == "done"
        observer = Observer(path, CAMERA)
        wait_until(lambda: observer.held_bytes == 0, 60, "the ring is empty")
        observer.close()
    with settled(path) as (_, counts):
        assert (counts.captured, counts.stored, counts.dropped) == (20_000, 20_000, 0)
        assert stored_frames(log) == [(number - 1, number) for number in range(1, 20_001)]
