"""``edge-video demo --video``: H.264 from its own clip, stored as it is, with JPEGs of the key frames."""

from __future__ import annotations

import json

import pytest

from engine.cli.demo_site import CLIP
from tests.servers.clips import read_clip
from tests.system.site import command

FPS, KEY_INTERVAL = 15, 30


def test_the_clip_is_what_the_help_says() -> None:
    clip = read_clip(CLIP)
    assert (clip.codec, len(clip.units), clip.seconds) == ("h264", 60, pytest.approx(60 / FPS))
    assert clip.keyframes == [0, KEY_INTERVAL]
    assert CLIP.stat().st_size < 300_000
    # SEI with an encoder's settings is left out, and so is everything that a camera does not send.
    assert {nal[0] & 0x1F for unit in clip.units for nal in unit.nals} == {1, 5, 7, 8}


def test_a_demo_of_video_stores_packets_and_jpegs_of_key_frames() -> None:
    done = command("demo", "--video", "--cameras", "3", "--seconds", "5", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    video = summary["video"]
    assert summary["cameras"] == 3
    assert video["captured"] == video["stored"] > 3 * FPS * 4 * 0.8
    assert summary["captured"] == summary["stored"]
    assert summary["stored"] == pytest.approx(video["stored"] / KEY_INTERVAL, abs=3)
    assert video["dropped"] == summary["dropped"] == 0
    assert 0 < video["latency_ms"]["p50"] <= video["latency_ms"]["p99"] <= video["latency_ms"]["max"]
    assert video["mb_per_s"] < summary["cameras"] * 0.2, "as it was encoded, not as JPEGs"


def test_the_summary_for_people_has_both() -> None:
    done = command("demo", "--video", "--cameras", "1", "--seconds", "3")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "cameras", "packets", "rate", "capture", "frames", "rate", "capture", "CPU", "memory", "announced",
    ]  # fmt: skip


def test_options_for_test_frames_are_refused() -> None:
    done = command("demo", "--video", "--size", "640x480")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--size and --kb are for test frames" in done.stderr
