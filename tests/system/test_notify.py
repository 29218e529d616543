"""What systemd hears from a unit of ``Type=notify``: on a socket of its kind, with the sender's pid."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.runtime.notify import Notifier
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site

CAMERAS = [{"id": f"cam{number}", "url": "test://?size=320x240&fps=20&kb=10"} for number in range(2)]
#: Microseconds that the watchdog waits.
WATCHDOG = 1_000_000


class Manager:
    """The receiving end of sd_notify."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: (pid of the sender, message, monotonic seconds)
        self.heard: list[tuple[int, str, float]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": str(WATCHDOG)}

    def _listen(self) -> None:
        size = socket.CMSG_SPACE(struct.calcsize("3i"))
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(4096, size)
            except OSError:
                return
            pid = struct.unpack("3i", ancillary[0][2][:12])[0] if ancillary else 0
            self.heard.append((pid, data.decode(), time.monotonic()))

    def times(self, line: str) -> list[float]:
        """When a line was heard; a message may have several."""
        return [at for _, message, at in self.heard if line in message.split("\n")]

    def hears(self, line: str, count: int = 1) -> None:
        wait_until(lambda: len(self.times(line)) >= count, 30, f"{line}, {count} times; heard: {self.heard}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(short_path: Path) -> Iterator[Manager]:
    made = Manager(short_path / "notify")
    yield made
    made.close()


def test_a_site_says_that_it_is_ready_lives_and_stops(site: Site, manager: Manager) -> None:
    site.write(cameras=CAMERAS)
    site.environment = manager.environment
    site.start(wait=False)
    manager.hears("READY=1")
    assert site.status()["running"], "READY comes when all is started"
    # A process that was started shows itself a moment later.
    wait_until(lambda: len([process for process in site.status()["processes"] if process["pid"]]) == 3, 10, "all show")
    manager.hears("WATCHDOG=1", 4)
    assert manager.times("STATUS=3 of 3 processes run")
    site.kill("writer")
    manager.hears("STATUS=2 of 3 processes run")
    manager.hears("STATUS=3 of 3 processes run", 2)
    assert not manager.times("STOPPING=1")
    for process in site.children():
        words = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in words or not process.name().startswith("valkey")
    # Beats go on while it drains, and while a child hangs.
    assert site.process is not None
    for role, camera in (("writer", ""), ("capture", "cam0")):
        site.signal(signal.SIGSTOP, role, camera)
    site.process.send_signal(signal.SIGTERM)
    manager.hears("STOPPING=1")
    beats = len(manager.times("WATCHDOG=1"))
    manager.hears("WATCHDOG=1", beats + 4)
    for child in site.children():
        child.resume()
    assert site.process.wait(60) == 0
    assert {pid for pid, _, _ in manager.heard} == {site.process.pid}, "no child speaks for its parent"


def test_a_supervisor_that_hangs_is_silent(site: Site, manager: Manager) -> None:
    site.write(cameras=CAMERAS)
    site.environment = manager.environment
    site.start()
    manager.hears("WATCHDOG=1", 2)
    assert site.process is not None
    supervisor = psutil.Process(site.process.pid)
    supervisor.suspend()
    begun = time.monotonic()
    beats = len(manager.times("WATCHDOG=1"))
    wait_until(lambda: time.monotonic() > begun + 2 * WATCHDOG / 1e6, 10, "the watchdog has run out")
    assert len(manager.times("WATCHDOG=1")) <= beats + 1
    supervisor.resume()
    manager.hears("WATCHDOG=1", beats + 2)
    assert site.stop() == 0


@pytest.mark.parametrize("role", ["writer", "capture cam0", "capture --all"])
def test_single_roles_speak_for_themselves(site: Site, manager: Manager, redis_server: RedisServer, role: str) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    process = subprocess.Popen(
        [*COMMAND, *role.split(), "-c", str(site.file)],
        cwd=ROOT,
        env={**os.environ, **manager.environment},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        manager.hears("READY=1")
        manager.hears("WATCHDOG=1", 4)
        if role == "capture --all":
            process.send_signal(signal.SIGHUP)
            manager.hears("READY=1", 2)
            reloading = [message for _, message, _ in manager.heard if message.startswith("RELOADING=1\n")]
            assert len(reloading) == 1
            assert reloading[0].split("\n")[1].startswith("MONOTONIC_USEC=")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        manager.hears("STOPPING=1")
    finally:
        process.kill()
        process.wait()
    assert {pid for pid, _, _ in manager.heard} == {process.pid}


def test_an_abstract_socket() -> None:
    name = f"edge-video-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready("here")
        assert receiver.recv(100) == b"READY=1\nSTATUS=here"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "²"},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "x", "WATCHDOG_PID": "y"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"WATCHDOG_USEC": "0"},
    ],
)
def test_nobody_who_listens_stops_nobody(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    assert not environment, "children find nothing of it"
    notifier.ready("a")
    notifier.beat()
    notifier.status("b")
    notifier.reloading()
    notifier.stopping()


def test_the_watchdog_of_another_process_is_not_ours(short_path: Path) -> None:
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid() + 1)})
        notifier.beat()
        with pytest.raises(BlockingIOError):
            receiver.recv(100)
        notifier = Notifier({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())})
        notifier.beat()
        assert receiver.recv(100) == b"WATCHDOG=1"


def test_a_socket_that_nobody_empties_holds_nobody_up(short_path: Path) -> None:
    """In a process of its own: it must end, whatever the socket does."""
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        code = (
            "from engine.runtime.notify import Notifier\n"
            f"notifier = Notifier({{'NOTIFY_SOCKET': {str(path)!r}}})\n"
            "for number in range(15): notifier.status(str(number))\n"
        )
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0
