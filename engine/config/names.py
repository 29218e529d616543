"""Names in a site file: those of the Go edition, those that nobody knows, and where an error stands."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.errors import ConfigError

Structs = Mapping[str, type[msgspec.Struct]]
#: What a Go edition's file may say that has no meaning here, by section; "*" stands for all keys of it.
_GO_ONLY: dict[str, frozenset[str]] = {
    "": frozenset({"protocol", "use_optimized_capture"}),
    "optimization": frozenset({"*"}),
    "memory": frozenset({"*"}),
    "compression": frozenset({"*"}),
    "registration": frozenset({"*"}),
    "mqtt": frozenset({"*"}),
    "amqp": frozenset({"exchange", "routing_key_prefix", "ttl_seconds"}),
    "metadata": frozenset({"ttl_seconds"}),
}


def take_go_only(document: dict[str, Any]) -> list[str]:
    """Remove what only the Go edition knows; returns its names."""
    found = [key for key in _GO_ONLY[""] if document.pop(key, None) is not None]
    for section, names in _GO_ONLY.items():
        if section not in document or not isinstance(document[section], dict):
            continue
        if "*" in names:
            del document[section]
            found.append(f"[{section}]")
        else:
            found += [f"{section}.{key}" for key in names if document[section].pop(key, None) is not None]
    return sorted(found)


def map_go_keys(document: dict[str, Any]) -> None:
    """``target_fps`` and ``ttl_seconds`` at the top are the defaults of what we call by other names."""
    for old, section, key in (("target_fps", "defaults", "fps"), ("ttl_seconds", "redis", "ttl_seconds")):
        if old in document and isinstance(document.setdefault(section, {}), dict):
            document[section].setdefault(key, document.pop(old))


def refuse_unknown(document: dict[str, Any], sections: Structs, camera_struct: type[msgspec.Struct]) -> None:
    """Raises ConfigError for the first key that neither ``sections`` nor a camera has, with the nearest known one."""
    known = [*sections, "cameras", "target_fps", "ttl_seconds"]
    for key, value in document.items():
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{suggestion(key, known)}")
        if key in sections and isinstance(value, dict):
            _refuse_unknown_fields(value, sections[key], key)
        elif key == "cameras" and isinstance(value, list):
            for number, camera in enumerate(value):
                if isinstance(camera, dict):
                    _refuse_unknown_fields(camera, camera_struct, camera_label(number, camera))


def _refuse_unknown_fields(table: dict[str, Any], struct: type[msgspec.Struct], where: str) -> None:
    known = list(struct.__struct_fields__)
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key '{where}.{key}'{suggestion(key, known)}")


#: msgspec's words: what was expected, within which bound, and what was given.
_EXPECTED = re.compile(r"Expected ((?:\w+)(?: \| \w+)*)(.*?)(?:, got (.*))?")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "date": "a date",
    "datetime": "a time",
}
#: The same of what was given, where that reads better.
_GIVEN = {"float": "a fraction"}
_LENGTH = re.compile(r" of length (>=|<=) (\d+)")
_LIMIT = re.compile(r" (>=|<=) (\S+)")
_SIGNS = {">=": "at least", "<=": "at most"}


def suggestion(word: str, known: list[str]) -> str:
    """The end of a sentence about an unknown ``word``: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known[:20])}"


def explain(message: str, document: dict[str, Any]) -> str:
    """msgspec's words with the path as it stands in the file and, for a number, the value that was given."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    value: Any = document
    label = path
    for step in path.replace("[", ".[").split(".") if path else ():
        try:
            if step.startswith("["):
                number = int(step[1:-1])
                value = value[number]
                label = label.replace(f"cameras[{number}]", camera_label(number, value))
            else:
                value = value[step]
        except (KeyError, IndexError, ValueError, TypeError):
            value = None
    shown = f", not {value!r}" if isinstance(value, int | float) and ", got" not in text else ""
    return f"{label or 'site file'} {_plain(text)}{shown}"


def _plain(text: str) -> str:
    """msgspec's words about a value as the end of a sentence whose subject is the key."""
    text = text.replace("Object missing required field", "lacks the key").replace("`", "")
    if match := _EXPECTED.fullmatch(text):
        wanted, bound, got = match.groups()
        return f"must be {_kinds(wanted)}{_bounded(bound)}{f', not {_GIVEN.get(got) or _kinds(got)}' if got else ''}"
    if match := re.fullmatch(r"Invalid enum value (.*)", text):
        return f"cannot be {match[1]}"
    return f"{text[:1].lower()}{text[1:]}"


def _kinds(words: str) -> str:
    return " or ".join(_KINDS.get(word, word) for word in words.split(" | ") if word != "null") or "nothing"


def _bounded(bound: str) -> str:
    if match := _LENGTH.fullmatch(bound):
        return f" of {_SIGNS[match[1]]} {match[2]} {'character' if match[2] == '1' else 'characters'}"
    if match := _LIMIT.fullmatch(bound):
        return f" of {_SIGNS[match[1]]} {match[2]}"
    return bound


def camera_label(number: int, camera: Any) -> str:
    """How errors name a camera of the file: its place, and its id where it has one."""
    identifier = camera.get("id") if isinstance(camera, dict) else None
    return f"cameras[{number}] ({identifier})" if isinstance(identifier, str) else f"cameras[{number}]"
