from __future__ import annotations

import contextlib
import re

import pytest

from engine.errors import FrameTooLarge, NoSpace, RingMismatch
from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop, Observer
from engine.wire import ring_layout as layout
from tests.shm.rings import CAMERA, FIRST_NANO, Frame, assert_balanced, drain, look, payload, set_words, standing, write


@pytest.fixture
def path(shm):
    ring_file.create(shm / "cam4.ring", 4096, CAMERA)
    return shm / "cam4.ring"


@pytest.fixture
def producer(path):
    end = Producer(path, CAMERA)
    yield end
    end.close()


@pytest.fixture
def consumer(path):
    end = Consumer(path, CAMERA)
    yield end
    end.close()


def test_a_frame_comes_out_as_it_went_in(producer, consumer):
    whole = payload(1000)
    parts = [whole[:1], memoryview(whole)[1:500], b"", whole[500:]]
    assert producer.write(parts, FIRST_NANO, 77, 1280, 720, keyframe=False) == 1
    (record,) = consumer.poll(1, 1)
    assert Frame.of(record) == Frame(FIRST_NANO, 1, whole, 1280, 720, False, 77)
    assert (record.encoding, record.record_index) == (0, 0)
    assert record.payload.readonly
    assert not consumer.pending


def test_a_camera_time_comes_out_as_it_went_in_and_never_out_of_what_lay_there_before(producer, consumer):
    # The ring is filled with bytes that would be times.
    while write(producer, b"\1" * 500):
        pass
    consumer.commit(consumer.poll(2**20, 64), 0)
    times = (1731024000000000001, 0, 10**19 - 1, 0, 0, 0, 10**19)
    for camera_time in times:
        producer.write([b"frame"], producer.floor_nano + 1, 0, 1, 1, camera_time_nano=camera_time)
    # A time that no journal entry can hold is unknown.
    assert [record.camera_time_nano for record in consumer.poll(2**20, 64)] == [*times[:-1], 0]


def test_an_empty_ring_hands_out_nothing(consumer):
    assert consumer.poll(2**20, 64) == []
    assert not consumer.pending
    assert (consumer.held_bytes, consumer.free_bytes) == (0, 4096 + 128)


def test_frames_are_views_of_the_ring_and_not_copies(producer, consumer):
    write(producer, b"frame")
    (record,) = consumer.poll(1, 1)
    offset = layout.RECORD_HEADER_BYTES
    producer._data[offset : offset + 5] = b"FRAME"
    assert record.payload == b"FRAME"


def test_polling_stops_at_either_bound_but_never_short_of_one_frame(producer, consumer):
    for _ in range(6):
        write(producer, bytes(100))
    assert len(consumer.poll(2**20, 2)) == 2
    assert len(consumer.poll(1, 64)) == 1
    assert len(consumer.poll(101, 64)) == 2
    consumer.rewind()
    assert len(consumer.poll(100, 64)) == 1
    assert len(consumer.poll(2**20, 64)) == 5
    assert consumer.poll(2**20, 64) == []
    consumer.rewind()
    assert [record.sequence for record in consumer.poll(2**20, 64)] == [1, 2, 3, 4, 5, 6]


def test_the_tail_moves_only_with_a_commit_or_release(producer, consumer):
    for _ in range(3):
        write(producer, b"frame")
    records = consumer.poll(2**20, 64)
    assert consumer.tail == 0
    consumer.commit(records[:1], 0)
    assert consumer.tail == records[0].end
    consumer.release(records[1:2], Drop.REFUSED)
    assert consumer.tail == records[1].end
    counts = consumer.counts()
    assert (counts.stored, counts.drops["refused"], counts.held) == (1, 1, 1)
    assert counts.stored_bytes == 5


def test_what_is_acknowledged_after_a_rewind_is_not_handed_out_again(producer, consumer):
    for _ in range(4):
        write(producer, b"frame")
    records = consumer.poll(2**20, 3)
    consumer.rewind()
    consumer.commit(records[:2], 0)
    assert [record.sequence for record in consumer.poll(2**20, 64)] == [3, 4]
    assert consumer.counts().stored == 2


def test_a_full_ring_drops_the_new_frame_and_its_number_is_used_up(producer, consumer):
    held = [write(producer, bytes(900)) for _ in range(4)]
    assert held == [1, 2, 3, 4]
    assert write(producer, bytes(900)) is None
    counts = consumer.counts()
    assert (counts.captured, counts.drops["ring_full"], counts.held) == (5, 1, 4)
    consumer.commit(consumer.poll(1, 1), 0)
    assert write(producer, bytes(900)) == 6
    assert [frame.sequence for frame in drain(consumer)] == [2, 3, 4, 6]
    assert_balanced(consumer.counts())


@pytest.mark.parametrize("size", [1, 64, 65, 448, 449, 960, 1000, 2048])
def test_a_ring_that_was_filled_to_the_brim_holds_every_frame_whole(path, size):
    """Wherever the oldest frame stands: a step of one line too far would be over its header."""
    area = layout.area_bytes(4096)
    for tail in range(0, area, 64):
        set_words(path, HEAD=tail, TAIL=tail)
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
        frames = []
        while write(producer, payload(size, len(frames))) is not None:
            frames.append(payload(size, len(frames)))
        assert consumer.free_bytes < 2 * layout.record_bytes(size)
        assert [frame.payload for frame in drain(consumer)] == frames
        assert not consumer.counts().drops["damaged"]
        producer.close()
        consumer.close()


def test_payloads_are_contiguous_across_the_end_of_the_ring(producer, consumer):
    for number in range(50):
        frame = payload(700 + number, number)
        write(producer, frame)
        (record,) = consumer.poll(1, 1)
        assert record.payload == frame
        consumer.commit([record], 0)
    assert consumer.head > 5 * consumer.counts().area
    assert consumer.held_bytes == 0


@pytest.mark.parametrize("capacity", [64, 128, 192, 1024, 1088])
def test_half_the_capacity_fits_an_empty_ring_wherever_the_head_stands(shm, capacity):
    path = shm / "a.ring"
    ring_file.create(path, capacity, CAMERA)
    frame = payload(capacity // 2)
    for head in range(0, 2 * layout.area_bytes(capacity), 64):
        set_words(path, HEAD=head, TAIL=head)
        producer, consumer = Producer(path, CAMERA), Consumer(path, CAMERA)
        assert write(producer, frame) is not None, f"dropped at head {head}"
        assert [out.payload for out in drain(consumer)] == [frame]
        producer.close()
        consumer.close()


@pytest.mark.parametrize("size", [2049, 4096, 10_000])
def test_a_frame_of_more_than_half_the_capacity_is_refused_counted_and_the_way_out_named(producer, size):
    with pytest.raises(
        FrameTooLarge, match=rf"camera cam4: a frame of {size:,} bytes .* ring\.capacity_mb to 1 or more"
    ):
        write(producer, bytes(size))
    counts = producer.counts()
    assert (counts.captured, counts.drops["too_large"], counts.held) == (1, 1, 0)
    assert write(producer, bytes(2048)) == 2


def test_the_capacity_that_is_named_is_enough(shm):
    size = 3 * 2**20 + 1
    ring_file.create(shm / "a.ring", 2**20, CAMERA)
    producer = Producer(shm / "a.ring", CAMERA)
    with pytest.raises(FrameTooLarge) as caught:
        write(producer, bytes(size))
    producer.close()
    megabytes = int(re.search(r"capacity_mb to ([0-9]+) or more", str(caught.value))[1])
    assert layout.payload_max((megabytes - 1) * 2**20) < size <= layout.payload_max(megabytes * 2**20)


def test_an_empty_frame_is_refused_and_uses_no_number(producer):
    for parts in ([], [b""]):
        with pytest.raises(ValueError, match="empty"):
            producer.write(parts, FIRST_NANO, 0, 1, 1)
    assert write(producer, b"x") == 1


def test_a_discarded_frame_uses_up_its_number(producer):
    assert producer.discard(FIRST_NANO, 0, Drop.CORRUPT) == 1
    assert write(producer, b"x") == 2
    assert producer.counts().drops["corrupt"] == 1
    assert_balanced(producer.counts())


def test_numbers_and_stamps_go_on_where_redis_stands(shm):
    ring_file.create(shm / "a.ring", 4096, CAMERA, last_sequence=99_998, floor_nano=FIRST_NANO)
    producer = Producer(shm / "a.ring", CAMERA)
    assert producer.floor_nano == FIRST_NANO
    assert [write(producer, b"x") for _ in range(3)] == [99_999, 1, 2]
    producer.close()


def test_numbers_and_stamps_survive_their_producer(path, producer):
    write(producer, b"x")
    last = producer.floor_nano
    successor = Producer(path, CAMERA)
    assert (successor.last_sequence, successor.floor_nano) == (1, last)
    successor.close()


def test_the_consumer_raises_the_producer_s_floor_and_never_lowers_it(producer, consumer):
    write(producer, b"x")
    consumer.raise_floor(FIRST_NANO + 50)
    consumer.raise_floor(FIRST_NANO)
    assert producer.floor_nano == FIRST_NANO + 50
    producer.write([b"x"], FIRST_NANO + 60, 0, 1, 1)
    assert producer.floor_nano == FIRST_NANO + 60


def test_releasing_the_oldest_makes_the_asked_room_and_no_more(producer, consumer):
    for number in range(8):
        write(producer, payload(400, number))
    consumer.poll(1, 1)
    lost = consumer.release_oldest(1100, Drop.OUTAGE)
    assert [record.sequence for record in lost] == [1, 2]
    assert consumer.free_bytes >= 1100
    assert consumer.release_oldest(1100, Drop.OUTAGE) == []
    assert [frame.payload for frame in drain(consumer)] == [payload(400, number) for number in range(2, 8)]
    assert consumer.counts().drops["outage"] == 2


def test_more_room_than_there_is_empties_the_ring(producer, consumer):
    for _ in range(3):
        write(producer, b"x")
    assert len(consumer.release_oldest(2**30, Drop.OUTAGE)) == 3
    assert consumer.held_bytes == 0


def test_a_lost_frame_that_was_stored_after_all_is_counted_so(producer, consumer):
    for _ in range(3):
        write(producer, b"frame")
    lost = consumer.release_oldest(2**30, Drop.OUTAGE)
    consumer.reclassify(lost[1:], Drop.OUTAGE, 0)
    counts = consumer.counts()
    assert (counts.stored, counts.stored_bytes, counts.drops["outage"]) == (2, 10, 1)
    assert_balanced(counts)


def test_a_stored_frame_that_redis_lost_is_counted_so(producer, consumer):
    for _ in range(3):
        write(producer, b"frame")
    records = consumer.poll(100, 3)
    consumer.commit(records, 0)
    assert consumer.count_lost(standing(records[2:]), 0) == 2
    counts = consumer.counts()
    assert (counts.stored, counts.stored_bytes, counts.drops["lost"], counts.stored_total) == (1, 5, 2, 3)
    assert_balanced(counts)
    write(producer, b"next")
    assert [record.record_index for record in consumer.poll(100, 3)] == [3]


def test_a_commit_counts_latencies(producer, consumer):
    for monotonic in (0, 9_000_000, 20_000_000):
        producer.write([b"x"], max(producer.floor_nano + 1, FIRST_NANO), monotonic, 1, 1)
    consumer.commit(consumer.poll(2**20, 64), 10_000_000)
    counts = consumer.counts()
    assert counts.latency_max_ms == 10.0
    assert sum(counts.latency) == 3
    assert counts.latency[0] == 1  # stamped after the commit: no latency at all
    assert counts.latency_sum_us == 10_000 + 1_000


def test_committing_nothing_changes_nothing(producer, consumer):
    write(producer, b"x")
    before = consumer.counts()
    consumer.commit([], 0)
    consumer.release([], Drop.OUTAGE)
    assert consumer.counts() == before


def test_the_largest_frame_offered_is_remembered(producer, consumer):
    for size in (10, 3000, 20):
        with contextlib.suppress(FrameTooLarge):
            write(producer, bytes(size))
    assert consumer.largest_frame == 3000


def test_an_observer_sees_counts_and_changes_nothing(path, producer, consumer):
    write(producer, b"frame")
    before = path.read_bytes()
    counts = look(path)
    assert counts == producer.counts() == consumer.counts()
    assert (counts.held, counts.held_bytes, counts.captured_bytes, counts.area) == (1, 128, 5, 4224)
    assert path.read_bytes() == before


def test_a_successor_is_handed_what_was_not_committed(path, producer):
    for number in range(4):
        write(producer, payload(50, number))
    first = Consumer(path, CAMERA)
    first.commit(first.poll(1, 1), 0)
    first.poll(2**20, 2)
    first.close()
    second = Consumer(path, CAMERA)
    assert [frame.payload for frame in drain(second)] == [payload(50, number) for number in range(1, 4)]
    second.close()


def test_a_ring_is_made_once(path):
    with pytest.raises(FileExistsError):
        ring_file.create(path, 4096, CAMERA)


@pytest.mark.parametrize("capacity", [0, -64, 63, 100])
def test_a_capacity_that_is_no_multiple_of_a_line_is_refused(shm, capacity):
    with pytest.raises(ValueError, match=str(capacity)):
        ring_file.create(shm / "a.ring", capacity, CAMERA)


def test_a_ring_that_does_not_fit_into_shared_memory_is_refused_and_leaves_nothing(tmpfs):
    small = tmpfs("1m")
    with pytest.raises(NoSpace, match=r"ring\.capacity_mb"):
        ring_file.create(small / "a.ring", 2**20, CAMERA)
    assert not list(small.iterdir())


@pytest.mark.parametrize("end", [Producer, Consumer, Observer])
@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({"VERSION": 1}, "version 1"),
        ({"MAGIC": 0}, "never finished"),
        ({"CAPACITY": 8192}, "capacity 8192"),
        ({"AREA": 4096}, "size"),
        ({"HEAD": 64 * 100}, "cursors"),
        ({"CAPTURED": 2**62 + 1}, "counts"),
        ({"LAST_NANO": 10**19}, "stamps"),
        ({"FLOOR_NANO": 10**19}, "stamps"),
    ],
)
def test_a_ring_that_does_not_fit_is_refused(path, end, words, part):
    set_words(path, **words)
    with pytest.raises(RingMismatch, match=rf"{path}.*{part}"):
        end(path, CAMERA)


@pytest.mark.parametrize("end", [Producer, Consumer, Observer])
def test_a_ring_of_another_camera_is_refused(path, end):
    with pytest.raises(RingMismatch, match="belongs to camera 'cam4', not 'cam5'"):
        end(path, "cam5")


@pytest.mark.parametrize("end", [Producer, Consumer, Observer])
def test_a_stamp_that_a_key_can_hold_is_no_damage(path, end):
    set_words(path, LAST_NANO=10**19 - 1, FLOOR_NANO=5 * 10**18)
    end(path, CAMERA).close()


@pytest.mark.parametrize("size", [1, 8191, 8192, 12_000, 8192 + 4224 - 64, 8192 + 4224 + 64])
def test_a_ring_whose_file_has_another_size_is_refused(path, size):
    with path.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(RingMismatch, match=str(size)):
        Consumer(path, CAMERA)


def test_claimed_memory_is_committed_once_and_gone_with_the_next_frame(producer, consumer):
    room = producer.claim(500)
    room[:300] = payload(300)
    producer.commit(300, FIRST_NANO, 0, 640, 480)
    assert [bytes(record.payload) for record in consumer.poll(2**20, 10)] == [payload(300)]
    for stale in (lambda: room[0], lambda: producer.commit(300, FIRST_NANO + 1, 0, 640, 480)):
        with pytest.raises(ValueError, match=r"released|claimed"):
            stale()
    room = producer.claim(500)
    write(producer, b"another")
    with pytest.raises(ValueError, match="claimed"):
        producer.commit(500, FIRST_NANO + 9, 0, 1, 1)
    assert consumer.counts().captured == 2


def test_what_cannot_be_claimed_uses_up_no_number(producer):
    with pytest.raises(FrameTooLarge, match="raise ring"):
        producer.claim(producer.frame_bytes_max + 1)
    while producer.claim(producer.frame_bytes_max) is not None:
        write(producer, bytes(producer.frame_bytes_max))
    assert producer.counts().captured == producer.counts().held == producer.last_sequence
