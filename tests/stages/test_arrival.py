"""When units had arrived, by the reads that come one unit late: a model of camera, network and parser, and a real
camera that logs what it sends."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Camera, Url
from engine.sources.arrival import Arrivals
from engine.sources.choose import open_source
from engine.stages.capture.clock import FrameClock
from tests.examples import examples
from tests.servers.clips import Codec, Stream, make_clip, read_clip
from tests.servers.rtsp_video import Mount, RtspVideo

MS = 1_000_000
#: What a stamp may be wrong by at a steady rate, in nanoseconds.
EXACT = 5 * MS


class Sent(NamedTuple):
    """A unit on the network: its bytes, and when its first and its last packet arrived."""

    size: int
    first: int
    last: int


@st.composite
def networks(draw: st.DrawFn) -> list[Sent]:
    """Units of a camera at a steady rate over a network that is as fast as a camera's port or faster, and delays each
    unit by up to half of the interval. Any unit may be lost, and the camera's clock may drift: nobody reads it."""
    interval = 10**9 // draw(st.integers(5, 60))
    nano_per_byte = draw(st.floats(0, 80))
    fastest = draw(st.integers(0, interval // 2))
    units: list[Sent] = []
    for number in range(draw(st.integers(2, 40))):
        size = draw(st.integers(100, 100_000))
        first = 10**9 + number * interval + draw(st.integers(0, fastest))
        first = max(first, units[-1].last if units else 0)
        if draw(st.integers(0, 9)):
            units.append(Sent(size, first, first + int(size * nano_per_byte)))
    return units


@settings(max_examples=examples(300), deadline=None)
@given(networks(), st.randoms(use_true_random=False))
def test_a_unit_is_stamped_when_its_last_byte_arrives(units: list[Sent], random) -> None:
    arrivals = Arrivals()
    before = last = 0
    for number, (unit, following) in enumerate(itertools.pairwise(units)):
        # The parser knows that a unit is whole by the first packet of the next one.
        read = following.first + random.randrange(MS // 2)
        arrived = arrivals.arrived(read, unit.size)
        assert last < arrived <= read
        assert arrived >= before
        if number:
            assert abs(arrived - unit.last) < EXACT
        before, last = read, arrived


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**7)), min_size=1))
def test_whatever_is_read_stamps_rise_between_the_reads(reads: list[tuple[int, int]]) -> None:
    arrivals, now = Arrivals(), 0
    before = last = 0
    for passed, size in reads:
        now += passed
        arrived = arrivals.arrived(now, size)
        assert max(before, last + 1) <= arrived <= now
        before, last = now, arrived


def large_key_frames(stream: Stream) -> Stream:
    """The same with key frames of 100 kB more: filler data, in a NAL unit of its own."""
    filler = (bytes([12]) if stream.codec == "h264" else bytes([38 << 1, 1])) + b"\xff" * 100_000
    units = (unit._replace(nals=(*unit.nals, filler)) if unit.keyframe else unit for unit in stream.units)
    return stream._replace(units=tuple(units))


@pytest.mark.parametrize(
    ("codec", "transport", "b_frames", "way"),
    [
        ("h264", "tcp", 2, {}),
        ("h264", "tcp", 0, {"jitter_seconds": 0.05, "mbit_per_second": 100}),
        ("h265", "udp", 0, {}),
    ],
    ids=["b-frames", "jitter", "udp"],
)
def test_stamps_and_camera_times_are_those_of_the_camera(
    tmp_path: Path, codec: Codec, transport: str, b_frames: int, way: dict[str, float]
) -> None:
    """At 5 fps a unit is read 200 ms after it was sent. Its stamp, and the camera's clock, tell when that was."""
    fps, wanted, ahead = 5, 20, -3600.5
    stream = read_clip(make_clip(tmp_path / "a.mp4", codec=codec, fps=fps, gop=5, options=("-bf", str(b_frames))))
    log = tmp_path / "sent"
    mount = Mount(large_key_frames(stream), ahead_seconds=ahead, sent=log, **way)
    with RtspVideo(tmp_path / "rtsp", {"/cam": mount}) as server:
        source = open_source(
            Camera(id="a", url=Url(server.url("/cam")), video=True, decode="none", transport=transport)
        )
        clock, found = FrameClock(), []
        while len(found) < wanted:
            if source.grab():
                stamp, monotonic = clock.stamp(0, source.arrived_nano)
                # Stamps are of the wall clock, the camera's log of the monotonic one.
                found.append((stamp - time.time_ns() + time.monotonic_ns(), monotonic, source.camera_time_nano))
        source.close()
    sent = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    # Opening read the first units, all at once.
    pairs = list(zip(found, sent, strict=False))[2:]
    late = [stamp - last_byte for (stamp, *_), (last_byte, _) in pairs]
    assert abs(statistics.median(late)) < EXACT
    assert statistics.median(read - last_byte for (_, read, _), (last_byte, _) in pairs) > 10**9 / fps / 2
    assert statistics.median(abs(told - captured) for (*_, told), (_, captured) in pairs) < EXACT
    assert all(abs(told - time.time_ns() - ahead * 1e9) < 60e9 for (*_, told), _ in pairs)
