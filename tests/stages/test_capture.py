"""The capture agent between a scripted source and a real ring."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from engine.config import Camera, Url
from engine.errors import CameraUnavailable, WireError
from engine.shm import ring_file
from engine.shm.doorbell import Bell, Doorbell
from engine.shm.ring import Consumer, Producer
from engine.shm.status_page import CaptureCount, StatusPage, WriterCount
from engine.sources import failures as camera_failures
from engine.sources.source import CapturedFrame, NotOpened, SourceEnded
from engine.stages.capture import agent as capture
from engine.stages.capture.agent import CaptureAgent
from engine.wire.state import CameraStatus, decode_status
from tests.servers.answering import Answering

Step = bytes | Exception | bool


class Script:
    """A source whose grabs follow a script: a picture, False, or what to raise. A WireError is raised on retrieval."""

    codec = "MJPG"
    mode = "passthrough"
    decode = ""
    unit = None
    arrived_nano = camera_time_nano = 0

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.closed = False

    def grab(self) -> bool:
        step = self.steps[0]
        if isinstance(step, bool):
            return bool(self.steps.pop(0))
        if isinstance(step, CameraUnavailable):
            raise self.steps.pop(0)
        return True

    def pictures(self, unix_nano: int) -> tuple[int]:
        return (unix_nano,)

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:
        step = self.steps.pop(0)
        if isinstance(step, WireError):
            raise step
        return CapturedFrame((b"head", memoryview(step)), 640, 480)

    def close(self) -> None:
        self.closed = True


class Bench:
    """An agent, its ring's other end, and the writer's side of the doorbell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ring_file.create(directory / "cam1.ring", 2**16, "cam1")
        self.consumer = Consumer(directory / "cam1.ring", "cam1")
        self.writer = StatusPage.claim(directory / "writer.status")
        self.doorbell = Doorbell(directory / "bell", self.writer)
        self.page = StatusPage.claim(directory / "capture.status")
        self.url = "test://"
        self.scripts: list[Script | Exception] = []

    def agent(self) -> CaptureAgent:
        def open_source() -> Script:
            script = self.scripts.pop(0)
            if isinstance(script, Exception):
                raise script
            return script

        producer = Producer(self.directory / "cam1.ring", "cam1")
        bell = Bell(self.directory / "bell", StatusPage.watch(self.directory / "writer.status"))
        agent = CaptureAgent(
            Camera(id="cam1", url=Url(self.url), open_timeout_seconds=1.0),
            producer,
            bell,
            self.page,
            open_source,
            structlog.get_logger(),
        )
        agent.on_start()
        return agent

    @property
    def status(self) -> CameraStatus:
        return decode_status(self.page.text)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.page.close()


def turn(agent: CaptureAgent, until: Callable[[], bool]) -> None:
    """Turn the agent as its loop does; bounded, so that what never comes fails the test."""
    for _ in range(200):
        if until():
            return
        if not agent.do_work():
            agent.idle()
    raise AssertionError("it did not come")


def test_frames_go_into_the_ring_with_their_size_and_ring_the_bell(bench: Bench) -> None:
    bench.scripts = [Script([b"one", False, b"two"])]
    agent = bench.agent()
    bench.writer.counts[WriterCount.WAITING] = 1
    turn(agent, lambda: bench.consumer.counts().held == 2)
    first, second = bench.consumer.poll(2**20, 10)
    assert (bytes(first.payload), bytes(second.payload)) == (b"headone", b"headtwo")
    assert (first.width, first.height, first.sequence, second.sequence) == (640, 480, 1, 2)
    assert first.unix_nano < second.unix_nano
    assert os.read(bench.doorbell._descriptor, 10) == b"!!"


def test_the_bell_is_left_alone_while_the_writer_is_awake(bench: Bench) -> None:
    bench.scripts = [Script([b"one"])]
    agent = bench.agent()
    turn(agent, lambda: bench.consumer.counts().held == 1)
    bench.writer.counts[WriterCount.WAITING] = 1
    with pytest.raises(BlockingIOError):
        os.read(bench.doorbell._descriptor, 1)


def test_a_corrupt_frame_uses_up_its_number_and_is_counted(bench: Bench) -> None:
    bench.scripts = [Script([b"one", WireError("cut short"), b"two"])]
    agent = bench.agent()
    turn(agent, lambda: bench.consumer.counts().held == 2)
    assert [record.sequence for record in bench.consumer.poll(2**20, 10)] == [1, 3]
    assert bench.consumer.counts().drops["corrupt"] == 1
    assert bench.consumer.counts().captured == 3


def test_a_frame_too_large_is_counted_and_the_camera_goes_on(bench: Bench) -> None:
    bench.scripts = [Script([bytes(2**15), b"two"])]
    agent = bench.agent()
    turn(agent, lambda: bench.consumer.counts().held == 1)
    assert bench.consumer.counts().drops["too_large"] == 1
    assert bench.status.state == "active"


def test_states_follow_the_camera(bench: Bench) -> None:
    bench.scripts = [
        CameraUnavailable("refused by rtsp://u:geheim@host/x"),
        Script([b"one", CameraUnavailable("sent nothing for 10 s")]),
        Script([b"two", SourceEnded("the file has ended")]),
    ]
    agent = bench.agent()
    assert bench.status.state == "connecting"
    turn(agent, lambda: bench.status.state == "offline")
    assert (bench.status.consecutive_failures, bench.status.last_error) == (1, "refused by rtsp://***@host/x")
    offline_since = bench.status.timestamp_nano
    turn(agent, lambda: bench.status.state == "active")
    assert (bench.status.consecutive_failures, bench.status.last_error) == (0, "")
    assert bench.status.timestamp_nano > offline_since
    turn(agent, lambda: bench.status.state == "stalled")
    assert bench.status.last_error == "sent nothing for 10 s"
    turn(agent, lambda: bench.status.state == "active")
    turn(agent, lambda: agent.finished)
    assert (bench.status.state, bench.status.last_error) == ("offline", "the file has ended")
    assert bench.page.counts[CaptureCount.FINISHED] == 1
    assert bench.page.counts[CaptureCount.CONNECTS] == 3


def test_a_successor_goes_on_counting_failures(bench: Bench) -> None:
    bench.scripts = [CameraUnavailable("refused"), CameraUnavailable("refused")]
    turn(bench.agent(), lambda: bench.status.consecutive_failures == 1)
    turn(bench.agent(), lambda: bench.status.consecutive_failures == 2)


def test_stopping_says_so_and_closes_the_source(bench: Bench) -> None:
    script = Script([b"one", False])
    bench.scripts = [script]
    agent = bench.agent()
    turn(agent, lambda: bench.status.state == "active")
    assert agent.drained()
    agent.on_close()
    assert script.closed
    assert (bench.status.state, bench.status.last_error) == ("offline", "recording stopped")


@contextmanager
def unusable(bench: Bench, frame: Step) -> Iterator[CaptureAgent]:
    """An agent whose camera sends nothing but such frames for a while."""
    bench.scripts = [Script([frame] * 5000)]
    agent = bench.agent()
    deadline = time.monotonic() + 30
    while bench.status.state == "connecting":
        assert time.monotonic() < deadline
        agent.do_work()
        time.sleep(0.01)
    yield agent
    bench.scripts, agent._source = [], Script([b"good", False])
    turn(agent, lambda: bench.status.state == "active")
    assert (bench.status.state, bench.status.last_error) == ("active", "")


def test_a_camera_whose_every_frame_is_too_large_says_so(bench: Bench) -> None:
    with unusable(bench, bytes(2**15)):
        assert bench.status.state == "stalled"
        assert bench.status.last_error == (
            "every frame is too large: 32,772 bytes, ring takes 32,768; raise ring.capacity_mb to 1"
        )


def test_a_camera_whose_every_frame_is_corrupt_says_so(bench: Bench) -> None:
    with unusable(bench, WireError("JPEG: no end of image")):
        assert bench.status.state == "stalled"
        assert bench.status.last_error.startswith("every frame is corrupt (JPEG: no end of image); look at")


def test_a_few_unusable_frames_between_others_are_no_stall(bench: Bench) -> None:
    bench.scripts = [Script([b"one", *[WireError("cut short")] * 20, b"two"])]
    agent = bench.agent()
    turn(agent, lambda: bench.consumer.counts().held == 2)
    assert bench.status.state == "active"


def test_each_reason_of_an_outage_is_said_once_and_shown_always(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log, and the time that makes an event of a state, change with the reason; the numbers with each try."""
    monkeypatch.setattr(capture, "BACKOFF_SECONDS_MIN", 0.001)
    monkeypatch.setattr(capture, "BACKOFF_SECONDS_MAX", 0.001)
    errors = ["sent no video within 1.2 s", "port 554 closed", "sent no video within 3.4 s", "port 81 closed"] * 50
    bench.scripts = [CameraUnavailable(error) for error in errors]
    with structlog.testing.capture_logs() as logs:
        agent = bench.agent()
        seen = []
        while bench.scripts:
            agent.do_work()
            seen.append((bench.status.state, bench.status.timestamp_nano))
    assert [line["error"] for line in logs] == errors[:2]
    assert len(dict.fromkeys(moment for moment in seen if moment[0] == "offline")) == 2
    assert bench.status.consecutive_failures == 200
    assert bench.status.last_error == errors[-1]
    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(camera_failures, "SUMMARY_SECONDS", 0.0)
        bench.scripts = [CameraUnavailable("port 554 closed")]
        turn(agent, lambda: not bench.scripts)
    (line,) = logs
    assert (line["event"], line["failures"]) == ("camera still fails", 201)


def test_a_successor_of_a_camera_that_fails_repeats_nothing(bench: Bench) -> None:
    bench.scripts = [CameraUnavailable("port 554 closed")] * 2
    turn(bench.agent(), lambda: bench.status.state == "offline")
    before = bench.status
    agent = bench.agent()
    assert bench.status == before
    turn(agent, lambda: bench.status.consecutive_failures == 2)
    assert bench.status.timestamp_nano == before.timestamp_nano


def test_a_camera_that_does_not_open_is_asked_why_while_the_agent_goes_on(bench: Bench) -> None:
    with Answering(lambda _: "HTTP/1.1 404 No\r\n\r\n") as server:
        bench.url = f"http://u:geheim@127.0.0.1:{server.port}/x"
        bench.scripts = [NotOpened("no video"), NotOpened("no video")]
        agent = bench.agent()
        turn(agent, lambda: bench.status.consecutive_failures == 1)
        assert bench.status.last_error == "no such path (404 from 127.0.0.1); correct the path in its url"
        assert len(server.requests) == 1, "once a try"
        turn(agent, lambda: bench.status.consecutive_failures == 2)
        assert len(server.requests) == 2


def test_the_agent_turns_while_a_camera_is_asked(bench: Bench) -> None:
    with Answering(lambda _: None) as server:
        bench.url = f"http://127.0.0.1:{server.port}/x"
        bench.scripts = [NotOpened("no video")]
        agent = bench.agent()
        rounds = 0
        while bench.status.state == "connecting":
            agent.do_work()
            agent.idle()
            rounds += 1
        assert rounds > 3
        assert "gives no answer for 1 s" in bench.status.last_error
