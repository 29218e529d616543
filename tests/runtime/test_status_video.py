"""Stored video in the status: counts of its own beside those of frames, and a line of its own in the table."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from engine.cli.status_view import headline, live_lines, print_status, status_lines
from engine.config import Config, from_document
from engine.runtime import running_site
from engine.runtime.site_report import SiteReport
from engine.runtime.status import collect, to_json
from engine.runtime.status_outages import rings_last
from engine.shm import ring_file, segment
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_file import Drop
from engine.shm.site import SitePaths, remove
from engine.shm.status_page import CaptureCount, StatusPage, signed_word
from engine.wire.journal import ENCODINGS, NO_JOURNAL
from engine.wire.state import CameraStatus, encode_status

NANO = 1_731_024_000_000_000_000


class Watched:
    """A site whose camera `gate` stores video, beside a JPEG camera `door`, without its processes."""

    def __init__(self, directory: Path) -> None:
        self.closed = False
        self.config: Config = from_document(
            {
                "site": {"run_directory": str(directory / "run")},
                "ring": {"directory": str(directory), "capacity_mb": 1},
                "video": {"capacity_mb": 2},
                "cameras": [
                    {"id": "door", "url": "test://"},
                    {"id": "gate", "url": "rtsp://192.0.2.1/x", "video": True, "decode": "key"},
                ],
            },
            {},
        )
        self.paths = SitePaths.of(self.config)
        segment.private_directory(self.paths.directory)
        for camera, video in self.config.rings:
            capacity = self.config.ring_capacity(video=video)
            ring_file.create(self.paths.ring(camera, video=video), capacity, camera, video=video)
        path = self.paths.ring("gate", video=True)
        self.producer, self.consumer = Producer(path, "gate"), Consumer(path, "gate")
        self.supervisor = StatusPage.claim(self.paths.supervisor)
        self.page = StatusPage.claim(self.paths.capture("gate"))
        self.page.text = encode_status(
            CameraStatus("active", NANO, codec="h264", mode="transcode", width=1280, height=720, decode="key")
        )
        self.page.counts[CaptureCount.MILLI_FPS] = 1_000
        self.page.counts[CaptureCount.PACKET_MILLI_FPS] = 15_000
        self.page.counts[CaptureCount.KEY_INTERVAL_MS] = 2_000

    def send(self, units: int, size: int = 1000) -> None:
        nano = max(self.producer.floor_nano, NANO)
        for number in range(units):
            self.producer.write(
                [b"u" * size], nano + number + 1, time.monotonic_ns(), 1280, 720,
                encoding=ENCODINGS.index("h264"), keyframe=not number, offset_us=0,
            )  # fmt: skip

    def store(self) -> None:
        self.consumer.commit(self.consumer.poll(2**20, 1000), time.monotonic_ns())

    def report(self) -> SiteReport:
        return collect(self.config, memory=False)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for part in (self.producer, self.consumer, self.page, self.supervisor):
                part.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.close()


def test_video_has_counts_of_its_own(site: Watched) -> None:
    site.send(30)
    site.store()
    site.page.counts[CaptureCount.BEFORE_KEY] = 7
    site.producer.discard(site.producer.floor_nano + 1, 900, Drop.BROKEN_GOP)
    site.send(10)
    door, gate = site.report().cameras
    assert door.video is None
    assert (door.decode, door.packet_fps, door.key_interval_seconds) == ("", 0, 0)
    video = gate.video
    assert video is not None
    assert (video.captured, video.stored, video.stored_bytes, video.before_key) == (41, 30, 30_000, 7)
    assert {reason: count for reason, count in video.dropped.items() if count} == {"broken_gop": 1}
    assert video.ring.held == 10
    assert video.ring.capacity_bytes == 2 * 2**20
    assert video.captured == video.stored + sum(video.dropped.values()) + video.ring.held
    assert video.latency_ms.max > 0
    assert (gate.decode, gate.packet_fps, gate.fps, gate.key_interval_seconds) == ("key", 15.0, 0.5, 2.0)
    assert (gate.captured, gate.ring.held, gate.latency_ms.max) == (0, 0, 0)


def test_what_redis_lost_leaves_the_total_as_it_was(site: Watched) -> None:
    site.send(5)
    site.store()
    site.consumer.count_lost(NO_JOURNAL, 0)
    video = site.report().cameras[1].video
    assert video is not None
    assert (video.stored, video.stored_total, video.lost) == (0, 5, 5)


def test_totals_are_those_of_all_video(site: Watched) -> None:
    site.send(30)
    site.store()
    report = site.report()
    assert report.video is not None
    totals = report.video
    assert (totals.cameras, totals.captured, totals.stored, totals.dropped, totals.packet_fps) == (1, 30, 30, 0, 15.0)
    assert totals.latency_ms.max > 0
    assert report.latency_ms.max == 0
    document = json.loads(to_json(report))
    assert document["cameras"][0]["video"] is None
    assert document["cameras"][1]["video"]["stored"] == document["video"]["stored"] == 30


def test_rings_last_as_long_as_the_first_to_be_full_whichever_it_is(site: Watched) -> None:
    site.send(30)
    report = site.report()
    lasts = report.cameras[1].video.ring.lasts_seconds  # type: ignore[union-attr]
    # 2 MiB less what is in it and the writer's reserve, at 15 packets of 1000 bytes.
    assert lasts == pytest.approx((2 * 2**20 * 7 / 8 - 30 * 1088) / 15_000, rel=0.01)
    assert report.rings_last_seconds == rings_last(report.cameras) == lasts


def test_a_camera_that_is_gone_sends_no_packets(site: Watched) -> None:
    site.page.text = encode_status(CameraStatus("offline", NANO, 3, "port 554 closed", decode="key", note="waits"))
    gate = site.report().cameras[1]
    assert (gate.packet_fps, gate.note) == (0.0, "")
    assert gate.video is not None
    assert gate.video.ring.lasts_seconds is None


def lines(report: SiteReport, width: int) -> list[str]:
    return [line.plain for line in status_lines(report, width)]


def shown(site: Watched, **changes: Any) -> SiteReport:
    """A report in which the video camera has captured a lot."""
    report = site.report()
    gate = report.cameras[1]
    assert gate.video is not None
    replace = msgspec.structs.replace
    video = replace(gate.video, captured=1_234_567, stored=1_234_000, dropped={"outage": 89})
    gate = replace(gate, captured=51_234, stored=51_230, dropped={"outage": 4}, video=video, **changes)
    return replace(report, cameras=[report.cameras[0], gate])


def test_a_video_camera_has_a_line_for_its_packets(site: Watched) -> None:
    site.send(30)
    text = lines(shown(site), 200)
    header = next(line for line in text if line.startswith("camera"))
    place = text.index(next(line for line in text if line.startswith("gate")))
    first, second = text[place : place + 2]
    cells = str.split
    assert first.split() == cells("gate active h264 key frames 1280x720 0.5 51,234 51,230 4 0% 0.0 0.0")
    assert second.split() == cells("video key 2.0 s as sent 15.0 1,234,567 1,234,000 89 2% 0.0 0.0")
    for name, value in (("captured", "1,234,567"), ("fps", "15.0"), ("dropped", " 89")):
        assert header.index(name) + len(name) == second.index(value) + len(value), "one column for both"
    figures = [line.plain for line in headline(site.report(), 200)]
    assert figures[2].startswith("video of 1: 15 packets/s   0 stored   0 dropped   p50")


def test_eighty_columns_hold_both_lines(site: Watched) -> None:
    text = lines(shown(site), 80)
    place = text.index(next(line for line in text if line.startswith("gate")))
    assert text[place + 1].startswith("  video")
    for line in text[place : place + 2]:
        assert cell_len(line) <= 80
    for value in ("key 2.0 s", "15.0", "1,234,000", " 89"):
        assert value in text[place + 1]
    live = [line.plain for line in live_lines(shown(site), 80, 10)]
    assert any(line.startswith("  video") for line in live)


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_wider_than_the_output(site: Watched, width: int) -> None:
    error = "no such path (404 from 192.0.2.200); correct the path in its url " * 2
    report = shown(site, id="loading-ramp-north-east-camera-2", state="offline", last_error=error, advice="")
    out = io.StringIO()
    print_status(Console(file=out, width=width), report)
    text = out.getvalue().splitlines()
    assert any(line.startswith("loading-ramp-north-east-camera-2") for line in text)
    assert max(map(cell_len, text)) <= width
    assert "".join(error.split()) in "".join(out.getvalue().split())
    live = [line.plain for line in live_lines(report, width, 30)]
    assert max(map(cell_len, live)) <= width


def test_what_a_camera_waits_for_stands_below_it(site: Watched) -> None:
    text = lines(shown(site, note="waits for a key frame"), 80)
    place = text.index("  waits for a key frame")
    assert text[place - 1].startswith("gate")
    assert text[place + 1].startswith("  video")


def test_a_camera_s_clock_is_shown_where_it_tells_the_time(site: Watched) -> None:
    assert not any("clock" in line for line in lines(shown(site), 200))
    site.page.counts[CaptureCount.CAMERA_OFFSET_US] = signed_word(-90_125_000)
    site.page.counts[CaptureCount.CAMERA_DRIFT_PPB] = signed_word(12_300)
    gate = site.report().cameras[1]
    assert (gate.clock_offset_seconds, gate.clock_drift_ppm) == (-90.125, 12.3)
    text = lines(shown(site), 200)
    header, first = (next(line for line in text if line.startswith(word)) for word in ("camera", "gate"))
    assert header.split()[-4:] == ["clock", "s", "drift", "ppm"]
    assert first.split()[-2:] == ["-90.12", "+12"]
    # Where there is no room for the columns, a line below still tells what is wrong.
    narrow = lines(shown(site), 80)
    assert any(line.startswith("  its clock is 90 s behind ours: set its time server") for line in narrow)
    site.page.text = encode_status(CameraStatus("offline", NANO, 3, "port 554 closed"))
    assert site.report().cameras[1].clock_offset_seconds is None


@pytest.mark.parametrize(("decode", "source"), [("all", "h264 transcode"), ("none", "h264 no JPEGs")])
def test_the_source_says_which_pictures_become_jpegs(site: Watched, decode: str, source: str) -> None:
    assert any(source in line for line in lines(shown(site, decode=decode), 200))


def test_a_site_of_jpegs_is_shown_without_video(site: Watched) -> None:
    report = site.report()
    alone = msgspec.structs.replace(report, cameras=report.cameras[:1], video=None)
    assert not any(word in line for line in lines(alone, 80) for word in ("video", "packets", "key"))


def test_a_changed_key_of_video_shows_as_a_difference(site: Watched) -> None:
    running_site.write(site.config, {})
    started_with = running_site.read(site.config)
    assert started_with is not None
    assert running_site.differences(started_with, site.config, {}) == []
    door, gate = site.config.cameras
    replace = msgspec.structs.replace
    changed = replace(
        site.config,
        cameras=(replace(door, decode="key"), replace(gate, video=False, decode="all")),
        video=replace(site.config.video, ttl_seconds=99),
        metadata=replace(site.config.metadata, video="gop"),
    )
    assert sorted(running_site.differences(started_with, changed, {})) == [
        "camera door changed (decode)",
        "camera gate changed (decode, video)",
        "metadata.video changed",
        "video.ttl_seconds changed",
    ]


def test_cleaning_removes_rings_of_video(site: Watched) -> None:
    site.close()
    assert site.paths.ring("gate", video=True).exists()
    remove(site.paths)
    assert not site.paths.directory.exists()


def test_the_rate_of_key_frames_that_are_far_apart_is_that_of_their_interval(site: Watched) -> None:
    """Within the last second there was one of them, or none."""
    for measured in (0, 1_000):
        site.page.counts[CaptureCount.MILLI_FPS] = measured
        assert site.report().cameras[1].fps == 0.5
    site.page.counts[CaptureCount.KEY_INTERVAL_MS] = 400
    site.page.counts[CaptureCount.MILLI_FPS] = 2_450
    assert site.report().cameras[1].fps == 2.45
