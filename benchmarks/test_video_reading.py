"""Reading stored video: the newest picture, the picture at a moment, a minute as MP4.

A minute of one camera stands in a Redis: 720p at 15 frames a second, 100 Mbit, a key frame every 2 s. Decodes and round
trips are counted: what the reader's decoder is fed, and what its transport is asked for.
"""

from __future__ import annotations

import random
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import Pairs, Results, Scale, paired
from engine import FrameStore
from engine.client.decoder import Decoder
from engine.client.transport import Transport
from engine.client.video_film import VideoFilm
from engine.wire.journal import ENCODINGS
from engine.wire.resp import VideoFraming
from tests.servers.clips import CARS, Stream, make_clip, read_clip
from tests.servers.redis_server import RedisServer

FPS, GOP = 15, 30
CAMERA, VHOST, PREFIX = "cam1", "default", "frames"
#: The time stamp of the first unit.
T0 = 1_731_024_000_000_000_000
TTL_MS = 3_600_000
NANO = 10**9
LOAD = f"720p, {FPS} fps, a key frame every {GOP / FPS:g} s, 100 Mbit a minute"


class Stored:
    """A server with a minute of video, and what was stored."""

    def __init__(self, server: RedisServer, stream: Stream, units: int) -> None:
        self.server = server
        self.stream = stream
        self.units = units
        self._framing = VideoFraming(VHOST, PREFIX, CAMERA, TTL_MS)
        self._connection = server.client().connection_pool.get_connection()
        for number in range(units):
            self.store(number)
        self._connection.send_packed_command([self._framing.keep()])
        self._connection.read_response()

    def store(self, number: int) -> None:
        """Store a unit as the writer does; the clip is repeated."""
        unit = self.stream.units[number % len(self.stream.units)]
        data, framing = unit.annexb, self._framing
        identity = (self.nano(number), number + 1, len(data))
        encoding = ENCODINGS.index(self.stream.codec)
        body = framing.before(*identity) + data
        body += framing.after(*identity, 1280, 720, encoding, int(unit.keyframe), number + 1)
        self._connection.send_packed_command([body])
        for _ in range(framing.replies_per_frame):
            self._connection.read_response()

    def nano(self, number: int) -> int:
        """The time stamp of a unit, which is also when it is shown."""
        return T0 + number * NANO // FPS

    def open(self) -> FrameStore:
        return FrameStore(self.server.address, vhost=VHOST)


@pytest.fixture(scope="module")
def minute(scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """A third of the minute, which is stored three times."""
    seconds, size, kbit = scale.pick((4, (320, 240), 300), (20, (1280, 720), 1667), (20, (1280, 720), 1667))
    source = CARS if CARS.exists() and scale.mode != "once" else None
    path = tmp_path_factory.mktemp("clips") / "minute.mp4"
    return read_clip(make_clip(path, size=size, fps=FPS, seconds=seconds, gop=GOP, kbit=kbit, source=source))


@pytest.fixture
def stored(directory: Path, minute: Stream) -> Iterator[Stored]:
    with RedisServer(directory / "redis", unix=True) as server:
        yield Stored(server, minute, 3 * len(minute.units))


class Counter:
    """Counts the calls of a method while it stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.calls = 0
        plain: Callable[..., Any] = getattr(owner, name)

        def counted(*arguments: Any) -> Any:
            self.calls += 1
            return plain(*arguments)

        monkeypatch.setattr(owner, name, counted)


def milliseconds(pairs: Pairs) -> dict[str, list[float]]:
    """The rounds of both sides, for the results."""
    return {
        "ours, ms": [round(s * 1e3, 2) for s in pairs.ours],
        "theirs, ms": [round(s * 1e3, 2) for s in pairs.theirs],
    }


def decode_plainly(stream: Stream, first: int, last: int) -> None:
    """PyAV by itself: the units from ``first`` to ``last`` are in memory, the last picture becomes an array."""
    context: Any = av.CodecContext.create("hevc" if stream.codec == "h265" else "h264", "r")
    context.thread_count = 1
    frames: list[Any] = []
    for number in range(first, last + 1):
        frames = context.decode(av.Packet(stream.units[number].annexb)) or frames
    frames = context.decode(None) or frames
    assert frames[-1].to_ndarray(format="bgr24").ndim == 3


def test_the_newest_picture_of_a_followed_tail(
    benchmark: BenchmarkFixture,
    results: Results,
    scale: Scale,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each round stores a packet and takes its picture: from a tail that is followed, and by itself, from the key frame
    on."""
    rounds = scale.pick(3, GOP, 3 * GOP)
    decodes = Counter(monkeypatch, Decoder, "feed")
    with stored.open() as store, store.tail_pictures(CAMERA) as tail:
        number = stored.units - stored.units % GOP

        def store_next() -> None:
            nonlocal number
            stored.store(number)
            number += 1

        # The tail begins here.
        assert tail.poll() is None
        store_next()
        next(tail)
        counted: list[int] = []

        def alone() -> None:
            store_next()
            picture = store.picture(CAMERA)
            assert picture is not None
            assert picture.unix_nano == stored.nano(number - 1)
            # The tail takes the same picture, outside of its own time.
            next(tail)

        def followed() -> None:
            store_next()
            before = decodes.calls
            assert next(tail).unix_nano == stored.nano(number - 1)
            counted.append(decodes.calls - before)

        pairs = paired(benchmark, followed, alone, rounds)
        assert max(counted) == min(counted) == 1
        assert not tail.skipped
    results.figure("video.reading.newest.decodes", max(counted), "decodes of a picture", goal="<= 1", load=LOAD)
    ms = round(statistics.median(pairs.ours) * 1e3, 3)
    results.figure("video.reading.newest", ms, "ms from stored to an array", load=LOAD)
    results.ratio(
        "video.reading.newest",
        pairs.ratio,
        against="the newest picture by itself, decoded from its key frame on",
        runs=milliseconds(pairs),
    )


def test_a_picture_at_a_moment(
    benchmark: BenchmarkFixture,
    results: Results,
    scale: Scale,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random moments, against PyAV that decodes the same packets from memory."""
    rounds = scale.pick(3, 20, 60)
    decodes, calls = Counter(monkeypatch, Decoder, "feed"), Counter(monkeypatch, Transport, "call")
    moments = random.Random(5)
    number, needed, trips = 0, [], []
    with stored.open() as store:

        def limit() -> None:
            nonlocal number
            number = moments.randrange(stored.units)
            last = number % len(stored.stream.units)
            decode_plainly(stored.stream, last - last % GOP, last)

        def ours() -> None:
            before, asked = decodes.calls, calls.calls
            picture = store.picture(CAMERA, stored.nano(number))
            assert picture is not None
            assert picture.unix_nano == stored.nano(number)
            needed.append(decodes.calls - before - (number % GOP + 1))
            trips.append(calls.calls - asked)

        pairs = paired(benchmark, ours, limit, rounds)
    assert max(needed) <= 0, "it decodes more than the moment's GOP up to it"
    results.figure("video.reading.at.round trips", max(trips), "round trips, one of them for packets", load=LOAD)
    results.figure("video.reading.at", round(statistics.median(pairs.ours) * 1e3, 2), "ms", load=LOAD)
    results.ratio(
        "video.reading.at.limit",
        pairs.ratio,
        against="PyAV that decodes the packets since the key frame from memory",
        unit="of its speed",
        runs=milliseconds(pairs),
    )


def test_export_of_a_minute(
    benchmark: BenchmarkFixture,
    results: Results,
    scale: Scale,
    stored: Stored,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A minute of packets from Redis to an MP4 file, against ffmpeg that decodes and encodes that file on all cores."""
    decodes = Counter(monkeypatch, Decoder, "feed")
    film, other = directory / "film.mp4", directory / "other.mp4"

    def ours() -> None:
        with stored.open() as store, VideoFilm(film) as made:
            for unit in store.video(CAMERA):
                made.add(unit)

    def theirs() -> None:
        encode = ["-c:v", "libx264", "-preset", "ultrafast", "-an"]
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(film), *encode, str(other)], check=True, timeout=120)

    ours()
    pairs = paired(benchmark, ours, theirs, scale.pick(1, 2, 5))
    assert not decodes.calls
    with av.open(str(film)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) == stored.units
    mbit = round(film.stat().st_size * 8 / 1e6)
    results.figure("video.reading.export", round(statistics.median(pairs.ours), 3), "s", load=f"{LOAD}: {mbit} Mbit")
    results.ratio(
        "video.reading.export",
        pairs.ratio,
        against="ffmpeg, all cores, `-c:v libx264 -preset ultrafast`",
        unit="times its speed",
        runs=milliseconds(pairs),
        goal=">= 20",
    )
