"""The keyboard of ``top``: bytes of a terminal as names of keys, and what a key does to what is shown. Pure."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

#: What the cameras can be sorted by, in the order of ``<`` and ``>``.
SORTS = ("name", "state", "fps", "stored/s", "MB/s", "drops/s", "ring", "p99 ms", "cpu %")
#: Names sort from the first; figures from the largest.
_RISING = frozenset({"name", "state"})
_FILTER_CHARACTERS_MAX = 60
_SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1bOA": "up", b"\x1bOB": "down", b"\x1bOC": "right", b"\x1bOD": "left",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[H": "home", b"\x1b[F": "end",
    b"\x1b[1~": "home", b"\x1b[4~": "end", b"\x1bOH": "home", b"\x1bOF": "end",
}  # fmt: skip
_SINGLE = {b"\r": "enter", b"\n": "enter", b"\x1b": "escape", b"\x7f": "backspace", b"\x08": "backspace"}


class View(NamedTuple):
    """What a person has chosen to see. ``camera`` is the camera that is followed, empty for the list; ``selected`` the
    one that is marked; ``typing`` is True while a filter is typed."""

    sort: str = "name"
    reverse: bool = False
    filter: str = ""
    typing: bool = False
    problems: bool = False
    camera: str = ""
    selected: str = ""
    paused: bool = False
    help: bool = False
    ended: bool = False

    @property
    def falling(self) -> bool:
        """True if the largest comes first."""
        return (self.sort not in _RISING) != self.reverse


def split_keys(data: bytes) -> list[str]:
    """The keys in what a terminal sent at once: a name, or a character. Unknown sequences are left out."""
    keys: list[str] = []
    at = 0
    while at < len(data):
        if data[at] == 0x1B and at + 1 < len(data) and data[at + 1] in b"[O":
            end = at + 2
            while end < len(data) and not 0x40 <= data[end] <= 0x7E:
                end += 1
            name = _SEQUENCES.get(data[at : end + 1])
            at = end + 1
            if name:
                keys.append(name)
            continue
        name = _SINGLE.get(data[at : at + 1]) or _character(data[at : at + 4])
        if name and (len(name) > 1 or name.isprintable()):
            keys.append(name)
        at += len(name.encode()) if len(name) == 1 else 1
    return keys


def _character(data: bytes) -> str:
    """The first character of some bytes; empty if they do not begin with one in UTF-8."""
    for size in range(1, len(data) + 1):
        with suppress(UnicodeDecodeError):
            return data[:size].decode()
    return ""


def pressed(view: View, key: str, shown: list[str], page: int) -> View:
    """The view after a key. ``shown`` are the cameras of the list in their order, ``page`` how many fit at a time."""
    if view.typing:
        return _typed(view, key)
    if view.help:
        return view._replace(help=False, ended=key == "q")
    at = shown.index(view.selected) if view.selected in shown else -1
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page, "home": -len(shown)}
    if shown and key in (*steps, "end"):
        step = steps.get(key, len(shown))
        chosen = shown[min(max(at + step, 0), len(shown) - 1)]
        return view._replace(selected=chosen, camera=chosen if view.camera else "")
    order = SORTS.index(view.sort)
    match key:
        case "q":
            return view._replace(ended=True)
        case "escape" | "backspace":
            return view._replace(camera="") if view.camera else view._replace(filter="", problems=False)
        case "enter" | "right" if shown:
            chosen = view.selected if view.selected in shown else shown[0]
            return view._replace(camera=chosen, selected=chosen)
        case "left":
            return view._replace(camera="")
        case "s" | ">":
            return view._replace(sort=SORTS[(order + 1) % len(SORTS)], reverse=False)
        case "<":
            return view._replace(sort=SORTS[order - 1], reverse=False)
        case "r":
            return view._replace(reverse=not view.reverse)
        case "/":
            return view._replace(typing=True, filter="", camera="")
        case "p":
            return view._replace(problems=not view.problems, camera="")
        case " ":
            return view._replace(paused=not view.paused)
        case "h" | "?":
            return view._replace(help=True)
        case _:
            return view


def _typed(view: View, key: str) -> View:
    match key:
        case "enter":
            return view._replace(typing=False)
        case "escape":
            return view._replace(typing=False, filter="")
        case "backspace":
            return view._replace(filter=view.filter[:-1])
        case _ if len(key) == 1 and len(view.filter) < _FILTER_CHARACTERS_MAX:
            return view._replace(filter=view.filter + key)
        case _:
            return view
