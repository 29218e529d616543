"""``stream.mjpeg`` of a running site: whole frames in order, and readers that are slow, gone or many."""

from __future__ import annotations

import contextlib
import itertools
import time

import pytest

from engine.wire import jpeg
from engine.wire.test_mark import find_mark
from tests.servers.wait import wait_until
from tests.web.streaming import Streaming

CAM = "cameras/cam1/stream.mjpeg"


def test_parts_are_whole_frames_with_rising_numbers(streaming: Streaming) -> None:
    with streaming.open(CAM) as stream:
        assert stream.begin().headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        numbers = []
        for _ in range(10):
            head, data = stream.part()
            assert jpeg.describe(data) == (640, 360, "jpeg")
            mark = find_mark(data)
            assert (mark.camera, mark.unix_nano) == ("cam1", int(head["X-Frame-Timestamp-Nano"]))
            assert f"{mark.frame:05d}" == head["X-Frame-Sequence"]
            numbers.append(mark.frame)
    assert numbers == sorted(set(numbers))


def test_a_camera_with_a_slash_in_its_name_and_a_width(streaming: Streaming) -> None:
    with streaming.open("cameras/a%2Fb/stream.mjpeg?width=160") as stream:
        stream.begin()
        assert jpeg.describe(stream.part()[1])[:2] == (160, 120)


def test_fps_bounds_the_frames(streaming: Streaming) -> None:
    with streaming.open(f"{CAM}?fps=4") as stream:
        stream.begin()
        stamps = [stream.mark().unix_nano for _ in range(6)]
    # By the frames' own times, which no load on this machine changes: 20 a second come, 4 go out.
    assert (stamps[-1] - stamps[1]) / 4 > 0.2e9


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        pytest.param("cameras/cam2/stream.mjpeg", 404, b"cam1", id="an unknown camera"),
        pytest.param("cameras/gate/stream.mjpeg", 409, b"live.mp4", id="video only"),
        pytest.param(f"{CAM}?fps=0", 422, b"fps", id="no frames a second"),
        pytest.param(f"{CAM}?fps=nan", 422, b"fps", id="not a number"),
        pytest.param(f"{CAM}?fps=1e-300", 422, b"fps", id="almost no frames a second"),
        pytest.param(f"{CAM}?width=1", 422, b"1,920", id="too narrow"),
    ],
)
def test_what_cannot_be_watched_is_refused(streaming: Streaming, path: str, status: int, text: bytes) -> None:
    with streaming.open(path) as answer:
        assert answer.begin().status == status
        assert text in answer.whole()


def test_a_stuck_reader_costs_only_itself(streaming: Streaming) -> None:
    """Twenty readers that never read: others get every frame, memory stays, one tail serves all and ends with them."""
    web = streaming.web()
    with streaming.open(CAM) as warm:
        warm.begin().mark()
    wait_until(lambda: not streaming.tails(), 10, "no tail is left of other tests")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(streaming.open(CAM, buffer=4096))
        reader = stack.enter_context(streaming.open(CAM)).begin()
        first = reader.mark().frame
        before = web.memory_info().rss
        marks = [reader.mark().frame for _ in range(60)]
        grown = web.memory_info().rss - before
        assert marks == sorted(set(marks))
        assert marks[0] > first
        assert streaming.tails() == 1
        # 20 readers × 60 frames × 60 KB are 72 MB.
        assert grown < 20e6
    wait_until(lambda: not streaming.tails(), 10, "the tail ended with its last viewer")


def test_the_newest_frame_is_first(streaming: Streaming) -> None:
    """A reader that paused goes on with what is new when it reads again."""
    with streaming.open(CAM, buffer=4096) as slow, streaming.open(CAM) as other:
        old = slow.begin().mark()
        other.begin()
        while other.mark().unix_nano < old.unix_nano + 5e9:
            pass
        # Kernel buffers hold old ones; behind them stands a frame that is seconds newer.
        stamps = [slow.mark().unix_nano for _ in range(60)]
    jumps = [after - before for before, after in itertools.pairwise(stamps)]
    assert stamps == sorted(stamps)
    assert max(jumps) > 2e9


def test_streams_go_on_when_redis_is_back(streaming: Streaming) -> None:
    """Redis closes all connections: the stream's tail connects again, and no frame comes twice."""
    with streaming.open(CAM) as stream:
        first = stream.begin().mark()
        streaming.redis.client().client_kill_filter(_type="normal", skipme=True)
        marks = [stream.mark().frame for _ in range(20)]
    assert marks == sorted(set(marks))
    assert marks[0] > first.frame


def test_streams_end_when_the_process_ends(streaming: Streaming) -> None:
    """The web process is asked to end with streams open: it ends, and another takes its place."""
    paths = (CAM, "cameras/gate/live.mp4", "events")
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(streaming.open(path)).begin() for path in paths]
        assert [stream.status for stream in streams] == [200] * 3
        web = streaming.web()
        begun = time.monotonic()
        web.terminate()
        web.wait(30)
        print(f"drained within {time.monotonic() - begun:.2f} s")
        for stream in streams:
            with pytest.raises((ConnectionError, AssertionError)):
                stream.exactly(2**40)
    wait_until(lambda: _answers(streaming), 20, "another web process answers")


def _answers(streaming: Streaming) -> bool:
    try:
        with streaming.open("cameras") as answer:
            return answer.begin().status == 200
    except OSError:
        return False
