"""Pictures decoded through the stores equal FFmpeg's decoding of the whole clip, at every moment and whatever is
lost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Picture, UnknownName
from engine.client import key_frames, payloads
from engine.client import picture_at as moments
from engine.client import ranges as range_reader
from engine.client.picture import decode
from engine.errors import QueryError, WireError
from tests.client.stocked import PREFIX, STORES, T0, VHOST, AnyStore, Stored, stock
from tests.client.stored_video import (
    CAR,
    PERSON,
    Clip,
    Image,
    StoredUnit,
    arrivals,
    clip,
    damaged,
    decoded,
    dropped,
    encoded,
    expected,
    gone,
    joined,
    psnr,
    quiet_ffmpeg,
    stock_video,
    without_reordering_hints,
)
from tests.servers.redis_server import RedisServer
from tests.wire import pictures as jpegs

MS = 1_000_000
SAME_DB = 50
#: Each makes another kind of stream.
CLIPS: dict[str, Callable[[], Clip]] = {
    "B-frames": lambda: clip(PERSON, 60),
    "Baseline": lambda: clip(CAR, 75),
    "H.265": lambda: encoded("h265", bframes=3),
    "H.265, open GOPs": lambda: encoded("h265", bframes=4, gop=12, params="open-gop=1"),
    "H.264, open GOPs": lambda: encoded("h264", bframes=3, gop=12, params="open-gop=1"),
    "B-frames of B-frames": lambda: encoded("h264", bframes=7, params="b-pyramid=normal:b-adapt=0"),
    "B-frames that the stream is silent about": lambda: without_reordering_hints(
        encoded("h264", bframes=7, params="b-pyramid=normal:b-adapt=0")
    ),
    "several slices": lambda: encoded("h264", params="slices=4"),
    "odd size": lambda: encoded("h264", width=322, height=182),
    "only key frames": lambda: encoded("h264", gop=1, frames=12),
}


@pytest.fixture(params=CLIPS)
def source(request: pytest.FixtureRequest) -> Clip:
    return CLIPS[request.param]()


def assert_same(found: Sequence[Picture], wanted: Sequence[tuple[int, Image]]) -> None:
    """The pictures are these, at these times, in this order."""
    assert [picture.unix_nano for picture in found] == [shown for shown, _ in wanted]
    for picture, (_, image) in zip(found, wanted, strict=True):
        assert psnr(picture.image, image) > SAME_DB, picture


def test_all_pictures_of_a_camera(store, client, source):
    units = arrivals(source)
    stock_video(client, units)
    pictures = store.pictures("cam1")
    assert_same(list(pictures), expected(units, source))
    assert (pictures.skipped, pictures.missing, pictures.unreadable) == (0, 0, 0)


@pytest.mark.one_server
def test_the_picture_of_every_moment(store, client, source):
    units = arrivals(source)
    stock_video(client, units)
    wanted = expected(units, source)
    for (shown, image), (following, _) in itertools.pairwise([*wanted, (wanted[-1][0] + 1, wanted[-1][1])]):
        for moment in {shown, following - 1}:
            assert_same([store.picture("cam1", moment)], [(shown, image)])
    assert store.picture("cam1", wanted[0][0] - 1) is None
    assert_same([store.picture("cam1")], wanted[-1:])
    assert_same([store.picture("cam1", wanted[-1][0] + 10**12)], wanted[-1:])


def test_a_range_begins_and_ends_anywhere(store, client, source):
    units = arrivals(source)
    stock_video(client, units)
    wanted = expected(units, source)
    for first, count in ((0, 1), (3, 1), (7, 9), (len(wanted) // 2, 15), (len(wanted) - 2, 2)):
        part = wanted[first : first + count]
        start, end = part[0][0], part[-1][0]
        assert_same(list(store.pictures("cam1", start, end)), part)
        assert_same(list(store.pictures("cam1", start - 1, end + 1)), part)


def test_a_picture_tells_what_it_was_decoded_from(store, client):
    source = clip(PERSON, 20)
    units = arrivals(source)
    stock_video(client, units)
    pictures = list(store.pictures("cam1"))
    for picture, shown in zip(pictures, decoded(source), strict=True):
        unit = units[shown.number]
        assert (picture.camera, picture.encoding, picture.keyframe) == ("cam1", "h264", unit.unit.keyframe)
        assert (picture.entry.key, picture.entry.sequence) == (unit.key(), unit.sequence)
        assert picture.timestamp.isoformat() in repr(picture)
    assert pictures[0].image.shape == (source.height, source.width, 3)


@pytest.mark.parametrize("size", [(320, 240), (322, 182)])
def test_images_are_in_the_order_of_colours_that_is_asked_for(store, client, size):
    source = encoded("h264", width=size[0], height=size[1])
    stock_video(client, arrivals(source))
    for colour in ("bgr", "rgb"):
        reference = [shown.image for shown in decoded(source, f"{colour}24")]
        for found in (list(store.pictures("cam1", colour=colour)), [store.picture("cam1", colour=colour)]):
            for picture, image in zip(reversed(found), reversed(reference), strict=False):
                assert psnr(picture.image, image) > SAME_DB
                assert (picture.image.dtype, picture.image.shape) == (np.uint8, (size[1], size[0], 3))
                assert picture.image.flags["C_CONTIGUOUS"]
                picture.image[:] = 0


@pytest.mark.parametrize("matrix", ["smpte2085", "chroma-derived-c", "ictcp", "YCgCo", "bt2020c"])
def test_a_colour_matrix_that_ffmpeg_cannot_convert_counts_as_none(store, client, matrix):
    plain = encoded("h264", frames=3)
    units = arrivals(encoded("h264", frames=3, params=f"colormatrix={matrix}"))
    stock_video(client, units)
    assert_same(list(store.pictures("cam1")), expected(units, plain))


# What is lost


def test_after_a_drop_pictures_go_on_with_the_next_key_frame(store, client):
    """As the engine stores it: after a loss, the rest of the GOP is not there."""
    source = clip(PERSON, 60)
    units = dropped(arrivals(source), *range(23, 30))
    stock_video(client, units)
    wanted = [one for one in expected(arrivals(source), source) if one[0] in {unit.shown_nano for unit in units}]
    pictures = store.pictures("cam1")
    assert_same(list(pictures), wanted)
    assert pictures.skipped == 0
    for shown, image in wanted:
        assert_same([store.picture("cam1", shown)], [(shown, image)])
    before = max(shown for shown, _ in wanted if shown < arrivals(source)[30].shown_nano)
    found = store.picture("cam1", arrivals(source)[30].shown_nano - 1)
    assert found is not None
    assert found.unix_nano == before


def test_after_a_gap_units_are_passed_over_until_the_next_key_frame(store, client):
    source = clip(CAR, 130)
    stock_video(client, dropped(arrivals(source), 70))
    pictures = store.pictures("cam1")
    wanted = expected(arrivals(source), source)
    assert_same(list(pictures), wanted[:70] + wanted[120:])
    assert (pictures.skipped, pictures.missing) == (49, 0)
    assert_same([store.picture("cam1", wanted[100][0])], [wanted[69]])


def test_without_its_key_frame_a_gop_is_passed_over(store, client):
    source = clip(CAR, 130)
    stock_video(client, gone(arrivals(source), 60))
    pictures = store.pictures("cam1")
    wanted = expected(arrivals(source), source)
    assert_same(list(pictures), wanted[:60] + wanted[120:])
    assert (pictures.skipped, pictures.missing) == (59, 1)
    assert_same([store.picture("cam1", wanted[100][0])], [wanted[59]])


def test_the_beginning_has_expired(store, client):
    source = clip(CAR, 130)
    stock_video(client, gone(arrivals(source), *range(75)))
    pictures = store.pictures("cam1")
    wanted = expected(arrivals(source), source)
    assert_same(list(pictures), wanted[120:])
    assert (pictures.skipped, pictures.missing) == (45, 75)
    assert store.picture("cam1", wanted[100][0]) is None


def test_codec_and_size_change(store, client):
    """And the camera was away before some of these changes."""
    clips = [clip(PERSON, 20), encoded("h264"), encoded("h265", bframes=3), clip(CAR, 20), encoded("h265", seed=1)]
    for lost in (0, 3):
        client.flushall()
        units = joined(*clips, lost=lost)
        stock_video(client, units)
        wanted = expected(units, *clips)
        pictures = store.pictures("cam1")
        assert_same(list(pictures), wanted)
        assert pictures.skipped == 0
        for shown, image in wanted[::5]:
            assert_same([store.picture("cam1", shown)], [(shown, image)])


@pytest.mark.parametrize(
    ("encoding", "how"), [("h264", "noise"), ("h264", "cut"), ("h264", "zeros"), ("h265", "noise"), ("h265", "header")]
)
@pytest.mark.parametrize("number", [20, 23, 39], ids=["key frame", "inside", "last"])
def test_after_a_damaged_unit_pictures_go_on_with_the_next_key_frame(store, client, encoding, number, how):
    source = encoded(encoding, frames=60, gop=20)
    change: dict[str, Callable[[bytes], bytes]] = {
        "noise": lambda data: b"\0\0\0\1" + random.Random(1).randbytes(len(data)),
        "cut": lambda data: data[: len(data) * 2 // 3],
        "zeros": lambda data: data[:-60] + bytes(60),
        # Of the slice, all but the header of its NAL unit.
        "header": lambda data: data[: data.rindex(b"\0\0\1") + 5] + b"\xff" * 50,
    }
    units = arrivals(source)
    stock_video(client, damaged(units, number, change[how]))
    wanted = expected(units, source)
    with quiet_ffmpeg():
        pictures = store.pictures("cam1")
        found = list(pictures)
        assert_same(found, wanted[:number] + wanted[40:])
        # FFmpeg passes over H.265 without a slice in silence, and here nothing after it depends on it.
        unnoticed = (encoding, number, how) == ("h265", 39, "noise")
        assert (pictures.skipped, pictures.missing) == (40 - number - unnoticed, 0)
        assert_same([store.picture("cam1", wanted[39][0])], [wanted[number - 1]])
        assert_same([store.picture("cam1", wanted[40][0])], [wanted[40]])


def test_h265_that_ffmpeg_does_not_like_is_decoded_all_the_same(store, client):
    """Its key frames have an SEI message that is cut short, as some cameras send."""
    source = encoded("h265", frames=30, gop=10)
    broken = b"\0\0\0\1" + bytes([39 << 1, 1, 1, 200, 0x80])
    units = [
        stored._replace(unit=stored.unit._replace(data=broken + stored.unit.data)) if stored.unit.keyframe else stored
        for stored in arrivals(source)
    ]
    stock_video(client, units)
    with quiet_ffmpeg():
        pictures = store.pictures("cam1")
        assert_same(list(pictures), expected(units, source))
    assert pictures.skipped == 0


def test_a_journal_without_a_key_frame_gives_nothing(store, client):
    units = arrivals(clip(CAR, 60))[1:]
    stock_video(client, units)
    pictures = store.pictures("cam1")
    assert list(pictures) == []
    assert pictures.skipped == len(units)
    assert store.picture("cam1") is None


# Thinned out


@pytest.mark.parametrize("fps", [25, 10, 4, 1, 0.4])
@pytest.mark.parametrize("begin", [None, 0, 1_234])
def test_fps_keeps_the_first_picture_of_each_span(store, client, fps, begin):
    source = clip(PERSON, 100)
    units = arrivals(source)
    stock_video(client, units)
    wanted = expected(units, source)
    start = None if begin is None else T0 + begin * MS
    spans: dict[int, tuple[int, Image]] = {}
    for shown, image in wanted:
        if start is None or shown >= start:
            spans.setdefault((shown - (wanted[0][0] if start is None else start)) // round(10**9 / fps), (shown, image))
    pictures = store.pictures("cam1", start, fps=fps)
    assert_same(list(pictures), list(spans.values()))
    assert pictures.skipped == 0


# Cameras without video


def test_a_camera_without_video_gives_its_jpegs(store, client):
    payloads = [jpegs.encode(64, 48, seed=seed) for seed in range(3)]
    stock(client, [Stored("cam1", T0 + number * 10**9, number + 1, data) for number, data in enumerate(payloads)])
    for when, number in ((None, 2), (T0 + 10**9, 1), (T0 + 10**9 - 1, 0)):
        picture = store.picture("cam1", when)
        assert (picture.encoding, picture.keyframe, picture.unix_nano) == ("jpeg", True, T0 + number * 10**9)
        assert (picture.image == decode(payloads[number])).all()
        assert (store.picture("cam1", when, colour="rgb").image == picture.image[:, :, ::-1]).all()
    assert store.picture("cam1", T0 - 1) is None
    assert list(store.pictures("cam1")) == []


def test_video_comes_before_jpegs_and_jpegs_before_nothing(store, client):
    source = clip(CAR, 10)
    stock_video(client, arrivals(source))
    stock(client, [Stored("cam1", T0 + second * 10**9, second + 100, jpegs.encode(64, 48)) for second in (-5, 0, 5)])
    assert store.picture("cam1").encoding == "h264"
    assert store.picture("cam1", T0 + 10).encoding == "h264"
    picture = store.picture("cam1", T0 - 10)
    assert (picture.encoding, picture.unix_nano) == ("jpeg", T0 - 5 * 10**9)


def test_a_jpeg_that_is_none_is_a_wire_error(store, client):
    stock(client, [Stored("cam1", T0, 1, b"junk")])
    with pytest.raises(WireError, match="no picture"):
        store.picture("cam1")


def test_unknown_cameras_are_named(store, client):
    stock_video(client, arrivals(clip(CAR, 10), "till"))
    for question in (
        lambda: store.picture("tlil"),
        lambda: list(store.pictures("tlil")),
        lambda: store.tail_pictures("tlil").poll(),
    ):
        with pytest.raises(UnknownName, match="till"):
            question()
    # Known by its video alone: the hash of cameras may be lost.
    client.delete(f"engine:{VHOST}:cameras:{PREFIX}")
    assert store.latest("till") is None
    assert store.picture("till", T0 - 1) is None


@pytest.mark.parametrize(
    "question",
    [
        lambda store: store.picture("cam1", colour="bgra"),
        lambda store: store.pictures("cam1", colour=None),
        lambda store: store.tail_pictures("cam1", colour="RGB"),
        lambda store: store.pictures("cam1", fps=0),
        lambda store: store.pictures("cam1", fps=float("nan")),
        lambda store: store.pictures("cam1", fps=True),
        lambda store: store.pictures("cam1", fps="5"),
        lambda store: store.pictures("cam1", "now", "-1m"),
        lambda store: store.picture("", "now"),
        lambda store: store.tail_pictures([]),
    ],
)
def test_invalid_questions_are_refused(store, question):
    with pytest.raises(QueryError):
        question(store)


# Anything lost, at any moment


class Loss(NamedTuple):
    """What happens to a clip on its way: numbers of units that are not stored, and of those that have expired. A unit
    arrives up to ``late`` nanoseconds late."""

    lost: frozenset[int]
    expired: frozenset[int]
    sequence: int
    late: int
    seed: int

    def arrive(self, source: Clip) -> list[StoredUnit]:
        rnd = random.Random(self.seed)
        return arrivals(source, sequence=self.sequence, jitter=lambda _: rnd.randrange(self.late + 1))

    def store(self, source: Clip) -> list[StoredUnit]:
        return dropped(gone(self.arrive(source), *self.expired), *self.lost)

    def decode(self, source: Clip) -> tuple[list[tuple[int, Image]], int]:
        """(nanosecond, picture) of each unit that decodes, and the number of units that are there and do not."""
        units = self.arrive(source)
        shown = {one.number: (units[one.number].shown_nano, one.image) for one in decoded(source)}
        whole: list[int] = []
        for number, unit in enumerate(units):
            if number not in self.lost | self.expired and (unit.unit.keyframe or number - 1 in whole):
                whole.append(number)
        there = len(units) - len(self.lost | self.expired)
        return sorted((shown[number] for number in whole), key=lambda one: one[0]), there - len(whole)


@st.composite
def losses(draw: st.DrawFn, units: int) -> Loss:
    numbers = st.frozensets(st.integers(0, units - 1), max_size=draw(st.sampled_from((0, 1, 4))))
    late = draw(st.sampled_from((0, 40, 300, 900))) * MS
    return Loss(draw(numbers), draw(numbers), draw(st.sampled_from((1, 99_990))), late, draw(st.integers(0, 99)))


@contextmanager
def stocked(server: RedisServer, kind: Any, units: list[StoredUnit], draw: Callable[[Any], Any]) -> Iterator[AnyStore]:
    with pytest.MonkeyPatch.context() as patch, server.client() as client:
        patch.setattr(key_frames, "_ENTRIES_FIRST", draw(st.sampled_from((1, 7, 256))))
        for module in (key_frames, range_reader):
            patch.setattr(module, "ENTRIES_MAX", draw(st.sampled_from((2, 13, 1000))))
        patch.setattr(payloads, "_FRAMES_MAX", draw(st.sampled_from((1, 5, 256))))
        patch.setattr(moments, "_BYTES_MAX", draw(st.sampled_from((1, 50_000, 2**25))))
        client.flushall()
        stock_video(client, units)
        with kind(server.address, VHOST, chunk_bytes=draw(st.sampled_from((1, 30_000, 4 * 2**20)))) as store:
            yield store


#: Those whose GOPs are closed, so that it is easily said what decodes.
CLOSED = {
    **{name: CLIPS[name] for name in ("B-frames", "Baseline", "B-frames that the stream is silent about")},
    "H.265": lambda: encoded("h265", bframes=3, params="open-gop=0"),
}


@pytest.mark.one_server
@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [*((name, STORES[0]) for name in CLOSED), ("B-frames", STORES[1])])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_lost_every_picture_is_right_and_none_is_missing(shared_redis, kind, name, data):
    source = CLOSED[name]()
    loss = data.draw(losses(len(source.units)))
    wanted, undecoded = loss.decode(source)
    length = source.interval_us * 1000 * len(source.units)
    with stocked(shared_redis, kind, loss.store(source), data.draw) as store:
        pictures = store.pictures("cam1")
        assert_same(list(pictures), wanted)
        assert pictures.skipped == undecoded
        for _ in range(3):
            moment = T0 + data.draw(st.integers(-length // 8, length + length // 8))
            before = [one for one in wanted if one[0] <= moment]
            found = store.picture("cam1", moment)
            assert_same([found] if found else [], before[-1:])
            end = moment + data.draw(st.integers(0, length))
            between = [one for one in wanted if moment <= one[0] <= end]
            assert_same(list(store.pictures("cam1", moment, end)), between)
        newest = store.picture("cam1")
        assert_same([newest] if newest else [], wanted[-1:])


def test_a_store_of_one_camera_gives_nothing_of_another(store, client):
    stock_video(client, arrivals(encoded("h264"), "cam1"))
    stock_video(client, arrivals(encoded("h264", seed=3), "cam1/2"))
    stock_video(client, arrivals(encoded("h265"), "cam1"), vhost="other")
    wanted = expected(arrivals(encoded("h264", seed=3), "cam1/2"), encoded("h264", seed=3))
    assert_same(list(store.pictures("cam1/2")), wanted)


@pytest.mark.one_server
def test_redis_is_only_read(store, client: redis.Redis):
    stock_video(client, arrivals(clip(CAR, 10)))
    before = client.info("commandstats")
    list(store.pictures("cam1", fps=2))
    store.picture("cam1", T0 + 1)
    store.tail_pictures("cam1", T0).poll()
    after = client.info("commandstats")
    assert {name for name in after if after[name]["calls"] != before.get(name, {}).get("calls")} <= {
        f"cmdstat_{name}" for name in ("xrange", "xrevrange", "xread", "mget", "exists", "hkeys", "info", "select")
    }


@pytest.mark.parametrize("cut", range(24, 40))
def test_a_connection_that_begins_with_an_open_gop_decodes_alone(
    store: AnyStore, client: redis.Redis, cut: int
) -> None:
    """Its key frame is no IDR picture, so nothing in it tells a decoder to forget the pictures of the last connection.
    Some of these may have the numbers of the new ones."""
    source = encoded("h264", bframes=3, gop=11, frames=80, params="open-gop=1:b-adapt=0")
    begin = [number for number, unit in enumerate(source.units) if unit.keyframe][2]
    shown = source.units[begin].shown_us
    # Without the leading pictures, which the engine does not store.
    units = tuple(
        unit._replace(shown_us=unit.shown_us - shown) for unit in source.units[begin:] if unit.shown_us >= shown
    )
    connection = source._replace(units=units)
    before = connection.part(0, cut)
    stored = joined(before, connection)
    stock_video(client, stored)
    pictures = store.pictures("cam1")
    assert_same(list(pictures), expected(stored, before, connection))
    assert pictures.skipped == 0
