"""What the other process of a test does: ``python -m tests.shm.peers FUNCTION ARGUMENT…``, see ``children``."""

from __future__ import annotations

import random
import struct
import sys
import time
import zlib
from pathlib import Path

from engine.shm.doorbell import Bell, Doorbell
from engine.shm.ring import Consumer, Producer
from engine.shm.status_page import StatusPage
from engine.wire.keys import next_sequence
from tests.shm.rings import FIRST_NANO

#: Frames that a consumer takes at a time, and so may be handed again when it is killed.
POLL_FRAMES = 8
#: Length, number and CRC of all that follows.
_SELF_CHECK = struct.Struct("<IQI")


def say(text: object) -> None:
    print(text, flush=True)


def wait_for_go() -> None:
    sys.stdin.buffer.readline()


def hold_page(path: str) -> None:
    """Own a status page until killed, or until told to give it back."""
    page = StatusPage.claim(Path(path))
    say("claimed")
    wait_for_go()
    page.close()
    say("closed")
    wait_for_go()


def checked_text(number: int) -> bytes:
    """A text that tells whether it is whole: its length varies with every number."""
    body = b"%d " % number + bytes([33 + number % 90]) * (number * 37 % 3000)
    return b"%08x" % zlib.crc32(body) + body


def number_of(text: bytes) -> int:
    """The number of a checked text; AssertionError where it is not whole."""
    assert int(text[:8], 16) == zlib.crc32(text[8:]), f"torn text {text[:40]!r}…"
    return int(text[8:].split(b" ")[0])


def write_texts(path: str) -> None:
    """Change a status page's text all the time, with a breath of some microseconds between."""
    page = StatusPage.claim(Path(path))
    say("writing")
    number = 0
    while True:
        number += 1
        page.text = checked_text(number)
        for _ in range(number % 300):
            pass


def sleep_on_doorbell(page_path: str, ring_path: str, bell_path: str) -> None:
    """A writer that only a doorbell wakes: its sleep is far longer than the test waits for it."""
    doorbell = Doorbell(Path(bell_path), StatusPage.claim(Path(page_path)))
    consumer = Consumer(Path(ring_path), "cam")
    say("ready")
    while True:
        doorbell.wait(3600, lambda: consumer.pending)
        while records := consumer.poll(2**20, 64):
            consumer.commit(records, time.monotonic_ns())


def ring_for_each_frame(page_path: str, ring_path: str, bell_path: str, frames: str) -> None:
    """A producer that goes on only when its frame was fetched, at ever other distances from the writer's last look."""
    bell = Bell(Path(bell_path), StatusPage.watch(Path(page_path)))
    producer = Producer(Path(ring_path), "cam")
    chance = random.Random(1)
    for number in range(int(frames)):
        for _ in range(chance.randrange(400)):
            pass
        producer.write([b"x"], max(producer.floor_nano + 1, FIRST_NANO), time.monotonic_ns(), 1, 1)
        bell.wake()
        deadline = time.monotonic() + 30
        while producer.held_bytes:
            if time.monotonic() > deadline:
                say(f"frame {number} woke nobody")
                return
    say("done")


def self_checking(number: int, size: int, chance: random.Random) -> bytes:
    """A payload of ``size`` bytes and a header that proves it."""
    body = chance.randbytes(size)
    return _SELF_CHECK.pack(size, number, zlib.crc32(body)) + body


def check(payload: memoryview) -> int:
    """The number of a payload's frame; AssertionError where a byte of it is wrong."""
    size, number, crc = _SELF_CHECK.unpack_from(payload)
    body = payload[_SELF_CHECK.size :]
    assert len(body) == size, f"frame {number}: {len(body)} bytes, written with {size}"
    assert zlib.crc32(body) == crc, f"frame {number} is damaged"
    return number


def write_frame(producer: Producer, size: int, chance: random.Random) -> None:
    """Write a frame that carries the number that its key will have."""
    number = next_sequence(producer.last_sequence)
    whole = self_checking(number, size, chance)
    cut = chance.randrange(len(whole))
    wrote = producer.write(
        (whole[:cut], whole[cut:]), max(producer.floor_nano + 1, FIRST_NANO), time.monotonic_ns(), size, 1
    )
    assert wrote in (None, number)


def produce(ring_path: str, size_max: str) -> None:
    """Write frames as fast as they can be made, for ever."""
    producer = Producer(Path(ring_path), "cam")
    chance = random.Random()
    while True:
        write_frame(producer, chance.randrange(int(size_max)), chance)


def produce_patiently(ring_path: str, size_max: str, frames: str) -> None:
    """Write frames as fast as there is room for any of them."""
    producer = Producer(Path(ring_path), "cam")
    chance = random.Random(2)
    for _ in range(int(frames)):
        while producer.free_bytes < 2 * (int(size_max) + 128):
            pass
        write_frame(producer, chance.randrange(int(size_max)), chance)
    say("done")


def consume(ring_path: str, log_path: str) -> None:
    """Check frames, note them, and only then commit, for ever: what was stored was noted at least once."""
    consumer = Consumer(Path(ring_path), "cam")
    with Path(log_path).open("ab", buffering=0) as log:
        while True:
            records = consumer.poll(20_000, POLL_FRAMES)
            for record in records:
                assert check(record.payload) == record.sequence
                assert record.width == len(record.payload) - _SELF_CHECK.size
            if records:
                log.write(b"".join(b"%d %d\n" % (record.record_index, record.sequence) for record in records))
                consumer.commit(records, time.monotonic_ns())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
