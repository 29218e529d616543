"""The command line: which commands there are, and in which module each is.

A command's module is loaded when the command is called, so that none waits for the libraries of the others. The
commands that run one role of a site alone come from the table of roles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from engine import __version__

#: Of each command, in the order of the list: the module that has a function, or a group of commands, of its name; and
#: the first paragraph of its help text, so that the list can be shown with nothing loaded.
COMMANDS = {
    "demo": (
        "engine.cli.demo",
        "Run test cameras into a server of its own, and say what happened. Needs nothing installed.",
    ),
    "run": (
        "engine.cli.run",
        "Run a site: all its processes, until SIGTERM or Ctrl-C. Shows a live table on a terminal, log lines "
        "otherwise.",
    ),
    "check": (
        "engine.cli.look",
        "Validate a site file; print the site as it will run, and the memory it needs against what the machine has.",
    ),
    "status": (
        "engine.cli.look",
        "Show a running site: cameras, processes, publisher. Exit code 1 where it does not run.",
    ),
    "clean": (
        "engine.cli.run",
        "Remove what a killed site left: rings in shared memory, the embedded server. Their frames are lost; a new "
        "start would go on with them.",
    ),
    "doctor": (
        "engine.cli.doctor",
        "Check servers, machine and cameras of a site; say what was found, what is good, what to do.",
    ),
    "frames": (
        "engine.cli.frames",
        "Read stored frames: latest, by key, by time, live, as files.",
    ),
    "consume": (
        "engine.cli.consume",
        "Print each event as it is announced, and whether its frame is there or gone, until Ctrl-C or SIGTERM.",
    ),
    "tenants": (
        "engine.cli.tenants",
        "Tenants: list them, add up what they store, give them Redis users.",
    ),
    "migrate": (
        "engine.cli.jobs",
        "Give frames under old keys (frames:VHOST:CAMERA:RFC3339:SEQUENCE) the new ones, and list them in the "
        "journals.",
    ),
    "reindex": (
        "engine.cli.jobs",
        "Make a tenant's journals agree with its frames' keys: list what no journal lists, remove entries of "
        "frames that are gone. It may be stopped and run again, while the site runs.",
    ),
    "recover": (
        "engine.cli.jobs",
        "Send stored frames, payload and metadata headers, to an AMQP exchange, oldest first: what piled up while "
        "the uplink was away. It may be stopped and run again, and goes on at the frame where it was.",
    ),
}


class _Unloaded(TyperCommand):
    """A command in the list; ``load`` gives what runs when it is called."""

    def __init__(self, name: str, text: str, load: Callable[[], Any]) -> None:
        super().__init__(name, callback=None, help=text)
        self._load = load

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the loaded command, which thereby runs in place of this one."""
        return self.loaded().make_context(info_name, args, parent, **extra)

    def loaded(self) -> Any:
        """The command itself."""
        found = self._load()
        if isinstance(found, typer.Typer):
            return get_group(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(found)
        return get_command(alone)


class Commands(TyperGroup):
    """All commands, unloaded."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of COMMANDS, then those of the roles."""
        self._add_roles()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None where there is none."""
        if cmd_name not in self.commands:
            self._add_roles()
        return super().get_command(ctx, cmd_name)

    def _add_roles(self) -> None:
        from engine.runtime.roles import CHILD_ROLES

        for role in reversed(CHILD_ROLES):
            self.commands.setdefault(role.name, _Unloaded(role.name, role.help, partial(_role_command, role.name)))


_options = typer.Typer(
    name="edge-video",
    cls=Commands,
    help="Takes many cameras, keeps their last minutes as JPEG frames in Redis, announces them through RabbitMQ.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edge-video {__version__}")
        raise typer.Exit


@_options.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options before the command."""


def commands() -> TyperGroup:
    """The command line as a whole."""
    group = get_group(_options)
    for name, (module, text) in COMMANDS.items():
        group.commands[name] = _Unloaded(name, text, partial(_command, module, name))
    return group


def app() -> None:
    """Run the command that this process's arguments name; ends the process."""
    commands().main()


def _command(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _role_command(name: str) -> Callable[..., None]:
    from engine.cli.roles import command

    return command(name)
