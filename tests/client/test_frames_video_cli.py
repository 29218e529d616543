"""``edge-video frames`` on video: as people and programs call it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import redis

from engine.wire.rfc3339 import rfc3339
from tests.client.stocked import T0, VHOST, Stored, row, stock
from tests.client.stored_video import (
    CAR,
    PERSON,
    StoredUnit,
    arrivals,
    clip,
    decoded,
    dropped,
    encoded,
    joined,
    psnr,
    stock_video,
)
from tests.client.test_video_film import probe
from tests.servers.cluster_client import AnyServer
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, command
from tests.wire import pictures as jpegs

Frames = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def frames(shared_redis: AnyServer, client: redis.Redis) -> Frames:
    """Runs ``frames`` on the shared Redis."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = ["frames", *map(str, arguments), "--redis", shared_redis.address, "--vhost", VHOST]
        done = command(*words)
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def units(client: redis.Redis) -> list[StoredUnit]:
    units = arrivals(clip(PERSON, 60))
    stock_video(client, units)
    return units


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_list_shows_units_and_which_are_key_frames(frames, units):
    rows = objects(frames("list", "cam1", "--video", "--json"))
    assert [one["key"] for one in rows] == [one.key() for one in units]
    assert rows[1] == {
        "key": units[1].key(),
        "camera": "cam1",
        "time": rfc3339(units[1].unix_nano),
        "timestamp_nano": units[1].unix_nano,
        "sequence": 2,
        "size": len(units[1].unit.data),
        "width": 768,
        "height": 432,
        "encoding": "h264",
        "keyframe": False,
        "shown": rfc3339(units[1].shown_nano),
        "shown_nano": units[1].shown_nano,
    }
    start, end = rfc3339(units[10].unix_nano), rfc3339(units[12].unix_nano)
    lines = frames("list", "cam1", "--video", "--start", start, "--end", end, "--reverse").stdout.splitlines()
    assert [units[number].key() in line for number, line in zip((12, 11, 10), lines[1:], strict=True)] == [True] * 3
    assert [" key  " in line for line in lines[1:]] == [False, False, True]
    assert len({line.index("engine:") for line in lines[1:]}) == 1


def test_count_and_rate(frames, units, client):
    stock(client, row("cam1", 3))
    assert frames("count", "cam1", "--video").stdout == "60\n"
    assert frames("count", "cam1").stdout == "3\n"
    (bucket,) = objects(frames("rate", "cam1", "--video", "--bucket", "1h", "--json"))
    assert (bucket["frames"], bucket["bytes"]) == (60, sum(len(one.unit.data) for one in units))


def test_tail_prints_units(frames, units):
    rows = objects(frames("tail", "cam1", "--video", "--since", rfc3339(T0), "--limit", 60, "--json"))
    assert [one["sequence"] for one in rows] == list(range(1, 61))


def test_picture_shows_and_writes_what_was_decoded(frames, units, tmp_path):
    file = tmp_path / "now.jpg"
    (shown,) = objects(frames("picture", "cam1", "--json"))
    assert shown["shown_nano"] == max(one.shown_nano for one in units)
    assert shown["age_seconds"] > 0
    at = units[33].shown_nano
    done = frames("picture", "cam1", "--at", rfc3339(at), "-o", file)
    assert done.stdout == f"{file}: {file.stat().st_size:,} bytes, {rfc3339(at)}, {units[33].key()}\n"
    assert abs(file.stat().st_mtime_ns - at) < 1000
    (reference,) = (one.image for one in decoded(clip(PERSON, 60)) if one.number == 33)
    assert psnr(np.asarray(cv2.imread(str(file)), np.uint8), reference) > 35
    assert rfc3339(at) in frames("picture", "cam1", "--at", rfc3339(at)).stdout


def test_picture_of_a_camera_without_video_is_its_jpeg_as_it_is_stored(frames, client, tmp_path):
    data = jpegs.encode(64, 48)
    stock(client, [Stored("cam1", T0, 1, data)])
    assert frames("picture", "cam1", "-o", tmp_path / "a.jpg").returncode == 0
    assert (tmp_path / "a.jpg").read_bytes() == data


def test_latest_of_a_camera_with_video_only_says_how_to_see_it(frames, units):
    done = frames("latest", "cam1")
    assert done.returncode == 3
    assert done.stderr == "edge-video: no frame of camera 'cam1' is stored; it has video: frames picture cam1\n"


@pytest.mark.parametrize("fragmented", [False, True])
def test_export_writes_a_film(frames, units, tmp_path, fragmented):
    file = tmp_path / "a.mp4"
    words = ["--fragmented"] if fragmented else ["--video"]
    (report,) = objects(frames("export", "cam1", *words, "-o", file, "--json"))
    last = max(one.shown_nano for one in units)
    assert report == {
        "camera": "cam1",
        "file": str(file),
        "frames": 60,
        "bytes": sum(len(one.unit.data) for one in units),
        "missing": 0,
        "start": rfc3339(T0),
        "end": rfc3339(last),
        "start_nano": T0,
        "end_nano": last,
        "skipped": 0,
    }
    assert len(probe(file)["packets"]) == 60
    assert abs(file.stat().st_mtime_ns - last) < 1000
    assert (b"moof" in file.read_bytes()) is fragmented
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    done = frames("export", "cam1", *words, "-o", file)
    assert (done.returncode, "exists" in done.stderr) == (2, True)
    assert frames("export", "cam1", *words, "-o", file, "--force").returncode == 0


@pytest.mark.one_server
def test_export_begins_with_the_key_frame_that_the_start_needs(frames, units, tmp_path):
    times = ["--start", rfc3339(units[15].shown_nano), "--end", rfc3339(units[25].unix_nano)]
    (report,) = objects(frames("export", "cam1", "--video", *times, "-o", tmp_path / "a.mp4", "--json"))
    assert report["start_nano"] == units[10].shown_nano
    assert report["frames"] == 16
    (report,) = objects(frames("export", "cam1", "--video", *times, "--limit", 5, "-o", tmp_path / "b.mp4", "--json"))
    assert report["frames"] == 5


def test_export_to_standard_output_is_a_fragmented_film(frames, units, shared_redis, tmp_path):
    words = [*COMMAND, "frames", "export", "cam1", "--video", "-o", "-", "--redis", shared_redis.address]
    with (tmp_path / "a.mp4").open("wb") as file:
        done = subprocess.run(
            [*words, "--vhost", VHOST], cwd=ROOT, stdout=file, stderr=subprocess.PIPE, timeout=60, check=True
        )
    assert done.stderr == b""
    assert len(probe(tmp_path / "a.mp4")["packets"]) == 60


@pytest.mark.one_server
def test_export_without_jpegs_is_of_the_video_and_says_so(frames, units, client, tmp_path):
    done = frames("export", "cam1", "-o", tmp_path / "a.mp4")
    assert done.stderr == "edge-video: camera 'cam1' has no JPEG frames in that range; its video is written\n"
    assert probe(tmp_path / "a.mp4")["streams"][0]["codec_name"] == "h264"
    data = jpegs.encode(64, 48)
    stock(client, [Stored("cam1", T0 + number * 10**9, number + 1, data) for number in range(3)])
    done = frames("export", "cam1", "-o", tmp_path / "b.mp4")
    assert (done.returncode, done.stderr) == (0, "")
    assert probe(tmp_path / "b.mp4")["streams"][0]["codec_name"] == "mjpeg"


@pytest.mark.one_server
def test_export_says_what_it_leaves_out(frames, client, tmp_path):
    stock_video(client, dropped(arrivals(clip(CAR, 130)), 70))
    done = frames("export", "cam1", "--video", "-o", tmp_path / "a.mp4")
    assert done.returncode == 0
    assert done.stderr == "edge-video: 49 units do not decode and are left out\n"
    assert len(probe(tmp_path / "a.mp4")["packets"]) == 80


@pytest.mark.one_server
def test_export_over_a_change_of_size_is_an_error_that_says_how_to_cut(frames, client, tmp_path):
    units = joined(clip(CAR, 20), encoded("h264"))
    stock_video(client, units)
    file = tmp_path / "a.mp4"
    done = frames("export", "cam1", "--video", "-o", file)
    before, after = rfc3339(units[19].unix_nano), rfc3339(units[20].shown_nano)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"export what is before, to {before}, and what is after, from {after}" in done.stderr
    assert not list(tmp_path.iterdir())
    assert frames("export", "cam1", "--video", "-o", file, "--end", before).returncode == 0
    assert len(probe(file)["packets"]) == 20
    assert frames("export", "cam1", "--video", "-o", file, "--force", "--start", after).returncode == 0
    assert len(probe(file)["packets"]) == 40


@pytest.mark.one_server
def test_nothing_to_export_leaves_nothing(frames, client, units, tmp_path):
    stock_video(client, arrivals(clip(CAR, 20), "cut")[1:])
    stock(client, row("till", 2))
    for words in (
        ("cam1", "--end", "2024-11-08T00:00:00Z", "--video", "-o", tmp_path / "a.mp4"),
        ("cut", "--fragmented", "-o", tmp_path / "a.mp4"),
        ("cut", "--video", "-o", tmp_path / "a.mp4"),
        ("till", "--video", "-o", "-"),
    ):
        done = frames("export", *words)
        assert (done.returncode, done.stdout) == (3, "")
        assert "no video of camera" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("--step is for JPEG frames", ("export", "cam1", "--video", "--step", "1s", "-o", "a.mp4")),
        ("--step is for JPEG frames", ("list", "cam1", "--video", "--step", "1s")),
        ("ends in .mp4", ("export", "cam1", "--video", "-o", "a.avi")),
        ("ends in .mp4", ("export", "cam1", "--video", "-o", "directory")),
        ("both write to standard output", ("export", "cam1", "--video", "-o", "-", "--json")),
        ("only --video", ("export", "cam1", "-o", "-")),
        ("did you mean 'cam1'?", ("export", "cam11", "--video", "-o", "a.mp4")),
        ("did you mean 'cam1'?", ("picture", "cam11")),
        ("did you mean 'cam1'?", ("list", "cam11", "--video")),
        ("no time zone", ("picture", "cam1", "--at", "2024-11-08T00:00:00")),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(frames, units, tmp_path, monkeypatch, message, words):
    words = tuple(str(tmp_path / word) if word.startswith(("a.", "directory")) else word for word in words)
    done = frames(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.one_server
def test_an_export_that_is_interrupted_leaves_nothing_partial(client, shared_redis, tmp_path):
    source = clip(PERSON)
    units: list[StoredUnit] = []
    for number in range(10):
        units += arrivals(source, first=T0 + number * 200 * 10**9, sequence=1 + len(units))
    stock_video(client, units)
    words = ["frames", "export", "cam1", "--video", "-o", str(tmp_path / "a.mp4"), "--redis", shared_redis.address]
    process = subprocess.Popen([*COMMAND, *words, "--vhost", VHOST], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or list(tmp_path.iterdir()), 60, "it has begun")
        process.terminate()
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in error
    left = list(tmp_path.iterdir())
    assert [path.name for path in left] in ([], ["a.mp4"])
    assert process.returncode in ((0, 143) if left else (143,))
    assert not left or len(probe(left[0])["packets"]) == len(units)


@pytest.mark.one_server
def test_a_reader_that_goes_away_is_no_error(units, shared_redis):
    words = ["frames", "export", "cam1", "--video", "-o", "-", "--redis", shared_redis.address, "--vhost", VHOST]
    read, write = os.pipe()
    process = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    os.close(read)
    _, error = process.communicate(timeout=60)
    assert error == ""


@pytest.mark.one_server
def test_files_are_not_partial_on_a_full_disk(units, shared_redis, tmp_path):
    script = f"ulimit -f 20; exec {' '.join(COMMAND)} frames export cam1 --video -o {tmp_path / 'a.mp4'}"
    done = subprocess.run(
        ["bash", "-c", f"{script} --redis {shared_redis.address} --vhost {VHOST}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "cannot be written" in done.stderr
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.one_server
def test_standard_output_on_a_full_disk_is_one_error(units, shared_redis):
    words = ["frames", "export", "cam1", "--video", "-o", "-", "--redis", shared_redis.address, "--vhost", VHOST]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *words], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (1, "edge-video: No space left on device\n")
