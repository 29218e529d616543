"""Which pictures of a stream become JPEGs (``decode``), and which time stamps they get."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from engine.sources.decode_mode import DecodeMode
from engine.sources.decoder import Decoder
from engine.sources.video import VideoSource
from tests.stages.video_clips import FIRST, STEP, Seen, camera, clip, decoded, ffmpeg, psnr, see
from tests.system.clips import car_clip, person_clip

#: A JPEG of quality 98 is this close to its picture, in dB; two frames of the test picture are further apart.
DB_MIN = 35.0


def seen(path: Path, **options: object) -> Seen:
    return see(VideoSource(camera(path, quality=98, **options)))


def with_b_frames() -> Path:
    return clip("b.mp4", options=("-bf", "3", "-x264-params", "b-adapt=0:scenecut=0"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the decoder was sent: True for each key frame, False for each other packet."""
    sent: list[bool] = []
    decode = Decoder._decode

    def count(self: Decoder, packet):
        if packet is not None:
            sent.append(packet.is_keyframe)
        return decode(self, packet)

    monkeypatch.setattr(Decoder, "_decode", count)
    return sent


def same(found, wanted) -> None:
    assert len(found) == len(wanted)
    assert min(psnr(one, other) for one, other in zip(found, wanted, strict=True)) > DB_MIN


def test_neighbouring_pictures_of_the_clip_would_not_pass_for_each_other():
    pictures = decoded(clip("plain.mp4"))
    assert max(psnr(one, other) for one, other in pairwise(pictures)) < DB_MIN - 5


@pytest.mark.parametrize("decode", ["all", "auto"])
@pytest.mark.parametrize("name", ["mp4", "ts", "mkv"])
def test_each_picture_becomes_a_jpeg(decode, name):
    path = clip(f"plain.{name}")
    found = seen(path, decode=decode)
    same(found.pictures, decoded(path))
    assert not found.errors
    assert len(found.units) == 30


def test_without_b_frames_a_jpeg_has_the_stamp_of_its_access_unit():
    found = seen(clip("plain.mp4"))
    assert found.stamps == [FIRST + number * STEP for number in range(30)]
    assert found.places == list(range(30)), "and comes with it"


def test_with_b_frames_stamps_follow_the_order_in_which_pictures_are_shown():
    path = with_b_frames()
    found = seen(path)
    same(found.pictures, decoded(path))
    assert found.stamps == [FIRST + number * STEP for number in range(30)]
    delays = [FIRST + place * STEP - stamp for place, stamp in zip(found.places, found.stamps, strict=True)]
    assert max(delays) <= 4 * STEP
    assert found.places[-1] == 30, "the last ones come after the last packet"


@pytest.mark.parametrize("film", [car_clip, person_clip])
def test_real_clips(film):
    found = seen(film())
    wanted = decoded(film())
    assert len(found.pictures) == len(wanted)
    for number in range(0, len(wanted), 37):
        assert psnr(found.pictures[number], wanted[number]) > 35
    assert found.stamps == [FIRST + number * STEP for number in range(len(wanted))]


@pytest.mark.parametrize("make", [lambda: clip("plain.mp4"), with_b_frames, lambda: clip("plain.ts")])
def test_only_key_frames_are_decoded(calls, make):
    path = make()
    found = seen(path, decode="key")
    assert calls == [True] * 3
    keys = [number for number, unit in enumerate(found.units) if unit.keyframe]
    assert found.places == keys
    assert found.stamps == [FIRST + number * STEP for number in keys]
    same(found.pictures, decoded(path)[::10])


def test_a_key_frame_that_the_fps_limit_passes_over_is_not_decoded(calls):
    found = see(
        VideoSource(camera(clip("plain.mp4"), decode="key")),
        wanted=lambda stamp: stamp == FIRST + 10 * STEP,
    )
    assert calls == [True]
    assert found.stamps == [FIRST + 10 * STEP]


def test_nothing_is_decoded_where_no_jpegs_are_wanted(calls):
    source = VideoSource(camera(clip("plain.mp4"), decode="none", video=True))
    assert (source.decode, source.mode) == ("none", "")
    found = see(source)
    assert not calls
    assert not found.pictures
    assert len(found.units) == 30


def test_auto_decodes_only_key_frames_if_they_meet_the_fps_limit(calls):
    path = clip("minute.mp4", seconds=10, gop=10)
    source = VideoSource(camera(path, fps=1, quality=98))
    assert source.decode == "all"
    found = see(source)
    assert source.decode == "key"
    # All until three intervals between key frames were short enough, then the key frames of the rest.
    assert found.stamps == [FIRST + number * STEP for number in (*range(30), *range(30, 100, 10))]
    assert calls.count(False) == 27
    pictures = decoded(path)
    same(found.pictures, [pictures[(stamp - FIRST) // STEP] for stamp in found.stamps])


def test_auto_decodes_all_if_key_frames_are_too_few(calls):
    source = VideoSource(camera(clip("minute.mp4", seconds=10, gop=10), fps=2))
    found = see(source)
    assert source.decode == "all"
    assert len(found.pictures) == 100
    assert len(calls) == 100


@pytest.mark.parametrize("options", [("-bf", "0"), ("-bf", "2", "-x264-params", "scenecut=0")])
def test_auto_goes_back_when_key_frames_come_too_seldom(tmp_path, options):
    """As of a camera that saves key frames while nothing moves."""
    parts = [clip(f"dense{len(options)}.ts", seconds=6, gop=5, options=options)]
    parts += [clip(f"sparse{len(options)}.ts", seconds=8, gop=40, options=options)]
    path = tmp_path / "x.ts"
    ffmpeg("-i", f"concat:{parts[0]}|{parts[1]}", "-c", "copy", path)
    source = VideoSource(camera(path, fps=2, quality=98))
    found = see(source)
    assert source.decode == "all"
    keys = [number for number, unit in enumerate(found.units) if unit.keyframe]
    assert keys == [*range(0, 60, 5), 60, 100]
    # All up to the first three intervals; key frames up to the one that came too late; then all again.
    assert found.stamps == [FIRST + number * STEP for number in (*range(15), *range(15, 61, 5), *range(100, 140))]
    wanted = decoded(path)
    for picture, stamp in zip(found.pictures, found.stamps, strict=True):
        assert psnr(picture, wanted[(stamp - FIRST) // STEP]) > DB_MIN


def test_before_the_first_key_frame_nothing_is_decoded(calls, tmp_path):
    """As of a camera whose stream is joined in the middle of a GOP."""
    path = tmp_path / "x.ts"
    ffmpeg("-i", clip("plain.ts"), "-c", "copy", "-bsf:v", "noise=drop=lt(n\\,4)", path)
    found = seen(path)
    assert len(found.units) == 26
    assert [unit.keyframe for unit in found.units].index(True) == 6
    assert found.stamps[0] == FIRST + 6 * STEP
    assert calls[0]
    assert not found.errors


def test_a_file_that_loops_begins_with_its_first_picture_again():
    source = VideoSource(camera(with_b_frames(), loop=True, quality=98))
    found = see(source, packets_max=65)
    wanted = decoded(with_b_frames())
    same(found.pictures[:60], wanted + wanted)
    assert found.stamps == sorted(set(found.stamps))


INTERVAL = 10**9


@pytest.mark.parametrize("wanted", ["all", "key", "none"])
def test_a_fixed_choice_stays(wanted):
    mode = DecodeMode(wanted, 1.0)
    for number in range(20):
        mode.key_frame(number * INTERVAL // 10)
    assert mode.decode == wanted


def choices(fps: float | None, *moments: float) -> str:
    """The choices after key frames at these times in seconds, by their first letters."""
    mode = DecodeMode("auto", fps)
    found = ""
    for moment in moments:
        mode.key_frame(int(moment * INTERVAL))
        found += mode.decode[0]
    return found


@pytest.mark.parametrize(
    ("fps", "moments", "found"),
    [
        (None, (0, 1, 2, 3, 4), "aaaaa"),
        (1, (0, 1, 2, 3, 4), "aaakk"),
        (1, (0, 1.04, 2.03, 3.05, 4), "aaakk"),
        (1, (0, 2, 4, 6, 8), "aaaaa"),
        (0.5, (0, 2, 4, 6, 8), "aaakk"),
        # A long interval among short ones: the count begins anew; one that is a bit too long changes nothing.
        (1, (0, 1, 2, 4, 5, 6, 7), "aaaaaak"),
        (1, (0, 1, 2, 3, 4.3, 5), "aaakkk"),
        (1, (0, 1, 2, 3, 5, 6, 7, 8), "aaakaaak"),
        # Times that begin anew, or stand still, tell nothing.
        (1, (100, 101, 102, 0, 1, 2), "aaaaka"[:4] + "kk"),
        (1, (5, 5, 5, 5, 5), "aaaaa"),
    ],
)
def test_the_choice_follows_the_intervals(fps, moments, found):
    assert choices(fps, *moments) == found
