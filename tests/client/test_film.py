"""Films of stored frames: what players find in the files, and what happens where they cannot be written."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.client.film import Film
from engine.client.frame import Frame
from engine.client.picture import decode
from engine.errors import InputError, WireError
from engine.wire.rfc3339 import parse_rfc3339
from tests.wire import pictures

BEGIN = parse_rfc3339("2024-11-08T14:30:00.123456789Z")
MILLISECOND = 10**6
#: 150 frames of a camera that sends 15 a second, none on the dot; milliseconds.
SHAKY = [round(number * 1000 / 15 + (number * 7 % 11)) for number in range(150)]
#: Milliseconds of the frames of films.
TIMES = {
    "shaky": SHAKY,
    "even": [40 * number for number in range(100)],
    "one": [0],
    "two": [0, 250],
    "hour": [0, 67, 133, 200, 3_600_200, 3_600_267, 3_600_333],
    "days": [0, 100, 200, 20 * 86_400_000, 20 * 86_400_000 + 100],
}


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


@pytest.mark.parametrize("limit", [100, 5_000, 100_000, 1_000_000])
def test_a_film_that_the_disk_cannot_hold_is_an_os_error(limit, tmp_path):
    """However much fits: not even the head, no frame, some of them."""
    script = f"""
import resource, sys
sys.path[:0] = ["."]
from tests.client.test_film import *
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
    assert message == "File too large"
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


class TestTimes:
    """What the container says of times, as players read it."""

    @pytest.fixture(params=TIMES)
    def film(self, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[int]]:
        offsets = TIMES[request.param]
        write(tmp_path / "a.mp4", *(frame(offset, seed=number) for number, offset in enumerate(offsets)))
        return tmp_path / "a.mp4", offsets

    def test_ffprobe_reads_each_frame_s_time_and_duration(self, film):
        path, offsets = film
        shown = probe(path)
        (stream,) = shown["streams"]
        assert int(stream["nb_frames"]) == len(offsets) == len(shown["packets"])
        assert [milliseconds(packet["pts_time"]) for packet in shown["packets"]] == offsets
        assert [milliseconds(packet["duration_time"]) for packet in shown["packets"]] == durations(offsets)
        total = offsets[-1] + durations(offsets)[-1]
        assert milliseconds(stream["duration"]) == milliseconds(shown["format"]["duration"]) == total
        assert Fraction(stream["avg_frame_rate"]) == pytest.approx(Fraction(1000 * len(offsets), total), rel=1e-3)

    def test_pyav_reads_the_same(self, film):
        path, offsets = film
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            read = [packet for packet in container.demux(stream) if packet.size]
            assert stream.frames == len(offsets)
            assert [packet.pts * stream.time_base * 1000 for packet in read] == offsets
            assert [packet.duration * stream.time_base * 1000 for packet in read] == durations(offsets)
            assert all(packet.is_keyframe for packet in read)

    def test_ffmpeg_makes_of_it_as_many_frames_as_it_has(self, film, tmp_path):
        path, offsets = film
        assert count_frames(path, "-f", "null", "-") == len(offsets)

    def test_ffmpeg_keeps_the_rate_of_a_camera(self, tmp_path):
        """A converter that wants an even rate makes about the camera's of it, not a thousand a second."""
        write(tmp_path / "a.mp4", *(frame(offset, seed=offset) for offset in SHAKY))
        assert count_frames(tmp_path / "a.mp4", tmp_path / "b.mp4") == pytest.approx(150, abs=1)
        assert count_frames(tmp_path / "a.mp4", "-vsync", "cfr", tmp_path / "c.mp4") < 200


def durations(offsets: list[int]) -> list[int]:
    """How long each frame is shown, in milliseconds: until the next; the last as long as most."""
    shown = [after - before for before, after in itertools.pairwise(offsets)]
    return [*shown, statistics.median_low(shown) if shown else 1000]


def milliseconds(seconds: str) -> int:
    assert Fraction(seconds) * 1000 % 1 == 0
    return int(Fraction(seconds) * 1000)


def probe(path: Path) -> dict[str, Any]:
    """All that ffprobe sees in a film."""
    words = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_packets", "-show_format", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def count_frames(path: Path, *output: object) -> int:
    """How many frames ffmpeg writes to an output."""
    words = ["ffmpeg", "-v", "error", "-progress", "-", "-i", str(path), *map(str, output)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return int([line for line in done.stdout.splitlines() if line.startswith("frame=")][-1].partition("=")[2])


def test_frames_too_far_apart_for_a_film_are_one_error(tmp_path):
    with Film(tmp_path / "a.mp4") as film:
        film.add(frame(0))
        film.add(frame(40))
        with pytest.raises(InputError, match=r"comes 25\.0 days after .* 24 days at most; export the two sides apart"):
            film.add(frame(40 + 25 * 86_400_000))
    assert len(packets(tmp_path / "a.mp4")) == 2


def test_what_a_film_holds_in_memory_does_not_grow_with_it(tmp_path):
    """But for its table, which MP4 keeps at the end: some hundred bytes a frame."""
    script = f"""
import sys
sys.path[:0] = ["."]
from tests.client.test_film import *
def own_kb():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_"))
data = frame(0).data + bytes(50_000)
with Film({str(tmp_path / "a.mp4")!r}) as film:
    for number in range(500):
        film.add(frame(40 * number, data=data))
    before = own_kb()
    for number in range(500, 6000):
        film.add(frame(40 * number, data=data))
    print(own_kb() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 5500 * 400 / 1024, "of 270 MB"


def test_only_who_writes_a_film_loads_pyav():
    """It is large, and brings a second FFmpeg."""
    script = "import sys; import engine.cli.app, engine.client.picture; print('av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
