"""A ring in its place: made, made anew, and what stood there in its stead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config
from engine.errors import InputError, RingMismatch
from engine.shm import ring_file, ring_place, segment
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Observer
from engine.shm.site import Leftover, SitePaths
from engine.shm.status_page import StatusPage
from engine.wire.keys import SEQUENCE_MAX, next_sequence
from engine.wire.ring_owner import build_owner
from tests.shm.test_site import OWNER, make_ring, site_config

NANO = 1_731_024_000_000_000_000


class Place:
    """The place of cam1's ring, or that of its video, and its capture's status page."""

    def __init__(self, directory: Path, *, video: bool = False) -> None:
        self.video = video
        self.config: Config = site_config(directory, "cam1", video=("cam1",), video_mb=2)
        paths = SitePaths.of(self.config)
        self.path, self.other = (paths.ring("cam1", video=which) for which in (video, not video))
        segment.private_directory(paths.directory)
        self.page = StatusPage.claim(paths.capture("cam1"))

    def open(self) -> Producer:
        return ring_place.open_producer(self.config, "cam1", self.page, video=self.video)

    def ensure(self, nano: int = 0, sequence: int = 0) -> Leftover | None:
        return ring_place.ensure(self.config, "cam1", nano, sequence, video=self.video)

    def note(self, nano: int, sequence: int) -> None:
        _, last_nano, last_sequence = ring_place.words_of(video=self.video)
        self.page.counts[last_nano] = nano
        self.page.counts[last_sequence] = sequence


@pytest.fixture(params=[False, True], ids=["frames", "video"])
def place(shm: Path, request: pytest.FixtureRequest) -> Place:
    return Place(shm, video=request.param)


def write(producer: Producer, count: int = 1) -> None:
    for _ in range(count):
        # 1 is H.264: a video ring has no JPEGs.
        producer.write([b"frame"], max(producer.floor_nano + 1, NANO), 0, 1, 1, encoding=int(producer.video))


def test_a_ring_is_made_where_none_stands_and_kept_where_one_does(place):
    assert place.ensure(NANO, 7) is None
    producer = place.open()
    assert (producer.last_sequence, producer.floor_nano, producer.owner) == (7, NANO, OWNER)
    assert build_owner(place.config.owner) == OWNER
    write(producer)
    assert place.ensure(NANO + 9, 99) is None
    assert place.open().last_sequence == 8


@pytest.mark.parametrize(
    ("known", "page", "expected"),
    [
        ((0, 0), (0, 0), 0),
        ((NANO, 5), (0, 0), 5),
        ((NANO, 5), (NANO + 1, 9), 9),
        ((NANO + 2, 5), (NANO + 1, 9), 5),
        ((NANO, 5), (2**64 - 1, 2**64 - 1), 5),
        ((NANO, 5), (NANO + 1, 0), 5),
    ],
)
def test_a_new_ring_goes_on_behind_the_latest_frame_that_is_known(place, known, page, expected):
    place.note(*page)
    place.ensure(*known)
    assert place.open().last_sequence == expected


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 20_000, bytes(20_000)])
def test_what_is_no_ring_is_replaced_and_told(place, content):
    place.path.touch(0o600)
    place.path.write_bytes(content)
    removed = place.ensure()
    assert removed
    assert removed.reason
    assert place.open().last_sequence == 0


def test_a_ring_that_was_cut_short_is_replaced_with_its_numbers(place):
    place.ensure()
    producer = place.open()
    write(producer, 3)
    place.note(producer.last_nano, producer.last_sequence)
    producer.close()
    os.truncate(place.path, 50_000)
    removed = place.ensure()
    assert removed
    assert "50000 bytes" in removed.reason
    assert place.open().last_sequence == 3


def test_a_ring_of_another_tenant_is_replaced_when_it_is_empty_and_refused_when_it_is_not(place):
    make_ring(place.path, "cam1", owner=b"client-b:frames:embedded", video=place.video)
    assert place.ensure().foreign == "vhost 'client-b', prefix 'frames', Redis embedded"
    assert place.open().owner == OWNER
    place.path.unlink()
    make_ring(place.path, "cam1", frames=2, owner=b"client-b:frames:embedded", video=place.video)
    with pytest.raises(InputError, match="camera cam1: the 2 frames in its ring belong to vhost 'client-b'"):
        place.ensure()


def test_a_ring_of_another_camera_is_not_thrown_away_with_its_frames(place):
    make_ring(place.path, "cam2", frames=2, video=place.video)
    with pytest.raises(RingMismatch, match="in the way"):
        place.ensure()
    assert Observer(place.path, "cam2").counts().held == 2


def test_a_directory_in_its_place_is_in_the_way(place):
    place.path.mkdir()
    with pytest.raises(RingMismatch, match="in the way"):
        place.ensure()


def test_a_ring_that_is_gone_again_is_an_error_of_ours(place):
    with pytest.raises(RingMismatch, match="was removed as soon as it was made"):
        place.open()


def test_a_page_knows_the_last_of_the_ring_before_the_first_frame(place):
    place.ensure(NANO, 7)
    place.open()
    assert ring_place.last_of(place.page, video=place.video) == (NANO, 7)


def test_a_ring_in_its_place_is_left_there(place):
    place.ensure()
    producer = place.open()
    assert ring_place.renewed(place.config, producer) is None


def test_a_ring_that_was_removed_goes_on_in_a_new_one_with_all_its_counts(place):
    place.ensure(NANO, SEQUENCE_MAX - 2)
    producer = place.open()
    consumer = Consumer(place.path, "cam1")
    write(producer, 5)
    consumer.commit(consumer.poll(2**20, 3), 10_000_000)
    place.path.unlink()
    before = producer.counts()
    assert before.latency_sum_us == sum(before.latency) * 10_000 == 30_000
    found = ring_place.renewed(place.config, producer)
    assert found
    assert found.removed is None
    fresh = found.producer
    assert fresh.counts()._replace(held_bytes=before.held_bytes) == before
    assert (fresh.last_sequence, fresh.floor_nano) == (producer.last_sequence, producer.floor_nano)
    write(fresh, 2)
    consumer.commit(consumer.poll(2**20, 9), 10_000_000)
    assert ring_file.hand_over(consumer, place.path)
    successor = Consumer(place.path, "cam1")
    records = successor.poll(2**20, 9)
    assert [record.sequence for record in records] == [4, 5]
    successor.commit(records, 0)
    counts = fresh.counts()
    assert (counts.captured, counts.stored, counts.held) == (7, 7, 0)
    assert (counts.latency_sum_us, sum(counts.latency)) == (50_000, 7)


def test_a_ring_that_does_not_go_on_from_another_is_handed_nothing(place):
    place.ensure()
    former = Consumer(place.path, "cam1")
    place.path.unlink()
    place.ensure()
    before = place.path.read_bytes()
    assert not ring_file.hand_over(former, place.path)
    assert place.path.read_bytes() == before


def test_an_older_ring_that_was_put_back_is_replaced_while_the_capture_lives(place):
    place.ensure()
    producer = place.open()
    write(producer, 3)
    place.path.rename(place.path.with_name("aside"))
    fresh = ring_place.renewed(place.config, producer).producer
    write(fresh, 2)
    place.path.with_name("aside").rename(place.path)
    again = ring_place.renewed(place.config, fresh)
    assert again.removed.held == 3
    assert again.producer.last_sequence == 5


def test_an_older_ring_that_was_put_back_repeats_no_number_at_the_next_start(place):
    place.ensure()
    producer = place.open()
    write(producer, 3)
    place.path.rename(place.path.with_name("aside"))
    fresh = ring_place.renewed(place.config, producer).producer
    write(fresh, 2)
    place.page.counts[ring_place.words_of(video=place.video)[0]] = fresh.inode.number
    place.note(fresh.last_nano, fresh.last_sequence)
    place.path.with_name("aside").rename(place.path)
    place.ensure()
    assert place.open().last_sequence == 5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, SEQUENCE_MAX), st.integers(0, 30))
def test_numbers_go_on_from_any_number(tmp_path_factory, sequence, frames):
    place = Place(tmp_path_factory.mktemp("site"))
    place.ensure()
    producer = place.open()
    write(producer, frames)
    producer.go_on_from(NANO + 10**9, sequence)
    assert producer.last_sequence == sequence
    write(producer)
    assert producer.last_sequence == next_sequence(sequence)
    producer.close()
    again = Producer(place.path, "cam1")
    assert again.last_sequence == next_sequence(sequence)
    again.close()


def test_rings_are_made_anew_again_and_again_without_a_number_lost_or_repeated(place):
    place.ensure()
    producer, consumer = place.open(), Consumer(place.path, "cam1")
    seen = []
    for step in range(20):
        write(producer, step % 4)
        place.path.unlink()
        write(producer, step % 3)
        former, producer = producer, ring_place.renewed(place.config, producer).producer
        former.close()
        write(producer, step % 2)
        records = consumer.poll(2**20, 99)
        seen += [record.sequence for record in records]
        consumer.commit(records, 0)
        assert ring_file.hand_over(consumer, place.path)
        del records
        consumer.close()
        consumer = Consumer(place.path, "cam1")
    seen += [record.sequence for record in consumer.poll(2**20, 99)]
    assert seen == list(range(1, producer.counts().captured + 1))


def test_a_new_ring_is_of_its_kind_and_leaves_the_other_alone(place):
    place.ensure(NANO, 7)
    producer = place.open()
    assert (producer.video, producer.capacity) == (place.video, place.config.ring_capacity(video=place.video))
    write(producer, 2)
    place.path.unlink()
    fresh = ring_place.renewed(place.config, producer).producer
    assert (fresh.video, fresh.capacity, fresh.last_sequence) == (producer.video, producer.capacity, 9)
    assert not place.other.exists()


def test_a_ring_of_the_other_kind_in_its_place_is_replaced(place):
    make_ring(place.path, "cam1", video=not place.video)
    removed = place.ensure()
    assert removed.video != place.video
    assert place.open().video == place.video


def test_both_rings_of_a_camera_go_on_from_their_own_numbers(shm):
    frames, video = Place(shm), None
    frames.note(NANO + 5, 17)
    frames.ensure()
    ring_place.ensure(frames.config, "cam1", NANO, 3, video=True)
    video = ring_place.open_producer(frames.config, "cam1", frames.page, video=True)
    assert (frames.open().last_sequence, video.last_sequence) == (17, 3)
    write(video)
    assert ring_place.last_of(frames.page) == (NANO + 5, 17)
