"""What cameras cost of a core: the estimates follow what is decoded, and agree with the published benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config import Camera, from_document
from engine.doctor.camera_probe import CameraFacts
from engine.doctor.cpu_costs import cores, cores_of_video

#: The published run: docs/benchmarks.md and docs/modes.md are written from it.
FIGURES = json.loads((Path(__file__).parents[2] / "benchmarks/results/raw.json").read_text())["figures"]
#: By how much an estimate may differ from it: two runs of the same benchmark differ by a tenth or two.
SHARE = 0.25

H264 = {"codec": "h264", "mode": "transcode", "packet_fps": 15.0, "fps": 15.0, "key_interval_seconds": 2.0}
VIDEO = {"video": True, "decode": "key"}
# Milliseconds of a packet, a picture, a key frame, a JPEG, and of each that is stored.
PACKET, PICTURE, KEY, JPEG, STORED = 0.3e-3, 5.0e-3, 6.0e-3, 0.08e-3, 0.1e-3


def camera(**fields: object) -> Camera:
    return from_document({"cameras": [{"id": "door", "url": "rtsp://192.0.2.1/x", **fields}]}, {}).cameras[0]


def figure(name: str) -> float:
    return float(FIGURES[name]["value"])


@pytest.mark.parametrize(
    ("fields", "facts", "expected"),
    [
        # From what was seen.
        ({}, {**H264, "decode": "all"}, 15 * (PICTURE + STORED)),
        ({"video": True}, {**H264, "decode": "all"}, 15 * (PICTURE + 2 * STORED)),
        ({"fps": 5}, {**H264, "decode": "all"}, 5 * (PICTURE + STORED)),
        (VIDEO, {**H264, "decode": "key"}, 15 * (PACKET + STORED) + 0.5 * (KEY + STORED)),
        ({"decode": "key"}, {**H264, "decode": "key"}, 15 * PACKET + 0.5 * (KEY + STORED)),
        ({**VIDEO, "fps": 0.1}, {**H264, "decode": "key"}, 15 * (PACKET + STORED) + 0.1 * (KEY + STORED)),
        (VIDEO, {**H264, "decode": "none"}, 15 * (PACKET + STORED)),
        ({}, {"codec": "MJPG", "mode": "passthrough", "fps": 20.0}, 20 * (JPEG + STORED)),
        ({}, {"codec": "mpeg4", "mode": "transcode", "fps": 20.0}, 20 * (PICTURE + STORED)),
        # From the site file alone.
        ({}, None, 25 * (PICTURE + STORED)),
        ({"fps": 0.5}, None, 25 * PACKET + 0.5 * (KEY + STORED)),
        (VIDEO, None, 25 * (PACKET + STORED) + 0.5 * (KEY + STORED)),
        ({"video": True, "decode": "none"}, None, 25 * (PACKET + STORED)),
        ({"url": "http://192.0.2.1/x", "fps": 10}, None, 10 * (JPEG + STORED)),
        ({"url": "http://192.0.2.1/x", **VIDEO}, None, 25 * (PACKET + STORED) + 0.5 * (KEY + STORED)),
    ],
    ids=lambda value: "" if isinstance(value, float) else None,
)
def test_the_estimate_follows_what_is_decoded(fields, facts, expected):
    known = CameraFacts("door", width=1280, height=720, **facts) if facts else None
    assert cores(camera(**fields), known) == pytest.approx(expected)


def test_decoding_grows_with_the_pixels_and_storing_does_not():
    small, large = (CameraFacts("door", width=16 * n, height=9 * n, **H264, decode="all") for n in (80, 160))
    assert cores(camera(), large) - cores(camera(), small) == pytest.approx(3 * 15 * PICTURE)
    assert cores_of_video(camera(**VIDEO), large, "none") == cores_of_video(camera(**VIDEO), small, "none")


@pytest.mark.parametrize(
    ("fields", "decode", "figure_name"),
    [
        ({"video": True, "decode": "none"}, "none", "video.cpu.video"),
        ({"decode": "key"}, "key", "video.cpu.key"),
        (VIDEO, "key", "video.cpu.video and key"),
        ({}, "all", "video.cpu.all"),
    ],
    ids=["video", "key", "video and key", "all"],
)
def test_the_estimate_of_each_mode_agrees_with_the_published_run(fields, decode, figure_name):
    """Its figures are those of capture; those of the writer come to them."""
    facts = CameraFacts("door", width=1280, height=720, **H264, decode=decode)
    measured = 15 * (figure(figure_name) + figure("video.cpu.writer")) / 1000
    assert cores(camera(**fields), facts) == pytest.approx(measured, rel=SHARE)


def test_a_hundred_cameras_are_estimated_as_they_were_measured():
    facts = CameraFacts("door", width=1280, height=720, **H264, decode="key")
    assert 100 * cores(camera(**VIDEO), facts) == pytest.approx(figure("video.100 cameras.own CPU"), rel=SHARE)


def test_jpegs_passed_through_are_estimated_as_they_were_measured():
    facts = CameraFacts("door", codec="MJPG", mode="passthrough", fps=30.0)
    assert 30 / cores(camera(), facts) == pytest.approx(figure("e2e.cpu.frames per CPU-second"), rel=SHARE)
