"""The command line: the list of commands, and the module of each.

A command's module is loaded when the command is called, so that no command waits for the libraries of the others. The
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
from engine.cli.plain_values import pass_plain_values

#: The commands, in the order of the list. Of each: the module that has a function or a group of commands of that name,
#: and the first paragraph of its help text, so that the list can be shown without loading the module.
COMMANDS = {
    "demo": (
        "engine.cli.demo",
        "Run test cameras into a server of their own and report the result. Needs nothing installed.",
    ),
    "run": (
        "engine.cli.run",
        "Run all processes of a site until SIGTERM or Ctrl-C. Shows a live table on a terminal, else log lines.",
    ),
    "check": (
        "engine.cli.look",
        "Validate a site file. Prints the site as it will run, and the memory that it needs and that the machine has.",
    ),
    "status": (
        "engine.cli.look",
        "Show a running site: cameras, processes, publisher. The exit code is 1 if it is not running.",
    ),
    "top": (
        "engine.cli.top",
        "Watch a running site on the whole terminal: rates, cameras, processes. Sorts, filters, follows a camera.",
    ),
    "clean": (
        "engine.cli.run",
        "Remove what a killed site left: rings in shared memory, the embedded server. Their frames are lost. To keep "
        "them, start the site again instead.",
    ),
    "doctor": (
        "engine.cli.doctor",
        "Check a site's servers, machine and cameras. Shows what was found, what is good, and what to do.",
    ),
    "frames": (
        "engine.cli.frames",
        "Read stored frames: latest, by key, by time, live, as files.",
    ),
    "consume": (
        "engine.cli.consume",
        "Print each announced event, and whether its frame is there or gone, until Ctrl-C or SIGTERM.",
    ),
    "tenants": (
        "engine.cli.tenants",
        "List tenants, add up what they store, create Redis users for them.",
    ),
    "fleet": (
        "engine.cli.fleet",
        "Look at many sites from one place: their states, who is registered, users and rights for all of them.",
    ),
    "migrate": (
        "engine.cli.jobs",
        "Rename frames from old keys (frames:VHOST:CAMERA:RFC3339:SEQUENCE) to new ones, and list them in the "
        "journals.",
    ),
    "reindex": (
        "engine.cli.jobs",
        "Make a tenant's journals match its stored frames and video: add missing entries, remove stale ones. "
        "The site may be running. If stopped, run it again to continue.",
    ),
    "recover": (
        "engine.cli.jobs",
        "Send frames that were stored while the uplink was down to an AMQP exchange, oldest first, with payload and "
        "metadata headers. If stopped, run it again to continue with the next frame.",
    ),
}


class _Unloaded(TyperCommand):
    """A command in the list; ``load`` imports the function or group that runs when it is called."""

    def __init__(self, name: str, text: str, load: Callable[[], Any]) -> None:
        super().__init__(name, callback=None, help=text, short_help=text)
        self._load = load

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the loaded command, so that it runs instead of this one."""
        return self.loaded().make_context(info_name, args, parent, **extra)

    def loaded(self) -> Any:
        """The command itself."""
        found = self._load()
        if isinstance(found, typer.Typer):
            return _prepared(get_group(found))
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(found)
        return _prepared(get_command(alone))


def _prepared(command: Any) -> Any:
    """A command that starts fast: its values and its help need neither pydantic nor rich. Its help texts break lines
    only between paragraphs, and a list of commands shows the first paragraph whole."""
    for one in (command, *getattr(command, "commands", {}).values()):
        one.rich_markup_mode = None
        paragraphs = [" ".join(part.split()) for part in (one.help or "").split("\n\n")]
        one.help, one.short_help = "\n\n".join(paragraphs), paragraphs[0]
        pass_plain_values(one)
    return command


class Commands(TyperGroup):
    """All commands; their modules are not loaded yet."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of COMMANDS, then those of the roles."""
        self._add_roles()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None if there is none."""
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
    help="Reads many cameras, keeps their last minutes as JPEG frames in Redis, announces the frames through RabbitMQ.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edge-video {__version__}")
        raise typer.Exit


@_options.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


def commands() -> TyperGroup:
    """The whole command line."""
    group = get_group(_options)
    pass_plain_values(group)
    for name, (module, text) in COMMANDS.items():
        group.commands[name] = _Unloaded(name, text, partial(_command, module, name))
    return group


def app() -> None:
    """Run the command that this process's arguments name, then end the process."""
    commands().main()


def _command(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _role_command(name: str) -> Callable[..., None]:
    from engine.cli.roles import command

    return command(name)
