"""``top`` on a real terminal, over a running site."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site, command

LEAVES_SCREEN = b"\x1b[?1049l"
SHOWS_CURSOR = b"\x1b[?25h"


class Terminal:
    """A terminal of 24 lines with ``top`` on it; keeps all that was shown."""

    def __init__(self, site: Site) -> None:
        self.master, slave = os.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [*COMMAND, "top", "-c", str(site.file), "--interval", "0.3"],
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        self.slave = slave
        self.shown = b""

    def read(self) -> bytes:
        while select.select([self.master], [], [], 0)[0]:
            self.shown += os.read(self.master, 65536)
        return self.shown

    def waits_for(self, text: str) -> None:
        wait_until(
            lambda: text.encode() in self.read(), 30, f"{text!r} is shown", log=lambda: ascii(self.shown[-3000:])
        )

    def press(self, keys: bytes) -> None:
        self.read()
        self.shown = b""
        os.write(self.master, keys)

    def ends(self) -> int:
        wait_until(lambda: (self.read(), self.process.poll())[1] is not None, 30, "top ends")
        assert LEAVES_SCREEN in self.read(), "it leaves the screen as it was"
        assert SHOWS_CURSOR in self.shown
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.wait()


@contextmanager
def top(site: Site) -> Iterator[Terminal]:
    terminal = Terminal(site)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
        os.close(terminal.slave)


def test_a_person_sorts_filters_and_follows_a_camera(site: Site, redis_server: RedisServer) -> None:
    cameras = [{"id": name, "url": "test://?size=320x240&fps=20&kb=10"} for name in ("yard", "gate", "hall")]
    site.write(
        cameras=[*cameras, {"id": "gone", "url": "http://127.0.0.1:9/x"}], redis={"address": redis_server.address}
    )
    site.start()
    with top(site) as terminal:
        terminal.waits_for("4 of 4 cameras by name")
        terminal.press(b"s")
        terminal.waits_for("by state")
        terminal.press(b"/hal\r")
        terminal.waits_for("1 of 4 cameras")
        terminal.press(b"\r")
        terminal.waits_for("MJPG passthrough, 320x240")
        terminal.press(b"\x1b")
        terminal.waits_for("cameras by state")
        terminal.press(b"\x1bp")
        terminal.waits_for("in trouble only")
        terminal.waits_for("1 of 4 cameras")
        terminal.press(b"?")
        terminal.waits_for("sort by the next or the previous column")
        termios.tcsetwinsize(terminal.slave, (50, 200))
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.press(b" ")
        terminal.waits_for("source")
        terminal.press(b"q")
        assert terminal.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_leaves_the_terminal_as_it_was(site: Site, number: signal.Signals) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}])
    with top(site) as terminal:
        terminal.waits_for("is not running; waiting for it")
        terminal.process.send_signal(number)
        assert terminal.ends() == 0


def test_without_a_terminal_it_is_one_clear_error(site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://"}])
    done = command("top", "-c", str(site.file))
    assert done.returncode == 2
    assert done.stderr == "edge-video: top needs a terminal; edge-video status prints the same once\n"
