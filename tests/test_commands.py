"""The command line: every command is listed with its own help text, and loads what it needs and no more."""

from __future__ import annotations

import subprocess
import sys

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


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("engine.cli.app", {"redis", "pika", "structlog", "psutil", "msgspec", "rich.console"}),
        ("engine.cli.look", {"redis", "pika", "structlog", "cv2", "numpy"}),
        ("engine.runtime.roles", {"redis", "pika", "structlog", "cv2", "numpy", "rich"}),
    ],
)
def test_what_is_not_needed_is_not_loaded(module: str, heavy: set[str]) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not heavy & set(done.stdout.split())
