"""A site under test: its file, its processes (through the real command), its status, what it stored."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import redis

from engine.config import Config, load
from engine.runtime.status import collect, to_json
from engine.shm.site import SitePaths
from engine.wire.keys import FrameKey, parse_frame_key
from engine.wire.test_mark import find_mark
from tests.servers.process import lives, titled
from tests.servers.wait import die_with_parent, wait_until
from tests.system.warm import ROOT, Fork, WarmProcess, fits

COMMAND = [sys.executable, "-m", "engine"]
COMMAND_SECONDS_MAX = 120.0
WARM = WarmProcess()
#: Sites of this worker have names of their own: ``status`` looks for running sites of the same name.
_NUMBERS = itertools.count(1)


def own_name(kind: str = "t") -> str:
    """A name for a site that no other site has, and that shows which worker runs it; another ``kind`` for a site that
    outlasts a test file."""
    return f"{kind}{os.getpid()}-{next(_NUMBERS)}"


def own_processes(name: str = "") -> dict[int, str]:
    """The running processes of the site of this ``own_name``, or of all that this worker has named; titles by id."""
    return titled(f"edge-video: {name}:" if name else f"edge-video: t{os.getpid()}-")


class Stored(NamedTuple):
    """What a Redis holds of a site: sequence numbers by camera in the order of their stamps, and all keys."""

    numbers: dict[str, list[int]]
    keys: list[FrameKey]


class Site:
    """One site file and the supervisor that runs it.

    A ``warm`` site's supervisor is a fork of the warm process. It starts in a fraction of the time, but its memory and
    its start say nothing about a real one's.
    """

    def __init__(self, directory: Path, *, warm: bool = False, name: str = "") -> None:
        self.directory = directory
        self.name = name or own_name()
        directory.mkdir(mode=0o700, parents=True)
        self.file = directory / "site.toml"
        self.log = directory / "stderr.log"
        self.process: subprocess.Popen[bytes] | Fork | None = None
        self.warm = warm
        #: What ``edge-video`` is called by; another than this is never warm.
        self.command = COMMAND
        #: What it finds in its environment besides.
        self.environment: dict[str, str] = {}

    def write(
        self,
        *,
        cameras: list[dict[str, Any]],
        redis: dict[str, Any] | None = None,
        amqp_url: str = "",
        **sections: dict[str, Any],
    ) -> Path:
        """Write the site file; sections as dictionaries."""
        site = {"name": self.name, "run_directory": str(self.directory / "s"), **sections.pop("site", {})}
        # Sites run side by side, and all would want the same port.
        # A monitor beside each of many sites would only take CPU from them; tests of alerts turn it on.
        document: dict[str, Any] = {"site": site, "web": {"listen": ""}, "alerts": {"enabled": False}, **sections}
        document["redis"] = redis or {}
        if amqp_url:
            document["amqp"] = {"amqp_url": amqp_url, **document.get("amqp", {})}
        lines = []
        for name, table in document.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
        for camera in cameras:
            lines += ["[[cameras]]", *(f"{key} = {json.dumps(value)}" for key, value in camera.items()), ""]
        self.file.write_text("\n".join(lines))
        return self.file

    @property
    def config(self) -> Config:
        return load(self.file, {})

    @property
    def paths(self) -> SitePaths:
        return SitePaths.of(self.config)

    def start(self, *arguments: str, wait: bool = True) -> None:
        """``edge-video run``, in the background; ``wait`` for its processes to be up."""
        arguments = ("run", "-c", str(self.file), *arguments)
        environment = {**os.environ, **self.environment}
        with self.log.open("ab") as log:
            # In a session of its own: tests stop processes of it, and a group that loses its shell while a member is
            # stopped gets SIGHUP from the kernel as a whole.
            if self.warm and self.command is COMMAND and fits(environment):
                self.process = WARM.start(arguments, environment, ROOT, log.fileno(), log.fileno(), session=True)
            else:
                self.process = subprocess.Popen(
                    [*self.command, *arguments],
                    cwd=ROOT,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=die_with_parent(),  # noqa: PLW1509  (see there)
                )
        if wait:
            wait_until(self.up, 30, "the site is up", log=self.log_text)

    def up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the site ended with {self.process.returncode}:\n{self.log_text()}"
        return self.paths.supervisor.exists() and bool(self.status()["running"])

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def status(self) -> dict[str, Any]:
        """What ``edge-video status --json`` prints, without the cost of a process."""
        report: dict[str, Any] = json.loads(to_json(collect(self.config, memory=False)))
        return report

    def camera(self, name: str) -> dict[str, Any]:
        return next(camera for camera in self.status()["cameras"] if camera["id"] == name)

    def total(self, field: str) -> int:
        return sum(int(camera[field]) for camera in self.status()["cameras"])

    def dropped(self) -> dict[str, int]:
        """Drops by reason, all cameras together, without the reasons that never occurred."""
        totals: dict[str, int] = {}
        for camera in self.status()["cameras"]:
            for reason, count in camera["dropped"].items():
                totals[reason] = totals.get(reason, 0) + count
        return {reason: count for reason, count in totals.items() if count}

    def pid(self, role: str, camera: str = "") -> int:
        return next(
            int(process["pid"])
            for process in self.status()["processes"]
            if process["role"] == role and process["camera"] == camera
        )

    def signal(self, number: signal.Signals, role: str, camera: str = "") -> int:
        """Send a signal to one process, and return its id. ``status`` may name one that has just ended; its successor
        then gets the signal."""

        def sent() -> int:
            pid = self.pid(role, camera)
            return pid if pid and sent_to(pid, number) else 0

        return wait_until(sent, 30, f"{role} {camera} gets a signal", log=self.log_text)

    def kill(self, role: str, camera: str = "") -> None:
        """kill -9 one process, and wait until the supervisor has replaced it."""
        before = self.signal(signal.SIGKILL, role, camera)
        wait_until(lambda: self.pid(role, camera) != before, 20, f"{role} {camera} was started again")

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM to the supervisor; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> None:
        """After a test: nothing of it runs, nothing is left in shared memory."""
        if self.process is not None and self.process.poll() is None:
            children = self.children()
            # First, or it would start its children again.
            self.process.kill()
            self.process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            # Dead is enough: orphans are collected by init, which may take seconds.
            wait_until(lambda: not any(map(lives, children)), 20, "its processes are dead")
        if self.file.exists():
            # Children of a killed supervisor hold its lock until they are gone; its embedded server runs on.
            wait_until(self._cleaned, 20, "what is left of the site is gone")
        wait_until(lambda: not own_processes(self.name), 20, "no process of the site is left", log=self._left)

    def _left(self) -> str:
        return "\n".join(f"{pid} {title}" for pid, title in own_processes(self.name).items())

    def _cleaned(self) -> bool:
        return "in use by a live site" not in command("clean", "-c", str(self.file)).stderr


def sent_to(pid: int, number: signal.Signals) -> bool:
    """Send a signal; whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def roles_section(address: str, password: str) -> dict[str, str]:
    """A site's ``[redis]`` with a user for each role, called by its name."""
    return {
        "address": address,
        "username": "writer",
        "password": password,
        "publisher_username": "publisher",
        "publisher_password": password,
    }


def command(
    *arguments: str, environment: dict[str, str] | None = None, directory: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run ``edge-video`` to its end, in a fork of the warm process where that makes no difference."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    if fits(variables):
        return WARM.run(arguments, variables, directory, COMMAND_SECONDS_MAX)
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=directory,
        env=variables,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )


def stored_frames(client: redis.Redis, vhost: str, prefix: str = "frames", *, check_stamps: bool = True) -> Stored:
    """Everything stored for a tenant; every test frame is proved, by its payload, to be what its key says."""
    keys = []
    for raw in client.scan_iter(match=f"{vhost}:{prefix}:*", count=5000):
        keys.append(parse_frame_key(raw))
        if check_stamps:
            stamp = find_mark(client.get(raw))
            key = keys[-1]
            assert (stamp.camera, stamp.frame, stamp.unix_nano) == (key.camera, key.sequence, key.unix_nano)
    keys.sort(key=lambda key: key.unix_nano)
    numbers: dict[str, list[int]] = {}
    for key in keys:
        numbers.setdefault(key.camera, []).append(key.sequence)
    return Stored(numbers, keys)


def missing_numbers(numbers: list[int]) -> list[int]:
    """Numbers between 1 and the last that are not there; asserts that none stands twice and all are in order."""
    assert numbers == sorted(set(numbers)), "numbers repeat or are out of order"
    return sorted(set(range(1, numbers[-1] + 1)) - set(numbers)) if numbers else []
