"""Options and arguments that need no conversion.

Typer converts and checks every value with pydantic, whose import takes longer than most commands. Texts, readable
files, unset options and defaults are already what the command takes. Everything else, and whatever is wrong, goes to
typer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def pass_plain_values(command: Any) -> None:
    """Let a typer command take plain values as they are."""
    parse = command.parse_args

    def parse_args(context: Any, arguments: list[str]) -> Any:
        for parameter in command.get_params(context):
            _pass_plain_values(parameter)
        return parse(context, arguments)

    command.parse_args = parse_args


def _pass_plain_values(parameter: Any) -> None:
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if kind is None:
        return
    convert = parameter.process_value

    def process_value(context: Any, value: Any) -> Any:
        plain = _plain(value, kind, parameter)
        if plain is None:
            return convert(context, value)
        return parameter.callback(context, parameter, plain[0]) if parameter.callback else plain[0]

    parameter.process_value = process_value


def _plain(value: Any, kind: Any, parameter: Any) -> tuple[Any] | None:
    """The value that the command takes; None if typer has to look at it."""
    if value is None:
        several = parameter.multiple or parameter.nargs == -1
        return None if parameter.required else ((),) if several else (None,)
    if kind is Path and isinstance(value, str | Path):
        readable = os.access(value, os.R_OK) or not Path(value).exists()
        return (Path(value),) if readable else None
    if kind is str and isinstance(value, str):
        return (value,)
    if kind == list[str] and isinstance(value, list | tuple) and value:
        return (list(value),)
    # A default.
    return (value,) if type(value) is kind and value == parameter.default else None
