"""A fork of the warm process does what a new process does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, WARM, Site, command
from tests.system.warm import fits

ENVIRONMENT = {"COLUMNS": "90", "PYTHONPATH": str(ROOT)}


def fresh(*arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=directory,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def words(text: str) -> list[str]:
    """What a command says, without its numbers: how much memory is free differs from one moment to the next."""
    return re.sub(r"[\d.,]+", "0", text).split()


@pytest.mark.parametrize("arguments", [["--help"], ["chek"], ["check"], ["check", "-c", "/none.toml"], ["status"]])
def test_output_and_exit_code_are_those_of_a_new_process(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('[[cameras]]\nid = "câm"\nurl = "test://"\n')
    warm = command(*arguments, environment=ENVIRONMENT, directory=tmp_path)
    new = fresh(*arguments, directory=tmp_path)
    assert warm.returncode == new.returncode
    assert words(warm.stdout) == words(new.stdout)
    assert words(warm.stderr) == words(new.stderr)


def test_each_has_an_environment_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('[[cameras]]\nid = "cam1"\nurl = "test://"\n')
    elsewhere = {"REDIS_ADDRESS": "192.0.2.1:6379"}
    assert "192.0.2.1" in command("check", environment=elsewhere, directory=tmp_path).stdout
    assert "192.0.2.1" not in command("check", directory=tmp_path).stdout


def test_what_an_interpreter_reads_first_wants_a_new_one() -> None:
    assert fits(os.environ)
    for name in ("PYTHONUTF8", "LC_ALL", "LANG", "OPENCV_LOG_LEVEL"):
        assert not fits({**os.environ, name: "other"}), name


def test_one_that_does_not_end_is_killed(site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://?size=64x48&kb=9"}], ring={"capacity_mb": 1})
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        WARM.run(["run", "-c", str(site.file)], os.environ, ROOT, 5)
    assert "site started" in raised.value.__notes__[0]
    wait_until(lambda: not site.status()["running"], 20, "its children are gone as well")


def test_its_site_is_signalled_and_waited_for_as_any_process(site: Site) -> None:
    site.write(cameras=[{"id": "cam1", "url": "test://?size=64x48&kb=9"}], ring={"capacity_mb": 1})
    site.start()
    assert site.process is not None
    assert not isinstance(site.process, subprocess.Popen)
    assert site.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        site.process.wait(0.01)
    site.process.send_signal(signal.SIGKILL)
    assert site.process.wait(30) == -signal.SIGKILL
    assert site.process.poll() == site.process.returncode == -signal.SIGKILL
