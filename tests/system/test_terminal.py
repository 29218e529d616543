"""Terminals that go away, hang-ups that are to be ignored, standard streams that are closed."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.servers.redis_server import RedisServer
from tests.servers.wait import readable, wait_until
from tests.system.site import COMMAND, ROOT, Site, command, missing_numbers, stored_frames

CAMERAS = [{"id": f"cam{number}", "url": "test://?size=320x240&fps=20&kb=10"} for number in range(3)]


def flows(site: Site, frames: int = 40) -> None:
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") >= stored + frames, 30, "frames flow", log=site.log_text)


def assert_all_stored(server: RedisServer) -> None:
    numbers = stored_frames(server.client(), "default").numbers
    assert len(numbers) == len(CAMERAS)
    assert not any(missing_numbers(got) for got in numbers.values())


def test_a_site_that_nohup_starts_is_not_stopped_by_a_hang_up(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.command = ["nohup", *COMMAND]
    site.start()
    flows(site)
    assert site.process is not None
    for process in [psutil.Process(site.process.pid), *site.children()]:
        process.send_signal(signal.SIGHUP)
    flows(site)
    assert site.process.poll() is None
    assert "stopping" not in site.log_text()
    assert "process ended" not in site.log_text()
    assert site.stop() == 0
    assert_all_stored(redis_server)


def test_a_hang_up_drains_a_site(site: Site, redis_server: RedisServer) -> None:
    """The whole group gets it, as when a terminal ends: children leave what it means to their parent."""
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.start()
    flows(site)
    assert site.process is not None
    os.killpg(site.process.pid, signal.SIGHUP)
    assert site.process.wait(60) == 0
    assert_all_stored(redis_server)
    assert not site.paths.directory.exists()


@pytest.mark.parametrize("ignored", [False, True], ids=["drains", "nohup"])
def test_a_hang_up_of_a_single_role(site: Site, redis_server: RedisServer, ignored: bool) -> None:
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    words = ["nohup"] if ignored else []
    processes = []
    with site.log.open("ab") as log:
        for role in (["writer"], ["capture", "cam0"]):
            command = [*words, *COMMAND, *role, "-c", str(site.file)]
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True))
    try:
        wait_until(lambda: site.paths.ring("cam0").exists(), 30, "there is a ring")
        flows(site)
        if ignored:
            for process in processes:
                process.send_signal(signal.SIGHUP)
            flows(site)
        number = signal.SIGTERM if ignored else signal.SIGHUP
        for process in reversed(processes):
            process.send_signal(number)
            assert process.wait(30) == 0, site.log_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert site.camera("cam0")["ring"]["held"] == 0
    assert not missing_numbers(stored_frames(redis_server.client(), "default").numbers["cam0"])


class Screen:
    """The other side of a terminal: reads whatever is shown."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.shown = b""
        self._closing = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        # The descriptor must not be in use when it is closed: only then does the terminal go away.
        while not self._closing:
            if readable(self.master, 0.05):
                self.shown += os.read(self.master, 65536)

    def go_away(self) -> None:
        self._closing = True
        self._thread.join()
        os.close(self.master)


@contextmanager
def on_a_terminal(site: Site, *, controlling: bool) -> Iterator[Screen]:
    """``edge-video run`` with its live table on a terminal that is, or is not, the one that controls its session."""
    screen = Screen()
    prepare = partial(fcntl.ioctl, screen.slave, termios.TIOCSCTTY, 0) if controlling else None
    site.process = subprocess.Popen(
        [*COMMAND, "run", "-c", str(site.file)],
        cwd=ROOT,
        stdin=screen.slave,
        stdout=screen.slave,
        stderr=screen.slave,
        start_new_session=True,
        preexec_fn=prepare,  # noqa: PLW1509 - it calls nothing but ioctl
    )
    os.close(screen.slave)
    wait_until(lambda: b"cam1" in screen.shown, 30, "the table shows")
    flows(site)
    yield screen
    assert site.process.wait(60) == 0, (site.config.run_directory / "edge-video.log").read_text()


def test_a_terminal_that_goes_away_drains_the_site_that_it_controls(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    with on_a_terminal(site, controlling=True) as screen:
        screen.go_away()
    assert_all_stored(redis_server)
    assert not site.paths.directory.exists()
    assert "stopping" in (site.config.run_directory / "edge-video.log").read_text()


def test_a_site_goes_on_without_the_terminal_that_showed_it(site: Site, redis_server: RedisServer) -> None:
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    with on_a_terminal(site, controlling=False) as screen:
        screen.go_away()
        flows(site, 100)
        assert site.process is not None
        site.process.send_signal(signal.SIGTERM)
    assert_all_stored(redis_server)
    assert not site.paths.directory.exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(site: Site, redis_server: RedisServer, closed: str) -> None:
    """Log lines for which there is no standard error are in the run directory."""
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    site.command = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND]
    site.start()
    flows(site)
    file = site.config.run_directory / "edge-video.log"
    log = file.read_text() if "2>" in closed else site.log_text()
    assert "site started" in log
    # Nothing that was opened later has the place of a standard stream.
    assert site.process is not None
    opened = {Path(f"/proc/{site.process.pid}/fd/{number}").readlink() for number in range(3)}
    assert opened <= {Path(os.devnull), site.log}
    site.kill("writer")
    flows(site)
    assert site.stop() == 0
    assert_all_stored(redis_server)


@pytest.mark.parametrize("role", ["writer", "publisher", "capture cam0"])
def test_a_single_role_without_standard_streams(site: Site, redis_server: RedisServer, role: str) -> None:
    """A site file with a fault is no traceback, and what cannot be said is no defect."""
    site.write(cameras=CAMERAS[:1], redis={"address": redis_server.address})
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND, *role.split(), "-c", str(site.file)],
        cwd=ROOT,
        start_new_session=True,
    )
    if role == "publisher":
        # There is no broker: the one error that it has goes to nobody.
        assert process.wait(30) == 2
        return
    page = site.paths.writer(0) if role == "writer" else site.paths.capture("cam0")
    wait_until(page.exists, 30, "it runs")
    wait_until(lambda: any(each["alive"] for each in site.status()["processes"]), 30, "it lives")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@contextmanager
def top_on_a_terminal(
    site: Site, *, rows: int = 24, columns: int = 80
) -> Iterator[tuple[Screen, subprocess.Popen[bytes]]]:
    """``edge-video top`` on a terminal of its own."""
    screen = Screen()
    fcntl.ioctl(screen.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "top", "-c", str(site.file), "--interval", "0.2"],
        cwd=ROOT,
        stdin=screen.slave,
        stdout=screen.slave,
        stderr=screen.slave,
        env={key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")} | {"TERM": "xterm"},
        start_new_session=True,
        preexec_fn=partial(fcntl.ioctl, screen.slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - it calls only ioctl
    )
    try:
        yield screen, process
    finally:
        process.kill()
        process.wait()
        screen.go_away()
        os.close(screen.slave)


def shows(screen: Screen, text: bytes) -> None:
    """Wait until something is shown that was not yet."""
    wait_until(
        lambda: text in screen.shown, 30, text.decode(), log=lambda: screen.shown[-3000:].decode(errors="replace")
    )
    screen.shown = b""


def test_top_on_a_terminal(site: Site, redis_server: RedisServer) -> None:
    """It waits for its site, shows it, answers to keys and to a new size, and leaves the terminal as it was."""
    site.write(cameras=CAMERAS, redis={"address": redis_server.address})
    with top_on_a_terminal(site) as (screen, process):
        before = termios.tcgetattr(screen.slave)
        shows(screen, b"waiting for it to start")
        assert not termios.tcgetattr(screen.slave)[3] & termios.ECHO
        site.start()
        shows(screen, b"3 of 3 cameras active")
        for keys, text in (
            (b"s", b"sort: state"),
            (b"\x1b[D", b"sort: camera"),
            (b"r", b"reversed"),
            (b"/cam2\r", b"filter: cam2"),
            (b"\r", b"captured of 10"),
            (b"\x1b", b"filter: cam2"),
            (b"p", b"no camera matches"),
            (b"h", b"select a camera"),
            (b"x", b"problems only"),
            (b" ", b"PAUSED"),
        ):
            os.write(screen.master, keys)
            shows(screen, text)
        os.write(screen.master, b" \x1b")
        shows(screen, b"sort: camera")
        fcntl.ioctl(screen.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        shows(screen, b"source")
        os.write(screen.master, b"q")
        assert process.wait(30) == 0
        shows(screen, b"\x1b[?1049l")
        assert termios.tcgetattr(screen.slave) == before
    keys = {signal.SIGINT: b"\x03", signal.SIGQUIT: b"\x1c"}
    for end, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGQUIT, 131)):
        with top_on_a_terminal(site) as (screen, process):
            before = termios.tcgetattr(screen.slave)
            shows(screen, b"cam2")
            if end in keys:
                os.write(screen.master, keys[end])
            else:
                process.send_signal(end)
            assert process.wait(30) == code
            shows(screen, b"\x1b[?25h")
            assert termios.tcgetattr(screen.slave) == before
    with top_on_a_terminal(site) as (screen, process):
        shows(screen, b"cam2")
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 129
    once = command("top", "-c", str(site.file), "--once", "--interval", "0.2")
    assert once.returncode == 0
    assert "3 of 3 cameras active" in once.stdout
    assert "stored/s" in once.stdout
    assert max(map(len, once.stdout.splitlines())) <= 80
    piped = command("top", "-c", str(site.file))
    assert (piped.returncode, piped.stdout) == (2, "")
    assert piped.stderr.count("\n") == 1
    assert "--once" in piped.stderr
    assert site.stop() == 0
