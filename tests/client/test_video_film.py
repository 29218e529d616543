"""Films of access units: what players find in files and in fragments, and what happens where they cannot be written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from engine.client.hvc1 import tag_hvc1
from engine.client.video import VideoUnit
from engine.client.video_film import VideoFilm, fragments
from engine.errors import InputError, WireError
from tests.client.stocked import PREFIX, VHOST
from tests.client.stored_video import (
    CAR,
    PERSON,
    Clip,
    StoredUnit,
    arrivals,
    clip,
    decoded,
    dropped,
    encoded,
    joined,
    psnr,
)

CLIPS: dict[str, Callable[[], Clip]] = {
    "B-frames": lambda: clip(PERSON, 200),
    "Baseline": lambda: clip(CAR, 130),
    "H.265": lambda: encoded("h265", bframes=3),
    "H.265, open GOPs": lambda: encoded("h265", bframes=4, gop=12, params="open-gop=1"),
    "B-frames of B-frames": lambda: encoded("h264", bframes=7, params="b-pyramid=normal:b-adapt=0"),
    "one picture": lambda: clip(CAR, 1),
}


def unit(stored: StoredUnit) -> VideoUnit:
    camera, unix_nano, sequence, offset_us, raw, encoding, width, height, _ = stored
    size = len(raw.data)
    return VideoUnit(
        VHOST, PREFIX, camera, unix_nano, sequence, size, width, height, encoding, raw.keyframe, offset_us, raw.data
    )


def write_file(path: Path, units: list[VideoUnit]) -> int:
    """The number of units that were left out."""
    with VideoFilm(path) as film:
        for one in units:
            film.add(one)
    return film.track.skipped


def write_fragments(path: Path, units: list[VideoUnit]) -> int:
    path.write_bytes(b"".join(fragments(units)))
    return -1


def probe(path: Path, *entries: str) -> dict[str, Any]:
    """What ffprobe sees; it must not complain."""
    words = ["ffprobe", "-v", "warning", "-of", "json", "-show_streams", "-show_packets", "-show_format", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def boxes(data: bytes) -> list[str]:
    """The kinds of the boxes of an MP4, in order."""
    found, at = [], 0
    while at < len(data):
        found.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4]) or len(data)
    return found


@pytest.fixture(params=["file", "fragments"])
def write(request: pytest.FixtureRequest) -> Callable[[Path, list[VideoUnit]], int]:
    return write_file if request.param == "file" else write_fragments


@pytest.fixture(params=CLIPS)
def source(request: pytest.FixtureRequest) -> Clip:
    return CLIPS[request.param]()


def test_a_film_shows_each_picture_at_its_own_time(tmp_path, write, source):
    write(tmp_path / "a.mp4", [unit(one) for one in arrivals(source)])
    wanted = decoded(source)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [(frame.time, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
    assert [round(seconds * 10_000) for seconds, _ in frames] == [shown.shown_us // 100 for shown in wanted]
    for (_, image), shown in zip(frames, wanted, strict=True):
        assert psnr(image, shown.image) > 50


def test_ffprobe_finds_what_players_need(tmp_path, write, source):
    write(tmp_path / "a.mp4", [unit(one) for one in arrivals(source)])
    found = probe(tmp_path / "a.mp4")
    (stream,) = found["streams"]
    assert (stream["codec_name"], stream["codec_tag_string"]) == {
        "h264": ("h264", "avc1"),
        "h265": ("hevc", "hvc1"),
    }[source.encoding]
    assert (stream["width"], stream["height"]) == (source.width, source.height)
    assert float(stream["start_time"]) == 0
    assert stream["tags"]["creation_time"] == "2024-11-08T00:00:00.000000Z"
    assert stream["extradata_size"] > 20
    packets = found["packets"]
    assert [int(packet["size"]) >= len(one.data) - 8 for packet, one in zip(packets, source.units, strict=True)]
    keys = [number for number, packet in enumerate(packets) if packet["flags"].startswith("K")]
    assert keys == [number for number, one in enumerate(source.units) if one.keyframe]
    seconds = (max(one.shown_us for one in source.units) + source.interval_us) / 1e6
    assert float(stream["duration"]) == pytest.approx(seconds if len(packets) > 1 else 1.0, abs=0.001)


def test_the_payload_is_what_was_stored(tmp_path):
    """But for start codes, in whose place the length of each NAL unit stands."""
    units = [unit(one) for one in arrivals(clip(CAR, 20))]
    write_file(tmp_path / "a.mp4", units)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.extradata is not None
        assert stream.codec_context.extradata[0] == 1, "avcC"
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    for packet, one in zip(packets, units, strict=True):
        nals, at = [], 0
        while at < len(packet):
            size = int.from_bytes(packet[at : at + 4])
            nals.append(packet[at + 4 : at + 4 + size])
            at += 4 + size
        assert nals == [nal.rstrip(b"\0") for nal in one.data.split(b"\0\0\1")[1:]]


def test_a_gap_is_shown_as_long_as_it_was(tmp_path, write):
    source = clip(PERSON, 60)
    stored = dropped(arrivals(source), *range(23, 30))
    write(tmp_path / "a.mp4", [unit(one) for one in stored])
    packets = probe(tmp_path / "a.mp4")["packets"]
    times = sorted(round(float(packet["pts_time"]) * 10**6) for packet in packets)
    assert times == sorted(one.unit.shown_us for one in stored)


def test_what_does_not_decode_is_left_out(tmp_path):
    source = clip(CAR, 130)
    units = [unit(one) for one in dropped(arrivals(source), 0, 70)]
    assert write_file(tmp_path / "a.mp4", units) == 59 + 49
    packets = probe(tmp_path / "a.mp4")["packets"]
    assert len(packets) == 10 + 10
    assert float(packets[10]["pts_time"]) == pytest.approx(60 * 0.08)


def test_jitter_of_the_network_does_not_show(tmp_path, write):
    """Units arrive in bursts, up to a second late."""
    source = clip(PERSON, 100)
    stored = arrivals(source, jitter=lambda number: (9 - number % 10) * 100_000_000)
    write(tmp_path / "a.mp4", [unit(one) for one in stored])
    packets = probe(tmp_path / "a.mp4")["packets"]
    times = [round(float(packet["pts_time"]) * 10**6) for packet in packets]
    assert times == [one.unit.shown_us for one in stored]
    decode_times = [int(packet["dts"]) for packet in packets]
    assert decode_times == sorted(set(decode_times))


def test_the_header_of_fragments_comes_first_and_then_one_for_each_gop():
    units = [unit(one) for one in arrivals(clip(PERSON, 100))]
    pieces = list(fragments(units))
    assert boxes(pieces[0]) == ["ftyp", "moov", "moof", "mdat"]
    assert all(boxes(piece) == ["moof", "mdat"] for piece in pieces[1:-1])
    assert boxes(pieces[-1]) == ["moof", "mdat", "mfra"]
    assert len(pieces) == 10


def test_fragments_come_as_units_do():
    """Of endless units, for an answer that is written while the camera sends."""
    source = clip(PERSON, 200)
    given = 0

    def units() -> Iterator[VideoUnit]:
        nonlocal given
        for one in arrivals(source):
            given += 1
            yield unit(one)

    pieces = fragments(units())
    next(pieces)
    first = given
    next(pieces)
    assert given <= first + 10
    pieces.close()


def test_a_gop_without_end_is_cut_into_fragments():
    source = encoded("h264", frames=300, gop=1000, fps=5)
    pieces = list(fragments(unit(one) for one in arrivals(source)))
    assert len(pieces) == 6


def test_a_change_of_size_is_an_error_and_ends_fragments(tmp_path):
    units = [unit(one) for one in joined(clip(CAR, 20), encoded("h264"))]
    with pytest.raises(InputError, match="changes from 768x432 h264 to 320x240 h264"):
        write_file(tmp_path / "a.mp4", units)
    with pytest.raises(InputError, match="changes from 768x432 h264 to 320x240 h264"):
        list(fragments(units))


def test_no_units_no_film(tmp_path):
    assert write_file(tmp_path / "a.mp4", []) == 0
    assert list(fragments([])) == []
    late = [unit(one) for one in arrivals(clip(CAR, 20))[1:]]
    assert write_file(tmp_path / "a.mp4", late) == 19
    assert list(fragments(late)) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["rtsp:cam%201 (x).mp4", "câmara.MP4", "%05d.mp4"])
def test_any_name_is_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_file(Path(name), [unit(one) for one in arrivals(encoded("h265"))])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(probe(tmp_path / name)["packets"]) == 40


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path):
    units = [unit(one) for one in arrivals(clip(CAR, 130))]
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "none" / "a.mp4", units)
    with pytest.raises(OSError, match="No space left"):
        write_file(Path("/dev/full"), units)


@pytest.mark.parametrize("limit", [100, 5_000, 300_000, 3_000_000])
def test_a_film_that_the_disk_cannot_hold_is_an_os_error(limit, tmp_path):
    """However much fits."""
    script = f"""
import resource, sys
sys.path[:0] = ["."]
import msgspec
from tests.client.test_video_film import *
units = [unit(one) for one in arrivals(clip(CAR, 377))]
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
film = VideoFilm({str(tmp_path / "a.mp4")!r})
try:
    with film:
        for turn in range(4):
            for one in units:
                moved = one.unix_nano + turn * 40 * 10**9
                film.add(msgspec.structs.replace(one, unix_nano=moved, sequence=one.sequence + turn * 377))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("File too large\n", "")


def test_an_error_inside_closes_the_film_and_passes(tmp_path):
    units = [unit(one) for one in arrivals(clip(CAR, 130))]
    with pytest.raises(WireError, match="told"), VideoFilm(tmp_path / "a.mp4") as film:
        fill_and_fail(film, units)
    opened = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not any(link.endswith("a.mp4") for link in opened)


def fill_and_fail(film: VideoFilm, units: list[VideoUnit]) -> None:
    for one in units:
        film.add(one)
    raise WireError("as it was told")


def test_nothing_is_printed(tmp_path, capfd):
    write_file(tmp_path / "a.mp4", [unit(one) for one in arrivals(encoded("h265"))])
    list(fragments([unit(one) for one in arrivals(encoded("h265"))]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("what", ["file", "fragments"])
def test_what_a_film_holds_in_memory_does_not_grow_with_it(what, tmp_path):
    """But for a file's table, which MP4 keeps at the end: some hundred bytes a unit. 120 MB pass through."""
    script = f"""
import sys
sys.path[:0] = ["."]
import msgspec
from tests.client.stocked import T0
from tests.client.test_video_film import *
def own_kb():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_"))
def long():
    source = [unit(one) for one in arrivals(clip(CAR, 377))]
    for turn in range(50):
        for number, one in enumerate(source, turn * 377):
            moved = T0 + number * 80_000_000
            yield msgspec.structs.replace(one, unix_nano=moved, offset_us=0, sequence=number % 99_999 + 1)
            if number == 377 * 4:
                print(own_kb())
if {what!r} == "file":
    write_file(Path({str(tmp_path / "a.mp4")!r}), long())
else:
    print(sum(map(len, fragments(long()))))
print(own_kb())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    before, *_, after = map(int, done.stdout.split())
    assert after - before < 50 * 377 * 300 / 1024


def test_hvc1_of_anything_is_no_error():
    assert tag_hvc1(b"") == b""
    assert tag_hvc1(b"stsd hev1 but no record") == b"stsd hev1 but no record"


@pytest.mark.slow
def test_an_export_costs_less_than_a_twentieth_of_decoding_and_encoding():
    source = clip(PERSON, 600)
    units = [unit(one) for one in arrivals(source)]
    begun = time.process_time()
    assert len(b"".join(fragments(units))) > sum(len(one.data) for one in units)
    muxed = time.process_time() - begun
    begun = time.process_time()
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = (
        source.width,
        source.height,
        "yuv420p",
        Fraction(1, 10),
    )
    encoder.options = {"preset": "ultrafast"}
    decoder: Any = av.CodecContext.create("h264", "r")
    for one in units[:100]:
        for frame in decoder.decode(av.Packet(one.data)):
            encoder.encode(frame)
    transcoded = (time.process_time() - begun) * 6
    assert muxed < transcoded / 20


def test_damaged_parameter_sets_are_an_error_before_the_muxer_reads_them() -> None:
    """FFmpeg's muxer takes hours over these: a number of reference pictures that no bound holds."""
    sets = bytes.fromhex(
        "0000000140010c01ffff01600000030090000003000003001e95900900000001420101016000000300900000030000"
        "03001ea020831659590e4cae68080000030008000003005040000000014401c173d089"
    )
    data = sets + b"\0\0\0\1\x26\1" + bytes(range(1, 200))
    unit = VideoUnit("v", "frames", "cam1", 10**18, 1, len(data), 64, 48, "h265", True, 0, data)
    with pytest.raises(InputError, match="parameter sets"):
        list(fragments([unit]))
