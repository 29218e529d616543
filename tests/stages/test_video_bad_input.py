"""Streams of H.264 and H.265 that change, lack something, or are damaged: what is taken of them is right, and what is
not is an error that says so."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.errors import CameraUnavailable
from engine.sources.video import VideoSource
from tests.faults.streams import StreamCamera
from tests.stages import field_pictures
from tests.stages.video_clips import (
    FIRST,
    STEP,
    Seen,
    camera,
    clip,
    decoded,
    directory,
    ffmpeg,
    joined,
    nal_type,
    nal_units,
    packets,
    picture_units,
    psnr,
    see,
)
from tests.stages.video_rtsp import Picture, ScriptedCamera

DB_MIN = 35.0
FPS = 10


def seen(url: str | Path, packets_max: int = 10**6, **options: object) -> Seen:
    options = {"quality": 98, "open_timeout_seconds": 5.0, "stall_seconds": 2.0, **options}
    return see(VideoSource(camera(url, **options)), packets_max)


def script(path: Path, *, bare: bool = False, encoding: str = "h264") -> list[Picture]:
    """A clip's pictures as a camera sends them; ``bare`` without parameter sets."""
    units = [picture_units(data, encoding) if bare else nal_units(data) for data in packets(path)]
    return [Picture(each, 100 + number / FPS) for number, each in enumerate(units)]


def parameter_sets(path: Path, encoding: str = "h264") -> list[bytes]:
    first = packets(path)[0]
    wanted = {"h264": (7, 8), "h265": (32, 33, 34)}[encoding]
    return [unit for unit in nal_units(first) if nal_type(unit, encoding) in wanted]


def joined_clips(name: str, *parts: Path) -> Path:
    """Clips one after the other in a transport stream, as they are."""
    path = directory() / name
    ffmpeg("-i", "concat:" + "|".join(map(str, parts)), "-c", "copy", path)
    return path


def close(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
    assert len(found) == len(wanted)
    assert min(psnr(one, other) for one, other in zip(found, wanted, strict=True)) > DB_MIN


# What a stream may be like.


@pytest.mark.parametrize("decode", ["all", "key"])
def test_the_resolution_changes(decode):
    small, large = clip("small.ts"), clip("large.ts", size="640x480", seconds=2)
    found = seen(joined_clips("resized.ts", small, large, small), decode=decode)
    sizes = [(unit.width, unit.height) for unit in found.units]
    assert sizes == [(320, 240)] * 30 + [(640, 480)] * 20 + [(320, 240)] * 30
    assert all(unit.sound for unit in found.units)
    assert not found.errors
    step = 1 if decode == "all" else 10
    close(found.pictures[: 30 // step], decoded(small)[::step])
    close(found.pictures[30 // step : 50 // step], decoded(large)[::step])
    close(found.pictures[50 // step :], decoded(small)[::step])


def test_the_profile_changes():
    baseline = clip("baseline.ts", options=("-profile:v", "baseline"))
    high = clip("high.ts", options=("-profile:v", "high", "-bf", "2"))
    found = seen(joined_clips("profiles.ts", baseline, high))
    close(found.pictures, decoded(baseline) + decoded(high))
    assert found.stamps == sorted(set(found.stamps))
    assert not found.errors


def test_resized_jpegs_have_their_size_across_a_change():
    changing = joined_clips("resized2.ts", clip("small.ts"), clip("large.ts", size="640x480", seconds=2))
    found = seen(changing, width=160, height=120)
    assert {picture.shape for picture in found.pictures} == {(120, 160)}
    assert len(found.pictures) == 50


@pytest.mark.parametrize("codec", ["mpeg4", "libx265"])
def test_another_codec_ends_the_connection(codec):
    """A transport stream may say so, but the decoder was chosen at its beginning. The next connection begins anew."""
    changing = directory() / f"then-{codec}.ts"
    other = clip(f"{codec}.ts", codec=codec, seconds=20)
    changing.write_bytes(clip("small.ts").read_bytes() + other.read_bytes())
    source = VideoSource(camera(changing))
    source._pacer = None

    def read_all() -> None:
        while True:
            source.grab()

    with pytest.raises(CameraUnavailable, match="64 damaged packets in a row"):
        read_all()
    source.close()


@pytest.mark.parametrize("encoding", ["h264", "h265"])
@pytest.mark.parametrize("where", ["sdp", "band", "both"])
def test_parameter_sets_anywhere(encoding, where):
    path = clip(
        f"{encoding}.mp4",
        codec={"h264": "libx264", "h265": "libx265"}[encoding],
        options=("-bf", "0") if encoding == "h264" else ("-x265-params", "log-level=error:bframes=0:info=0"),
    )
    pictures = script(path, bare=where == "sdp", encoding=encoding)
    if where != "sdp":
        sets = parameter_sets(path, encoding)
        pictures[0] = pictures[0]._replace(units=[*sets, *picture_units(packets(path)[0], encoding)])
    announced = parameter_sets(path, encoding) if where != "band" else []
    with ScriptedCamera(pictures, encoding=encoding, announced=announced) as server:
        found = seen(server.url)
    # FFmpeg hands a picture out when the next one begins.
    assert len(found.units) >= 29
    for unit, data in zip(found.units, packets(path), strict=False):
        assert picture_units(joined(unit), encoding) == picture_units(data, encoding)
        assert unit.sound
        assert (unit.width, unit.height, unit.encoding) == (320, 240, encoding)
        if unit.keyframe:
            assert set(parameter_sets(path, encoding)) <= set(nal_units(joined(unit)))
    assert [number for number, unit in enumerate(found.units) if unit.keyframe] == [0, 10, 20]
    close(found.pictures, decoded(path)[: len(found.pictures)])
    assert len(found.pictures) >= 28


def test_without_parameter_sets_there_is_no_key_frame():
    with ScriptedCamera(script(clip("h264.mp4"), bare=True)) as server:
        found = seen(server.url)
    assert any(unit.lacks_sets for unit in found.units)
    assert not any(unit.keyframe for unit in found.units)
    assert not found.pictures


@pytest.mark.parametrize("way", ["rtsp", "http"])
def test_a_stream_without_key_frames_opens(way, tmp_path):
    """Within its time to open, although FFmpeg cannot tell what its pictures are like."""
    path = clip("seldom.ts", seconds=12, gop=200)
    if way == "rtsp":
        with ScriptedCamera(script(path)[3:20]) as server:
            found = seen(server.url, 12)
    else:
        keyless = tmp_path / "keyless.ts"
        ffmpeg("-i", path, "-c", "copy", "-bsf:v", "noise=drop=lt(n\\,3)", keyless)
        with StreamCamera(keyless.read_bytes, 12) as server:
            found = seen(server.url, 12, open_timeout_seconds=6.0)
    assert len(found.units) == 12
    assert not any(unit.keyframe for unit in found.units)
    assert all(unit.sound for unit in found.units)
    assert not found.pictures
    assert not found.errors


@pytest.mark.parametrize("options", [("slices=4",), ("slices=4:aud=1:nal-hrd=vbr:vbv-maxrate=800:vbv-bufsize=800",)])
@pytest.mark.parametrize("way", ["mp4", "ts", "rtsp"])
def test_several_slices_and_messages_a_picture(options, way):
    name = f"slices{len(options[0])}"
    path = clip(f"{name}.mp4", options=("-bf", "0", "-x264-params", *options))
    if way == "rtsp":
        pictures = [each._replace(units=[*each.units[:1], *each.units[1:]]) for each in script(path)]
        with ScriptedCamera(pictures) as server:
            found = seen(server.url)
    else:
        path = clip(f"{name}.{way}", options=("-bf", "0", "-x264-params", *options))
        found = seen(path)
    assert len(found.units) >= 29
    for unit, data in zip(found.units, packets(path), strict=False):
        assert picture_units(joined(unit)) == picture_units(data)
        assert sum(nal_type(each) in (1, 5) for each in nal_units(joined(unit))) == 4
    close(found.pictures, decoded(path)[: len(found.pictures)])


@pytest.mark.parametrize("way", ["mp4", "rtsp"])
def test_access_units_of_four_megabytes(way):
    """Noise, coded without loss."""
    path = directory() / "huge.mp4"
    if not path.exists():
        noise = "color=gray:size=1920x1080:rate=10,noise=alls=100:allf=t:all_seed=1"
        ffmpeg(
            "-f", "lavfi", "-i", noise, "-frames:v", "3", "-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", path
        )
    wanted = packets(path)
    assert min(map(len, wanted)) > 4 * 2**20
    if way == "rtsp":
        with ScriptedCamera([*script(path), *script(path)[:1]]) as server:
            found = seen(server.url, decode="none", video=True)
    else:
        found = seen(path, decode="none", video=True)
    assert [picture_units(joined(unit)) for unit in found.units[:3]] == [picture_units(data) for data in wanted]
    assert all(unit.sound for unit in found.units)


def test_two_fields_in_one_unit():
    """Interlaced pictures whose macroblocks choose: one unit a picture."""
    path = clip("interlaced.mp4", size="320x256", options=("-flags", "+ildct+ilme", "-x264-params", "tff=1:bframes=0"))
    for decode, step in (("all", 1), ("key", 10)):
        found = seen(path, decode=decode)
        close(found.pictures, decoded(path)[::step])
        assert len(found.units) == 30
        assert not any(unit.field for unit in found.units)


def fields(pairs: int = 20) -> list[list[bytes]]:
    return [units for pair in field_pictures.pictures(pairs, 4) for units in pair]


@pytest.mark.parametrize("way", ["file", "rtsp"])
@pytest.mark.parametrize("decode", ["all", "key"])
def test_two_fields_in_units_of_their_own(way, decode, tmp_path):
    """A key frame is decoded with its second field."""
    if way == "file":
        path = tmp_path / "fields.h264"
        path.write_bytes(b"".join(b"\0\0\0\1" + unit for field in fields() for unit in field))
        found = seen(path, decode=decode)
    else:
        pictures = [Picture(units, 100 + number // 2 / FPS) for number, units in enumerate(fields())]
        with ScriptedCamera(pictures) as server:
            found = seen(server.url, decode=decode)
    assert len(found.units) >= 39
    assert [number for number, unit in enumerate(found.units) if unit.keyframe] == list(range(0, 40, 8))
    assert all(unit.field == unit.keyframe and unit.sound for unit in found.units)
    assert all((unit.width, unit.height) == field_pictures.SIZE for unit in found.units)
    assert not found.errors
    values = [(60, 120, 180)[number // 4 % 3] for number in range(20)]
    if decode == "key":
        values = values[::4]
        assert found.stamps == [FIRST + number * STEP for number in range(0, 40, 8)]
    brightness = [picture.mean() for picture in found.pictures]
    expected = [(value - 16) * 255 / 219 for value in values]
    assert brightness == pytest.approx(expected[: len(brightness)], abs=2)
    assert len(brightness) >= len(values) - 1
    assert found.stamps == sorted(set(found.stamps))
    lag = [FIRST + place * STEP - stamp for place, stamp in zip(found.places, found.stamps, strict=True)]
    assert max(lag) <= 4 * STEP


# Times.


def timed(times: Sequence[float], *, encoding: str = "h264") -> Seen:
    """A clip without B-frames whose pictures state these times in seconds."""
    pictures = script(clip("h264.mp4"))
    pictures = [each._replace(time=time) for each, time in zip(pictures, times, strict=False)]
    with ScriptedCamera(pictures, announced=parameter_sets(clip("h264.mp4"))) as server:
        return seen(server.url)


@pytest.mark.parametrize(
    "times",
    [
        [number / FPS + (0 if number < 15 else 3600) for number in range(30)],
        [1000 + number / FPS - (0 if number < 15 else 500) for number in range(30)],
        [1000 + number / FPS - (0 if number < 15 else 0.5) for number in range(30)],
        [5.0] * 30,
        [random.Random(7).uniform(0, 47_000) for _ in range(30)],
    ],
    ids=["forward", "back", "back a little", "standing still", "random"],
)
def test_times_that_are_no_help(times):
    found = timed(times)
    assert len(found.pictures) >= 28
    assert not found.errors
    assert found.stamps == [FIRST + number * STEP for number in range(len(found.stamps))]
    close(found.pictures, decoded(clip("h264.mp4"))[: len(found.pictures)])


@pytest.mark.parametrize("container", ["h264", "avi"])
def test_times_that_are_missing(container):
    path = clip(f"timeless.{container}", options=("-bf", "2", "-x264-params", "scenecut=0"))
    found = seen(path)
    close(found.pictures, decoded(path))
    assert found.stamps == sorted(set(found.stamps))
    assert len(found.units) == 30


# Other streams beside the video.


def test_audio_that_a_camera_offers_first_is_not_asked_for():
    with ScriptedCamera(script(clip("h264.mp4")), audio_first=True) as server:
        found = seen(server.url)
        setups = [request for request in server.requests if request.startswith("SETUP")]
    assert len(setups) == 1
    assert "video" in setups[0]
    assert len(found.units) >= 29
    assert all(unit.encoding == "h264" for unit in found.units)


@pytest.mark.parametrize("container", ["mp4", "ts", "mkv"])
def test_audio_in_a_file_is_passed_over(container):
    path = directory() / f"sound.{container}"
    sound = ["-f", "lavfi", "-i", "sine=duration=3"]
    ffmpeg(*sound, "-i", clip("h264.mp4"), "-map", "0:a", "-map", "1:v", "-c:v", "copy", "-c:a", "aac", path)
    found = seen(path)
    assert len(found.units) == 30
    close(found.pictures, decoded(clip("h264.mp4")))


def test_a_file_of_sound_has_no_video():
    path = directory() / "sound.m4a"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path)
    with pytest.raises(CameraUnavailable, match="is not a video that can be read"):
        VideoSource(camera(path))


def test_a_picture_of_the_album_is_no_video():
    path, cover = directory() / "album.m4a", directory() / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=red:size=64x64", "-frames:v", "1", cover)
    ffmpeg(
        *("-f", "lavfi", "-i", "sine=duration=1", "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy"),
        *("-disposition:v", "attached_pic", path),
    )
    with pytest.raises(CameraUnavailable, match="is not a video that can be read"):
        VideoSource(camera(path))


# Damage.


def with_lengths(path: Path, change: dict[int, int]) -> Path:
    """A copy of an MP4 file in which the first length of these samples is another."""
    import av

    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for number, packet in enumerate(container.demux(container.streams.video[0])):
            if number in change and packet.size:
                data[packet.pos : packet.pos + 4] = change[number].to_bytes(4)
    copy = directory() / f"damaged{len(change)}.mp4"
    copy.write_bytes(data)
    return copy


def test_nal_units_that_cannot_be_make_a_unit_that_is_not_sound():
    found = seen(with_lengths(clip("h264.mp4"), {5: 0, 12: 2**31, 17: 1}))
    assert [number for number, unit in enumerate(found.units) if not unit.sound] == [5, 12, 17]
    assert len(found.units) == 30
    # What follows the next key frame is as it should be.
    wanted = decoded(clip("h264.mp4"))
    by_stamp = dict(zip(found.stamps, found.pictures, strict=True))
    for number in (*range(5), *range(10, 12), *range(20, 30)):
        assert psnr(by_stamp[FIRST + number * STEP], wanted[number]) > DB_MIN


def test_a_first_slice_that_is_lost_makes_a_unit_that_is_not_sound():
    pictures = script(clip("slices8.mp4", options=("-bf", "0", "-x264-params", "slices=4")))
    for number in (5, 12):
        slices = [unit for unit in pictures[number].units if nal_type(unit) == 1]
        pictures[number] = pictures[number]._replace(units=slices[1:])
    with ScriptedCamera(pictures) as server:
        found = seen(server.url)
    assert [number for number, unit in enumerate(found.units) if not unit.sound] == [5, 12]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("form", ["mp4", "ts", "h265.ts"])
def test_noise_in_a_file_is_survived(form, seed, tmp_path):
    codec = "libx265" if "265" in form else "libx264"
    options = ("-x265-params", "log-level=error") if "265" in form else ("-bf", "2")
    path = clip(f"noisy.{form}", codec=codec, options=options)
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(40):
        data[chance.randrange(len(data))] = chance.randrange(256)
    noisy = tmp_path / f"noisy.{form}"
    noisy.write_bytes(data)
    try:
        found = seen(noisy, decode=chance.choice(["all", "key"]))
    except CameraUnavailable:
        return
    assert found.stamps == sorted(set(found.stamps))
    assert all(unit.keyframe <= unit.sound for unit in found.units)


def test_a_key_frame_of_which_parts_are_missing_is_an_error_and_the_next_one_is_not():
    pictures = script(clip("h264.mp4"), bare=True)
    first = pictures[10].units[-1]
    # Its header, and then nothing that a decoder could use.
    pictures[10] = pictures[10]._replace(units=[first[:8] + b"\xff" * 8])
    with ScriptedCamera(pictures, announced=parameter_sets(clip("h264.mp4"))) as server:
        found = seen(server.url, decode="key")
    assert len(found.pictures) == 2
    assert found.errors == ["the key frame is damaged"]


def test_messages_never_show_what_ffmpeg_says():
    """It may quote the URL."""
    with pytest.raises(CameraUnavailable) as caught:
        VideoSource(camera("rtsp://admin:geheim@127.0.0.1:1/x", open_timeout_seconds=1.0))
    assert re.fullmatch(r"rtsp://\*\*\*@127\.0\.0\.1:1/x sent no video within \d\.\d s", str(caught.value))
