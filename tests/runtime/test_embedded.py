"""The embedded server, of this supervisor or of another: found, adopted, given other settings, replaced, ended."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from engine.config import Config, from_document
from engine.errors import InputError
from engine.runtime import embedded, server_process
from engine.runtime.embedded import EmbeddedServer
from engine.shm.segment import private_directory
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until

#: Starts a server as a supervisor does that is killed in the midst of it: once the server's process is there
#: ("forked"), or when it has said who it is ("introduced").
KILLED = """
import os, signal, sys, time
from pathlib import Path
from engine.runtime import server_process
from engine.runtime.embedded import EmbeddedServer
from tests.runtime.test_embedded import config

server, parent, when = EmbeddedServer(config(Path(sys.argv[1]))), os.getpid(), sys.argv[2]
introduce = os.pwrite

def kill_before(*words):
    os.kill(parent, signal.SIGKILL)
    time.sleep(0.5)
    return introduce(*words)

def kill_after(*words):
    introduce(*words)
    os.kill(parent, signal.SIGKILL)

os.pwrite = {"forked": kill_before, "introduced": kill_after}[when]
server.start()
"""


def config(directory: Path, **settings: Any) -> Config:
    return from_document(
        {
            "site": {"run_directory": str(directory)},
            "redis": settings,
            "cameras": [{"id": "cam1", "url": "test://"}],
        },
        {},
    )


@pytest.fixture
def directory(short_path: Path) -> Iterator[Path]:
    path = private_directory(short_path / "s")
    yield path
    EmbeddedServer(config(path)).clean()
    assert not servers(path)


def servers(directory: Path) -> list[int]:
    """All server processes of a run directory, by their command lines."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(
            str(directory / "redis.sock") in word for word in words
        ):
            found.append(process.pid)
    return found


def client(directory: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(directory / "redis.sock"), decode_responses=True)


def left_behind(directory: Path, **settings: Any) -> EmbeddedServer:
    """A server with a key in it, of a supervisor that is gone."""
    server = EmbeddedServer(config(directory, **settings))
    server.start()
    assert not server.adopted
    client(directory).set("default:frames:cam1:1:1", "frame")
    client(directory).set("engine:default:cursor:frames", "x")
    return server


def test_a_server_is_adopted_with_all_that_it_holds(directory: Path) -> None:
    first = left_behind(directory)
    second = EmbeddedServer(config(directory))
    second.start()
    assert second.adopted
    assert second.pid == first.pid == servers(directory)[0]
    assert second.frames() == 1
    assert not second.exited()
    second.stop()
    assert first.exited()
    assert not servers(directory)
    assert os.listdir(directory) == []


def test_an_adopted_server_gets_the_settings_of_the_site_file(directory: Path) -> None:
    pid = left_behind(directory).pid
    second = EmbeddedServer(config(directory, max_memory_percent=10, persistence="aof"))
    second.start()
    assert second.pid == pid
    settings = client(directory).config_get("maxmemory") | client(directory).config_get("appendonly")
    assert settings == {"maxmemory": str(psutil.virtual_memory().total * 10 // 100), "appendonly": "yes"}
    # What it held before is in the file as well.
    wait_until(lambda: not client(directory).info("persistence")["aof_rewrite_in_progress"], 20, "the file is written")
    second.stop()
    third = EmbeddedServer(config(directory, persistence="aof"))
    third.start()
    assert (third.adopted, third.frames()) == (False, 1)


def test_a_server_that_ends_is_noticed_and_started_again(directory: Path) -> None:
    left_behind(directory)
    server = EmbeddedServer(config(directory))
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(server.exited, 10, "it is noticed")
    server.start()
    assert (server.adopted, server.frames()) == (False, 0)
    assert servers(directory) == [server.pid]


def test_a_restart_that_fails_is_tried_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedServer(config(directory))
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(server.exited, 10, "it is noticed")
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_binary", lambda: Path("/nowhere/valkey-server"))
        with pytest.raises(InputError, match=r"cannot be started: .*No such file"):
            server.start()
    assert server.exited()
    server.start()
    assert not server.exited()


def test_a_server_that_stands_still_is_replaced(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_SILENCE_SECONDS_MAX", 0.3)
    monkeypatch.setattr(embedded, "_STOP_SECONDS_MAX", 0.3)
    monkeypatch.setattr(embedded, "_ANSWER_SECONDS", 0.3)
    pid = left_behind(directory).pid
    os.kill(pid, signal.SIGSTOP)
    second = EmbeddedServer(config(directory))
    second.start()
    assert not second.adopted
    assert second.replaced
    assert servers(directory) == [second.pid] != [pid]


def test_another_server_at_the_socket_is_left_alone(directory: Path) -> None:
    with RedisServer(directory, binary="valkey", unix=True) as other:
        with pytest.raises(InputError, match=f"process {other.pid} listens at .*redis.sock"):
            EmbeddedServer(config(directory)).start()
        assert client(directory).ping()


@pytest.mark.parametrize("when", ["forked", "introduced"])
def test_a_server_whose_starter_was_killed_is_found_and_never_started_twice(directory: Path, when: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(directory), when], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    server = EmbeddedServer(config(directory))
    server.start()
    assert server.adopted
    assert servers(directory) == [server.pid]


def test_a_lock_that_names_a_stranger_names_nobody(directory: Path) -> None:
    """The server is gone, its process id is another's now, and something still has the lock."""
    pid = left_behind(directory).pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server_process.find(directory / "server.lock", 0) is None, 10, "nobody holds the lock")
    lock = (directory / "server.lock").open("r+b")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(b"%d 0\n" % os.getpid())
    lock.flush()
    assert server_process.find(directory / "server.lock", 0.1) is None
    assert EmbeddedServer(config(directory)).look() is False
    lock.close()


def test_a_lock_whose_holder_never_says_who_it_is_stops_no_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "_LOCK_SECONDS", 0.1)
    with (directory / "server.lock").open("wb") as lock:
        (directory / "server.lock").chmod(0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert server_process.find(directory / "server.lock", 0.1) is None
        monkeypatch.setattr(server_process.find, "__defaults__", (0.1,))
        server = EmbeddedServer(config(directory))
        server.start()
        assert servers(directory) == [server.pid]


def test_a_demo_s_server_dies_with_its_demo(directory: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from engine.runtime.embedded import EmbeddedServer\n"
        "from tests.runtime.test_embedded import config\n"
        "EmbeddedServer(config(Path(sys.argv[1])), outlives=False).start(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], check=False)
    wait_until(lambda: not servers(directory), 10, "it has ended")
    assert EmbeddedServer(config(directory)).clean() == (0, 0)
    assert os.listdir(directory) == []
