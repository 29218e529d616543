"""The capture agent between a scripted source and a real ring."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from engine.config import Camera
from engine.errors import CameraUnavailable, WireError
from engine.shm import ring_file
from engine.shm.doorbell import Bell, Doorbell
from engine.shm.ring import Consumer, Producer
from engine.shm.slate import CaptureCount, Slate, WriterCount
from engine.stages.capture import CaptureAgent
from engine.stages.source import Frame, SourceEnded
from engine.wire.state import CameraStatus, decode_status

Step = bytes | Exception | bool


class Script:
    """A source whose grabs follow a script: a picture, False, or what to raise. A WireError is raised on retrieval."""

    codec = "MJPG"
    mode = "passthrough"

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

    def retrieve(self, unix_nano: int, sequence: int) -> Frame:
        step = self.steps.pop(0)
        if isinstance(step, WireError):
            raise step
        return Frame((b"head", memoryview(step)), 640, 480)

    def close(self) -> None:
        self.closed = True


class Bench:
    """An agent, its ring's other end, and the writer's side of the doorbell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ring_file.create(directory / "cam1.ring", 2**16, "cam1")
        self.consumer = Consumer(directory / "cam1.ring", "cam1")
        self.writer = Slate.claim(directory / "writer.slate")
        self.doorbell = Doorbell(directory / "bell", self.writer)
        self.slate = Slate.claim(directory / "capture.slate")
        self.scripts: list[Script | Exception] = []

    def agent(self) -> CaptureAgent:
        def open_source() -> Script:
            script = self.scripts.pop(0)
            if isinstance(script, Exception):
                raise script
            return script

        producer = Producer(self.directory / "cam1.ring", "cam1")
        bell = Bell(self.directory / "bell", Slate.watch(self.directory / "writer.slate"))
        agent = CaptureAgent(
            Camera(id="cam1", url="test://"), producer, bell, self.slate, open_source, structlog.get_logger()
        )
        agent.on_start()
        return agent

    @property
    def status(self) -> CameraStatus:
        return decode_status(self.slate.text)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.slate.close()


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
    assert bench.slate.counts[CaptureCount.FINISHED] == 1
    assert bench.slate.counts[CaptureCount.CONNECTS] == 3


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
