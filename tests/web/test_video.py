"""``video.mp4`` and ``live.mp4`` of a running site, decoded by FFmpeg; and films of other codecs, without a site."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import av
import numpy as np
import pytest

from engine.client.store import FrameStore
from engine.client.video import VideoUnit
from engine.errors import WireError
from engine.web.video_boxes import Sample
from engine.web.video_codecs import track_of
from engine.web.video_film import video_fragments
from engine.web.video_live import LiveSample, View
from engine.wire.test_mark import find_mark
from tests.client.stored_video import PERSON, Clip, arrivals, clip, encoded, stock_video
from tests.client.test_video_film import unit
from tests.servers.wait import wait_until
from tests.web.streaming import CLIP, CLIP_UNITS, Streaming

SECOND = 1_000_000_000
GATE = "cameras/gate/video.mp4"


def pictures(film: bytes) -> list[tuple[float, Any]]:
    """The times and pixels of a film, as FFmpeg decodes it."""
    with av.open(io.BytesIO(film)) as container:
        return [(float(frame.time), frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def clip_pictures() -> list[Any]:
    return [picture for _, picture in pictures(CLIP.read_bytes())]


@pytest.fixture
def store(streaming: Streaming) -> Iterator[FrameStore]:
    with FrameStore(streaming.redis.address) as found:
        yield found


def test_a_film_begins_with_the_key_frame_before_start(
    streaming: Streaming,
    store: FrameStore,
    clip_pictures: list[Any],
) -> None:
    """Its pictures are the clip's, bit by bit, each at its own time."""
    units = list(store.video_entries("gate", limit=2 * CLIP_UNITS))
    key = next(place for place, one in enumerate(units) if one.keyframe)
    start, end = units[key + 7].shown_nano, units[key + 50].unix_nano
    with streaming.open(f"{GATE}?start={start}&duration={end - start}ns") as answer:
        film = answer.begin().whole()
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["x-video-codec"] == "avc1.640032"
    assert answer.headers["x-video-start-nano"] == str(units[key].unix_nano)
    assert "content-disposition" not in answer.headers
    found = pictures(film)
    wanted = units[key : key + 51]
    assert len(found) == len(wanted)
    for (seconds, _), one in zip(found, wanted, strict=True):
        assert abs(seconds * SECOND - (one.shown_nano - wanted[0].shown_nano)) < 200_000
    # The camera began with the clip's first picture, and its units are numbered from 1.
    for (_, picture), one in zip(found, wanted, strict=True):
        assert np.array_equal(picture, clip_pictures[(one.sequence - 1) % CLIP_UNITS])


def test_a_film_to_save(streaming: Streaming, store: FrameStore) -> None:
    unit = next(iter(store.video_entries("gate", limit=1)))
    with streaming.open(f"{GATE}?start={unit.unix_nano}&duration=1s&download=1") as answer:
        answer.begin()
    assert answer.headers["content-disposition"].startswith('attachment; filename="gate-20')


def test_a_camera_of_jpegs_gives_a_film_of_them(streaming: Streaming, store: FrameStore) -> None:
    entries = list(store.entries("cam1", limit=25))
    start, end = entries[4].unix_nano + 1, entries[20].unix_nano
    with streaming.open(f"cameras/cam1/video.mp4?start={start}&duration={end - start}ns") as answer:
        film = answer.begin().whole()
    assert answer.headers["x-video-codec"] == "jpeg"
    with av.open(io.BytesIO(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    marks = [find_mark(bytes(packet)) for packet in packets]
    assert [mark.frame for mark in marks] == [entry.sequence for entry in entries[4:21]]
    for packet, mark in zip(packets, marks, strict=True):
        assert abs(float(packet.pts * packet.time_base) * SECOND - (mark.unix_nano - marks[0].unix_nano)) < 200_000


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        pytest.param("cameras/cam9/video.mp4", 404, b"cam1", id="an unknown camera"),
        pytest.param(f"{GATE}?duration=11m", 422, b"600", id="too long"),
        pytest.param(f"{GATE}?duration=0s", 422, b"positive", id="no duration"),
        pytest.param(f"{GATE}?start=yesterday", 422, b"yesterday", id="no time"),
        pytest.param(f"{GATE}?start=2001-01-01T00:00:00Z&duration=1s", 404, b"nothing stored", id="before all"),
        pytest.param("cameras/cam1/live.mp4", 409, b"stream.mjpeg", id="live video of JPEGs"),
        pytest.param("cameras/cam9/live.mp4", 404, b"cam1", id="live video of an unknown camera"),
    ],
)
def test_what_cannot_be_shown_is_refused(streaming: Streaming, path: str, status: int, text: bytes) -> None:
    with streaming.open(path) as answer:
        assert answer.begin().status == status
        assert text in answer.whole()


def live_film(stream: Any, fragments: int) -> bytes:
    """The beginning of a live film."""
    film = b""
    while film.count(b"moof") < fragments:
        stream._more()
        film, stream._body = film + stream._body, b""
    return film


def test_live_video_begins_with_a_key_frame_and_goes_on(streaming: Streaming, clip_pictures: list[Any]) -> None:
    with streaming.open("cameras/gate/live.mp4") as first, streaming.open("cameras/gate/live.mp4") as second:
        first.begin()
        film = live_film(first, CLIP_UNITS)
        assert first.headers["x-video-codec"] == "avc1.640032"
        live_film(second.begin(), CLIP_UNITS)
        assert streaming.tails() <= 1
    found = pictures(film)
    assert len(found) >= CLIP_UNITS
    assert found[0][0] == 0
    place = next(place for place, one in enumerate(clip_pictures) if np.array_equal(one, found[0][1]))
    for number, (_, picture) in enumerate(found):
        assert np.array_equal(picture, clip_pictures[(place + number) % CLIP_UNITS])
    wait_until(lambda: not streaming.tails(), 10, "the tail ended with its last viewer")


def test_live_video_with_b_frames_is_refused(streaming: Streaming) -> None:
    first = time.time_ns() - 20 * SECOND
    units = arrivals(clip(PERSON, 100), "people", first=first)
    stock_video(streaming.redis.client(), units, vhost="default", prefix="frames", list_cameras=False)
    with streaming.open("cameras/people/live.mp4") as answer:
        assert answer.begin().status == 422
        assert b"B-frames" in answer.whole()
    with streaming.open(f"cameras/people/video.mp4?start={first}&duration=20s") as answer:
        assert len(pictures(answer.begin().whole())) == 100


def test_stuck_readers_of_films_cost_only_themselves(streaming: Streaming) -> None:
    web = streaming.web()
    path = "cameras/cam1/video.mp4?start=-10m&duration=10m"
    with streaming.open(path) as warm:
        warm.begin().exactly(2**20)
    before = web.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(streaming.open(path, buffer=4096)).begin()
        with streaming.open(f"{GATE}?start=-10s&duration=2s") as other:
            assert pictures(other.begin().whole())
        grown = web.memory_info().rss - before
        print(f"20 stuck readers of films: {grown / 2**20:.1f} MiB")
        # Each holds what it read ahead, and a fragment.
        assert grown < 60e6


def test_a_film_ends_where_the_codec_changes() -> None:
    """What comes after is another film's, also for a viewer that has not taken all of this one."""
    view = View(None, lambda _: None)  # type: ignore[arg-type]
    key, other = (LiveSample(Sample(data, 10, 0, True), tick, tick) for data, tick in ((b"old", 0), (b"new", 10)))
    view.put(key)
    view.end()
    view.put(other)

    async def film() -> list[bytes]:
        return [await view.take(), await view.take()]

    begin, rest = asyncio.run(film())
    assert b"old" in begin
    assert b"new" not in begin
    assert rest == b""


CLIPS: dict[str, Callable[[], Clip]] = {
    "B-frames": lambda: clip(PERSON, 200),
    "H.265": lambda: encoded("h265", bframes=3),
    "H.265 without B-frames": lambda: encoded("h265", bframes=0),
}


def film_of(units: list[VideoUnit]) -> tuple[str, bytes]:
    async def given() -> AsyncIterator[VideoUnit]:
        for one in units:
            yield one

    async def main() -> tuple[str, bytes]:
        track = track_of(units[0])
        return track.codec, track.header + b"".join([piece async for piece in video_fragments(track, given())])

    return asyncio.run(main())


@pytest.mark.parametrize("name", CLIPS)
def test_films_of_other_codecs_decode_to_the_same_pictures(name: str) -> None:
    units = [unit(stored) for stored in arrivals(CLIPS[name]())]
    codec, film = film_of(units)
    assert codec.startswith("hvc1." if name.startswith("H.265") else "avc1.")
    decoder = av.CodecContext.create("hevc" if name.startswith("H.265") else "h264", "r")
    wanted = [frame for one in units for frame in decoder.decode(av.Packet(one.data))] + decoder.decode(None)
    found = pictures(film)
    assert len(found) == len(wanted)
    assert [seconds for seconds, _ in found] == sorted(seconds for seconds, _ in found)
    for (_, picture), frame in zip(found, wanted, strict=True):
        assert np.array_equal(picture, frame.to_ndarray(format="gray"))


def test_damaged_parameter_sets_are_refused() -> None:
    first = unit(arrivals(CLIPS["H.265"]())[0])
    for size in range(0, 120, 3):
        cut = type(first)(
            **{**{name: getattr(first, name) for name in first.__struct_fields__}, "data": first.data[:size]}
        )
        with contextlib.suppress(WireError):
            track_of(cut)
