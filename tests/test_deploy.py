"""Files of ``deploy``: systemd itself takes the units, and what they promise fits the engine's own times."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.config import SiteSection
from engine.runtime.agent import HANG_SECONDS
from tests.system.site import ROOT, command

UNITS = sorted((ROOT / "deploy/systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
SITE = SiteSection()
#: Seconds that a stop takes at most besides the drain: a process that hangs, the embedded server.
STOP_SECONDS = HANG_SECONDS + 5


def settings(path: Path) -> dict[str, list[str]]:
    """A unit's settings; one may stand several times."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that exists, and a user."""
    for unit in UNITS:
        text = (
            unit.read_text().replace("/opt/edge-video/bin/edge-video", "/bin/true").replace("=edge-video\n", "=root\n")
        )
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_systemd_takes_the_units(units: Path, name: str) -> None:
    done = subprocess.run(["systemd-analyze", "verify", name], cwd=units, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [unit.name for unit in SERVICES])
def test_units_are_hardened(units: Path, name: str) -> None:
    """systemd's own measure, from 0 to 10; 2 is "OK". An undefined user would count as root."""
    text = (units / name).read_text().replace("User=root", "User=daemon")
    (units / name).write_text(text)
    words = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=25", str(units / name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_units_leave_time_to_drain_and_to_be_noticed(unit: Path) -> None:
    found = settings(unit)
    assert float(found["TimeoutStopSec"][0]) > SITE.drain_seconds + STOP_SECONDS
    assert float(found["WatchdogSec"][0]) > SITE.heartbeat_seconds
    # Of a site's processes the main one alone gets SIGTERM, and drains the others in order.
    assert found["KillMode"] == ["mixed"]
    assert found["Type"] == ["notify"]
    assert found["OOMPolicy"] == ["continue"]
    assert found["StartLimitIntervalSec"] == ["0"]
    # Each unit would have files of its own: locks in them would keep nobody out.
    assert "PrivateTmp" not in found
    assert found["RuntimeDirectoryPreserve"] == ["yes"]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_units_start_commands_that_exist(unit: Path) -> None:
    (line,) = settings(unit)["ExecStart"]
    words = line.replace("%i", "0").split()
    assert words[0] == "/opt/edge-video/bin/edge-video"
    # It knows the options, and lacks only the file.
    done = command(*words[1:])
    assert done.returncode == 2
    assert "/etc/edge-video/site.toml: cannot be read" in done.stderr


@pytest.mark.slow
def test_supervisord_s_programs_start_commands_that_exist() -> None:
    parser = configparser.ConfigParser(inline_comment_prefixes=(" ;",), interpolation=None)
    parser.read(ROOT / "deploy/supervisord.conf")
    programs = {name.partition(":")[2]: parser[name] for name in parser.sections() if name.startswith("program:")}
    assert set(programs) == {"edge-video", "publisher", "writer", "capture", "web", "monitor"}
    for program in programs.values():
        words = program["command"].replace("%(process_num)d", "0").split()
        assert "/etc/edge-video/site.toml: cannot be read" in command(*words[1:]).stderr
        assert float(program["stopwaitsecs"]) > SITE.drain_seconds + STOP_SECONDS
    # Highest first: as a frame travels.
    order = sorted(("monitor", "capture", "writer", "publisher"), key=lambda name: -int(programs[name]["priority"]))
    assert order == ["monitor", "capture", "writer", "publisher"]
    # Stopped all at once, a group would not keep that order.
    assert not [name for name in parser.sections() if name.startswith("group:")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a box has after ``pip install`` of the wheel, its dependencies apart."""
    directory = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(directory), str(ROOT)]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    (wheel,) = directory.glob("edge_video_engine-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "site-packages")
    return directory / "site-packages"


@pytest.mark.slow
def test_the_wheel_has_all_that_a_box_needs(installed: Path) -> None:
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "edge-video = engine.cli.main:main" in entry.read_text()
    assert {path.name for path in (installed / "engine/deploy/systemd").iterdir()} == {unit.name for unit in UNITS}
    assert (installed / "engine/deploy/supervisord.conf").exists()
    assert (installed / "engine/profiles/bench.toml").exists()
    assert (installed / "engine/py.typed").exists()
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


@pytest.mark.slow
def test_an_engine_from_the_wheel_runs(installed: Path) -> None:
    """From the wheel's own files, not from the checkout, which is installed in place here."""

    def run(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            [sys.executable, *words], cwd=installed, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert run("-c", "import engine; print(engine.__file__)").strip() == str(installed / "engine/__init__.py")
    summary = json.loads(
        run("-m", "engine", "demo", "--profile", "bench", "--seconds", "2", "--cameras", "2", "--json")
    )
    assert summary["captured"] == summary["stored"] > 0
    # The container image has no display libraries.
    assert "cv2" in (loaded := run("-c", "import cv2; print(open('/proc/self/maps').read())"))
    assert not re.findall(r"/lib(?:GL|X11|xcb|gtk|Qt)[\w-]*\.so", loaded)
