"""Films of stored frames, and the chart of their rate: what is in the files, and what happens where they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.client.frame import Frame
from engine.client.picture import CHART_SIZE, Film, decode, rate_chart
from engine.client.queries import Bucket
from engine.errors import WireError
from engine.wire.rfc3339 import NANO, parse_rfc3339
from tests.wire import pictures

BEGIN = parse_rfc3339("2024-11-08T14:30:00.123456789Z")
MILLISECOND = 10**6


def frame(offset_ms: float, *, data: bytes | None = None, width: int = 64, height: int = 48, seed: int = 0) -> Frame:
    """A frame so many milliseconds after BEGIN."""
    payload = pictures.encode(width, height, seed=seed) if data is None else data
    nano = BEGIN + int(offset_ms * MILLISECOND)
    return Frame("default", "frames", "cam1", nano, 1, len(payload), width, height, "jpeg", True, payload)


def write(path: Path, *frames: Frame) -> Film:
    with Film(path) as film:
        for one in frames:
            film.add(one)
    return film


def read(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    """(milliseconds, picture) of each frame of a film, in order."""
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    assert film.isOpened()
    found = []
    while True:
        good, picture = film.read()
        if not good:
            assert len(found) == film.get(cv2.CAP_PROP_FRAME_COUNT)
            return found
        found.append((film.get(cv2.CAP_PROP_POS_MSEC), np.asarray(picture, np.uint8)))


def packets(path: Path) -> list[bytes]:
    """The film's packets as they are in the file."""
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    found = []
    while film.grab():
        found.append(film.retrieve()[1].tobytes())
    return found


def test_a_film_holds_each_frame_as_it_was_stored_at_its_own_time(tmp_path):
    offsets = [0, 33.4, 66.6, 67.4, 1000, 3_600_000, 86_400_000]
    frames = [frame(offset, seed=number) for number, offset in enumerate(offsets)]
    film = write(tmp_path / "a.mp4", *frames)
    assert film.frames == len(frames)
    assert film.bytes == sum(len(one.data) for one in frames)
    shown = read(tmp_path / "a.mp4")
    assert [round(ms) for ms, _ in shown] == [0, 33, 67, 68, 1000, 3_600_000, 86_400_000]
    assert packets(tmp_path / "a.mp4") == [one.data for one in frames]
    for (_, picture), one in zip(shown, frames, strict=True):
        # FFmpeg and libjpeg round and interpolate colours each in their own way.
        assert np.abs(picture.astype(int) - decode(one.data)).mean() < 8


def test_frames_of_one_millisecond_follow_each_other(tmp_path):
    write(tmp_path / "a.mp4", *(frame(offset) for offset in (0, 0.1, 0.2, 0.3, 2, 10)))
    assert [round(ms) for ms, _ in read(tmp_path / "a.mp4")] == [0, 1, 2, 3, 4, 10]


def test_a_film_of_one_frame_and_of_odd_size(tmp_path):
    one = frame(0, width=63, height=47)
    write(tmp_path / "a.mp4", one)
    assert packets(tmp_path / "a.mp4") == [one.data]


def test_frames_of_other_sizes_are_kept_as_they_are(tmp_path):
    frames = [frame(0), frame(50, width=128, height=96), frame(100)]
    write(tmp_path / "a.mp4", *frames)
    assert packets(tmp_path / "a.mp4") == [one.data for one in frames]


def test_the_size_comes_from_the_picture_where_nobody_knows_it(tmp_path):
    payload = pictures.encode(320, 240)
    unknown = Frame("default", "frames", "cam1", BEGIN, 1, len(payload), 0, 0, "jpeg", True, payload)
    write(tmp_path / "a.mp4", unknown)
    assert read(tmp_path / "a.mp4")[0][1].shape == (240, 320, 3)


def test_a_film_cannot_begin_with_what_is_no_picture(tmp_path):
    noise = Frame("default", "frames", "cam1", BEGIN, 1, 5, 0, 0, "unknown", True, b"noise")
    with pytest.raises(WireError, match="no JPEG with a size"):
        write(tmp_path / "a.mp4", noise)
    assert not (tmp_path / "a.mp4").exists()


def test_no_frames_no_file(tmp_path):
    assert write(tmp_path / "a.mp4").frames == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["rtsp:cam%201 (x).mp4", "câmara.MP4", "%05d.mp4"])
def test_any_name_is_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path(name), frame(0), frame(40))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(packets(tmp_path / name)) == 2


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "none" / "a.mp4", frame(0))
    with pytest.raises(OSError, match="No space left"):
        write(Path("/dev/full"), frame(0))
    with pytest.raises(OSError, match="cv2 cannot open"):
        write(tmp_path / "a.unknown", frame(0))


@pytest.mark.parametrize("limit", [100, 5_000, 100_000, 1_000_000])
def test_a_film_that_the_disk_cannot_hold_is_an_os_error(limit, tmp_path):
    """However much fits: not even the head, no frame, some of them."""
    script = f"""
import resource, sys
sys.path[:0] = ["."]
from tests.client.test_picture import *
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
data = frame(0).data + bytes(100_000)
film = Film({str(tmp_path / "a.mp4")!r})
try:
    with film:
        for number in range(400):
            film.add(frame(40 * number, data=data))
except OSError as error:
    print(film.frames, error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    frames, message = done.stdout.strip().split(" ", 1)
    assert message == (
        "File too large" if limit == 100 else "less has arrived there than was written, as on a full disk"
    )
    assert int(frames) < 200, "it is given up before all is written"
    assert done.stderr == ""


def test_an_error_inside_closes_the_film_and_passes(tmp_path):
    with pytest.raises(WireError, match="told"), Film(tmp_path / "a.mp4") as film:
        raise_after(film)
    assert not any(link.endswith("a.mp4") for link in map(os.readlink, _open_files()))


def raise_after(film: Film) -> None:
    film.add(frame(0))
    raise WireError("as it was told")


def test_nothing_is_printed(tmp_path, capfd):
    write(tmp_path / "a.mp4", frame(0))
    assert capfd.readouterr() == ("", "")
    os.write(2, b"standard error is there again")
    assert capfd.readouterr().err == "standard error is there again"


def _open_files() -> list[str]:
    return [path for path in map(str, Path("/proc/self/fd").iterdir()) if os.path.lexists(path)]


def buckets(*frames: int, length: int = 60 * NANO, begin: str = "2024-11-08T14:30:00Z") -> list[Bucket]:
    first = parse_rfc3339(begin)
    return [Bucket(first + number * length, count, count * 1000, 1000.0) for number, count in enumerate(frames)]


def drawn(png: bytes) -> NDArray[np.uint8]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    picture = pictures.decode(png)
    assert picture.shape == CHART_SIZE[::-1], "grey, and of the size that is promised"
    return picture


def bar_heights(picture: NDArray[np.uint8], count: int) -> list[int]:
    """Height in pixels of each of so many bars, measured in the middle of its place."""
    left, right = 90, CHART_SIZE[0] - 30
    return [
        int((picture[:, left + (2 * number + 1) * (right - left) // (2 * count)] == 96).sum())
        for number in range(count)
    ]


def test_bars_are_as_high_as_their_buckets_are_full():
    heights = bar_heights(drawn(rate_chart(buckets(10, 20, 0, 5), "cam1")), 4)
    assert heights[2] == 0
    assert heights[0] == pytest.approx(heights[1] / 2, abs=2)
    assert heights[3] == pytest.approx(heights[1] / 4, abs=2)
    # The scale ends at a round number that is not far above the fullest.
    assert heights[1] > 300


def test_a_gap_is_seen_among_very_many_buckets():
    counts = [30] * 50_000
    counts[20_000:30_000] = [0] * 10_000
    heights = bar_heights(drawn(rate_chart(buckets(*counts), "cam1")), 5)
    assert heights[2] == 0
    assert min(heights[0], heights[1], heights[3], heights[4]) > 300


@pytest.mark.parametrize(
    ("counts", "length"),
    [((1,), NANO), ((0, 0), NANO), ((3, 1), 1), ((10**9, 7), 86_400 * NANO), ((1,) * 400, 366 * 86_400 * NANO)],
)
def test_any_counts_and_spans_make_a_chart(counts, length):
    drawn(rate_chart(buckets(*counts, length=length, begin="1970-01-01T00:00:00Z"), "câmara 2 日本"))


def test_title_and_labels_are_there():
    plain = drawn(rate_chart(buckets(1, 2, 3), ""))
    titled = drawn(rate_chart(buckets(1, 2, 3), "cam1: frames per 1m"))
    assert (plain[:45] == 255).all()
    assert (titled[:45] < 128).any()
    assert (plain[415:435] < 128).any(), "times below the axis"
    assert (plain[50:400, 40:80] < 128).any(), "numbers left of the axis"
    assert (plain[50:400, 5:25] < 128).any(), "what the numbers are"


def test_no_buckets_no_chart():
    with pytest.raises(ValueError, match="no buckets"):
        rate_chart([], "cam1")


def test_decode_refuses_what_is_no_picture():
    assert decode(pictures.encode(32, 16)).shape == (16, 32, 3)
    for data in (b"", b"noise"):
        with pytest.raises(WireError, match="no picture"):
            decode(data)
