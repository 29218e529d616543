"""The capture agent between a scripted source of access units and real rings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import structlog

from engine.config import Camera, Url
from engine.errors import CameraUnavailable, WireError
from engine.shm import ring_file, turnstile
from engine.shm.doorbell import Bell, Doorbell
from engine.shm.ring import Consumer, Producer
from engine.shm.status_page import CaptureCount, StatusPage
from engine.shm.turnstile import PLACES, Turnstile
from engine.sources.source import CapturedFrame
from engine.stages.capture import key_frames
from engine.stages.capture.agent import CaptureAgent
from engine.wire.access_unit import AccessUnit
from engine.wire.state import NO_SETS, CameraStatus, decode_status


class Step:
    """A packet: its access unit, and the pictures that come with it, by how many packets ago they arrived. A picture
    that is an error cannot be made."""

    def __init__(
        self,
        unit: AccessUnit | None,
        pictures: Sequence[int | WireError] = (),
        decode: str = "all",
        error: WireError | None = None,
    ) -> None:
        self.unit, self.pictures, self.decode, self.error = unit, pictures, decode, error


def unit(number: int, *, key: bool = False, sound: bool = True, size: tuple[int, int] = (640, 480)) -> AccessUnit:
    return AccessUnit((b"unit", memoryview(b"%d" % number)), key, "h264", *size, sound)


class Script:
    """A source that gives one step after the other."""

    codec, mode = "h264", "transcode"
    arrived_nano = camera_time_nano = 0

    def __init__(self, steps: Sequence[Step]) -> None:
        self._left = list(steps)
        self._stamps: list[int] = []
        self._ready: list[int | WireError] = []
        self.skipped = 0
        self.unit: AccessUnit | None = None
        self.decode = steps[0].decode

    def grab(self) -> bool:
        if not self._left:
            raise CameraUnavailable("the stream ended")
        self._step = self._left.pop(0)
        self.unit, self.decode = self._step.unit, self._step.decode
        return True

    def offset_us(self, unix_nano: int) -> int:
        return 1234

    def pictures(self, unix_nano: int) -> list[int]:
        self._stamps.append(unix_nano)
        if self._step.error:
            raise self._step.error
        self._ready = list(self._step.pictures)
        return [self._stamps[-1 - (ago if isinstance(ago, int) else 0)] for ago in self._ready]

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:
        picture = self._ready.pop(0)
        if isinstance(picture, WireError):
            raise picture
        return CapturedFrame((b"jpeg",), 640, 480, camera_time_nano=7)

    def skip(self) -> None:
        self._ready.pop(0)
        self.skipped += 1

    def close(self) -> None:
        pass


class Bench:
    """An agent with two rings, and their other ends."""

    def __init__(self, directory: Path, **camera: object) -> None:
        ring_file.create(directory / "cam1.ring", 2**16, "cam1")
        ring_file.create(directory / "cam1.video.ring", 2**16, "cam1", video=True)
        self.frames = Consumer(directory / "cam1.ring", "cam1")
        self.video = Consumer(directory / "cam1.video.ring", "cam1")
        Doorbell(directory / "bell", StatusPage.claim(directory / "writer.status"))
        self.page = StatusPage.claim(directory / "capture.status")
        self.scripts: list[Script | CameraUnavailable] = []
        self.opened = 0
        stored = camera.pop("video", True)
        self.agent = CaptureAgent(
            Camera(id="cam1", url=Url("test://"), **camera),
            Producer(directory / "cam1.ring", "cam1"),
            Bell(directory / "bell", StatusPage.watch(directory / "writer.status")),
            self.page,
            self._open,
            structlog.get_logger(),
            video=Producer(directory / "cam1.video.ring", "cam1") if stored else None,
            turnstile=Turnstile(directory / "connecting"),
        )
        self.agent.on_start()

    def _open(self) -> Script:
        self.opened += 1
        script = self.scripts.pop(0)
        if isinstance(script, CameraUnavailable):
            raise script
        return script

    def play(self, *steps: Step) -> Script:
        script = Script(steps)
        self.scripts.append(script)
        self.agent._retry_at = 0.0
        for _ in range(len(steps) + 1):
            self.agent.do_work()
        return script

    @property
    def status(self) -> CameraStatus:
        return decode_status(self.page.text)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.page.close()


def test_units_and_jpegs_go_into_their_rings_under_the_same_stamp(bench: Bench) -> None:
    bench.play(Step(unit(0, key=True), [0]), Step(unit(1), [0]))
    units, frames = bench.video.poll(2**20, 10), bench.frames.poll(2**20, 10)
    assert [bytes(record.payload) for record in units] == [b"unit0", b"unit1"]
    assert [(record.keyframe, record.encoding, record.offset_us) for record in units] == [(1, 1, 1234), (0, 1, 1234)]
    assert [record.unix_nano for record in units] == [record.unix_nano for record in frames]
    assert [record.sequence for record in units] == [record.sequence for record in frames] == [1, 2]
    assert (bench.status.state, bench.status.width, bench.status.decode) == ("active", 640, "all")


def test_what_arrived_before_it_was_read_is_stamped_with_its_arrival_and_the_camera_s_time(bench: Bench) -> None:
    script = Script([Step(unit(0, key=True), [0])])
    script.arrived_nano, script.camera_time_nano = time.monotonic_ns() - 10**9, 1731024000000000000
    bench.scripts.append(script)
    for _ in range(2):
        bench.agent.do_work()
    (record,), (frame,) = bench.video.poll(2**20, 10), bench.frames.poll(2**20, 10)
    arrived = script.arrived_nano + time.time_ns() - time.monotonic_ns()
    assert record.unix_nano == frame.unix_nano == pytest.approx(arrived, rel=0, abs=10**8)
    # Latencies count from the read.
    assert record.monotonic == frame.monotonic >= script.arrived_nano + 10**9
    assert (record.camera_time_nano, frame.camera_time_nano) == (1731024000000000000, 7)


def test_pictures_in_another_order_have_the_stamps_of_earlier_units(bench: Bench) -> None:
    bench.play(Step(unit(0, key=True)), Step(unit(1)), Step(unit(2), [2, 1]), Step(unit(3), [1]), Step(None, [1]))
    units, frames = bench.video.poll(2**20, 10), bench.frames.poll(2**20, 10)
    assert [record.unix_nano for record in frames] == [record.unix_nano for record in units]


def test_pictures_that_were_decoded_are_counted(bench: Bench) -> None:
    bench.play(Step(unit(0, key=True)), Step(unit(1), [1, 0]))
    assert bench.page.counts[CaptureCount.DECODED] == 2


def test_of_key_frames_only_those_that_the_fps_limit_takes_are_decoded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fps=1.0)
    script = bench.play(*[Step(unit(number, key=True), [0], "key") for number in range(5)])
    assert bench.page.counts[CaptureCount.DECODED] == 1
    assert bench.page.counts[CaptureCount.SKIPPED] == script.skipped == 4
    assert bench.frames.counts().captured == 1
    assert bench.video.counts().captured == 5


def test_what_is_decided_is_shown_as_soon_as_it_changes(bench: Bench) -> None:
    bench.play(Step(unit(0, key=True), [0]))
    assert bench.status.decode == "all"
    since = bench.status.timestamp_nano
    bench.scripts = [Script([Step(unit(1, key=True), [0], "key"), Step(unit(2), (), "key")])]
    bench.agent._source = bench.scripts.pop()
    bench.agent.do_work()
    assert (bench.status.decode, bench.status.state, bench.status.width) == ("key", "active", 640)
    assert bench.status.timestamp_nano == since, "it is the same state"


def test_units_before_the_first_key_frame_are_no_part_of_the_video(bench: Bench) -> None:
    bench.play(Step(unit(0)), Step(unit(1)), Step(unit(2, key=True), [0]))
    assert [record.sequence for record in bench.video.poll(2**20, 10)] == [1]
    assert bench.page.counts[CaptureCount.BEFORE_KEY] == 2


def test_units_that_need_what_came_before_the_stream_are_no_part_of_the_video(bench: Bench) -> None:
    early = unit(1)._replace(early=True)
    bench.play(Step(unit(0, key=True), [0]), Step(early), Step(early), Step(unit(2), [0]))
    assert [(record.sequence, bytes(record.payload)) for record in bench.video.poll(2**20, 10)] == [
        (1, b"unit0"),
        (2, b"unit2"),
    ]
    assert bench.page.counts[CaptureCount.BEFORE_KEY] == 2


def test_a_new_connection_begins_with_a_key_frame(bench: Bench) -> None:
    bench.play(Step(unit(0, key=True), [0]), Step(unit(1), [0]))
    bench.agent.do_work()
    assert bench.status.state == "stalled"
    bench.play(Step(unit(2)), Step(unit(3, key=True), [0]))
    assert [bytes(record.payload) for record in bench.video.poll(2**20, 10)] == [b"unit0", b"unit1", b"unit3"]


def test_after_a_damaged_unit_nothing_is_stored_until_the_next_key_frame(bench: Bench) -> None:
    bench.play(
        *(Step(unit(0, key=True), [0]), Step(unit(1, sound=False), [0]), Step(unit(2), [0])),
        *(Step(unit(3), [0]), Step(unit(4, key=True), [0])),
    )
    records = bench.video.poll(2**20, 10)
    assert [(bytes(record.payload), record.sequence) for record in records] == [(b"unit0", 1), (b"unit4", 5)]
    drops = bench.video.counts().drops
    assert (drops["corrupt"], drops["broken_gop"]) == (1, 2)
    assert bench.frames.counts().stored + bench.frames.counts().held == 5, "JPEGs stand alone"


@pytest.mark.parametrize("stored", [True, False])
def test_a_camera_without_key_frames_is_active_and_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    monkeypatch.setattr(key_frames, "_BEGINS_NANO", 0)
    bench = Bench(tmp_path, video=stored)
    bench.play(Step(unit(0, size=(0, 0))), Step(unit(1, size=(0, 0))))
    assert (bench.status.state, bench.status.note) == ("active", "waits for a key frame")
    bench.agent._source = Script([Step(unit(2, key=True), [0])])
    bench.agent.do_work()
    assert (bench.status.state, bench.status.note, bench.status.width) == ("active", "", 640)


@pytest.mark.parametrize("stored", [True, False])
def test_key_frames_without_parameter_sets_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    monkeypatch.setattr(key_frames, "_BEGINS_NANO", 0)
    bench = Bench(tmp_path, video=stored)
    bench.play(Step(unit(0, size=(0, 0))), Step(unit(1, size=(0, 0))._replace(lacks_sets=True)))
    assert (bench.status.state, bench.status.note) == ("active", NO_SETS)
    bench.agent._source = Script([Step(unit(2, size=(0, 0))), Step(unit(3, key=True), [0])])
    bench.agent.do_work()
    assert bench.status.note == NO_SETS
    bench.agent.do_work()
    assert bench.status.note == ""


def test_a_camera_whose_key_frames_stop_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.play(Step(unit(0, key=True), [0]), Step(unit(1), [0]))
    assert bench.status.note == ""
    monkeypatch.setattr(key_frames, "_GOES_ON_NANO", 0)
    bench.agent._source = Script([Step(unit(2), [0])])
    bench.agent.do_work()
    assert bench.status.state == "active"
    assert "has sent no key frame for over" in bench.status.note


def test_a_jpeg_only_camera_keeps_its_note_whatever_size_its_jpegs_have(tmp_path: Path, monkeypatch) -> None:
    """The note stays from frame to frame, although unit and JPEG differ in size."""
    bench = Bench(tmp_path, video=False)
    bench.play(Step(unit(0, key=True, size=(1280, 720)), [0]))
    monkeypatch.setattr(key_frames, "_GOES_ON_NANO", 0)
    bench.agent._source = Script([Step(unit(number, size=(1280, 720)), [0]) for number in range(1, 9)])
    shown = []
    for _ in range(8):
        bench.agent.do_work()
        shown.append((bench.status.width, bool(bench.status.note)))
    assert shown == [(640, True)] * 8


def test_pictures_that_cannot_be_made_are_counted(bench: Bench) -> None:
    error = WireError("the key frame is damaged")
    bench.play(Step(unit(0, key=True), [error]), Step(unit(1, key=True), [0]), Step(unit(2), error=error))
    assert bench.frames.counts().drops["corrupt"] == 2
    assert bench.frames.counts().held == 1
    assert bench.video.counts().held == 3


def test_a_camera_that_sends_no_video_says_so(bench: Bench) -> None:
    script = Script([Step(None, [0], decode="")] * 2)
    script.codec, script.mode = "MJPG", "passthrough"
    bench.scripts = [script]
    for _ in range(3):
        bench.agent.do_work()
    assert bench.status.state == "active"
    assert bench.status.note == "sends MJPG: only H.264 and H.265 are stored as video"
    assert bench.frames.counts().held == 2


def test_a_camera_connects_when_its_turn_has_come(bench: Bench, tmp_path: Path) -> None:
    others = [Turnstile(tmp_path / "connecting") for _ in range(PLACES)]
    assert all(other.enter() for other in others)
    bench.scripts = [CameraUnavailable("refused"), Script([Step(unit(0, key=True), [0])])]
    rounds = 0
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        bench.agent.do_work()
        bench.agent.idle()
        rounds += 1
    assert not bench.opened
    assert 3 <= rounds < 50, "it waits in short sleeps, so that its heartbeat continues"
    assert bench.page.counts[CaptureCount.CONNECTS] == 0
    others[0].leave()
    bench.agent.do_work()
    assert bench.opened == 1
    # It has left, although it did not connect.
    assert others[0].enter()


def test_a_hundred_cameras_that_do_not_answer_hold_another_up_for_less_than_half_a_minute() -> None:
    assert turnstile._COUNTS_SECONDS * 100 / PLACES < 30
