"""What ``edge-video top`` shows, and how keys change it. Pure: a state and a key give the next state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.cli.top_rates import CameraRates, Rates
from engine.runtime.status_cameras import CameraReport

#: Share of a ring from which its camera counts as a problem.
_RING_SHARE = 0.5
#: Characters of a filter.
_FILTER_MAX = 60
_STATES = ("offline", "stalled", "connecting", "active")


class Sort(NamedTuple):
    """A column to sort by: the key of a camera, and whether large values come first."""

    key: Callable[[CameraReport, CameraRates], Any]
    falling: bool


SORTS = {
    "camera": Sort(lambda camera, _: camera.id, False),
    "state": Sort(lambda camera, _: _STATES.index(camera.state) if camera.state in _STATES else 0, False),
    "fps": Sort(lambda camera, _: max(camera.fps, camera.packet_fps), True),
    "dropped": Sort(lambda camera, rates: (rates.dropped, dropped(camera)), True),
    "ring": Sort(lambda camera, _: fill(camera), True),
    "p99 ms": Sort(lambda camera, _: camera.latency_ms.p99, True),
    "cpu %": Sort(lambda _, rates: rates.cpu or 0.0, True),
}


class View(NamedTuple):
    """What is shown. ``typing`` is True while the filter is being typed; ``selected`` is a camera's id, and stays
    selected wherever sorting moves it; ``top`` is the first row of the table that is shown."""

    sort: str = "camera"
    reverse: bool = False
    filter: str = ""
    typing: bool = False
    problems: bool = False
    selected: str = ""
    top: int = 0
    detail: bool = False
    help: bool = False
    paused: bool = False
    quit: bool = False


def dropped(camera: CameraReport) -> int:
    """Dropped frames and access units."""
    return sum(camera.dropped.values()) + (sum(camera.video.dropped.values()) if camera.video else 0)


def fill(camera: CameraReport) -> float:
    """The share in use of the fuller ring."""
    return max(camera.ring.fill, camera.video.ring.fill if camera.video else 0.0)


def is_problem(camera: CameraReport, rates: CameraRates) -> bool:
    """Whether someone should look at a camera: not active, dropping now, a ring that fills, or an error."""
    return bool(
        camera.state != "active" or rates.dropped > 0 or fill(camera) >= _RING_SHARE or camera.consecutive_failures
    )


def chosen(cameras: Sequence[CameraReport], rates: Rates, view: View) -> list[CameraReport]:
    """The cameras that the view shows, in its order. Equal ones stand in the order of their ids."""
    words = view.filter.casefold()
    found = [
        camera
        for camera in cameras
        if (not words or any(words in text.casefold() for text in (camera.id, camera.name, camera.state)))
        and (not view.problems or is_problem(camera, rates.of(camera.id)))
    ]
    found.sort(key=lambda camera: camera.id)
    sort = SORTS[view.sort]
    found.sort(key=lambda camera: sort.key(camera, rates.of(camera.id)), reverse=sort.falling != view.reverse)
    return found


def settled(view: View, order: Sequence[str], rows: int) -> View:
    """The view with a selected camera that is shown, and scrolled so that it is among ``rows`` rows."""
    if not order:
        return view._replace(top=0)
    selected = view.selected if view.selected in order or view.detail else order[min(view.top, len(order) - 1)]
    at = order.index(selected) if selected in order else 0
    top = min(max(view.top, at - rows + 1), at, max(len(order) - rows, 0))
    return view._replace(selected=selected, top=max(top, 0))


def press(view: View, key: str, order: Sequence[str], rows: int) -> View:
    """The view after a key. ``order`` are the ids of the cameras that it shows, of which ``rows`` fit on the screen."""
    if view.typing:
        return _typed(view, key)
    if view.help:
        return view._replace(help=False, quit=key == "q")
    if key == "esc":
        return view._replace(detail=False) if view.detail else view._replace(filter="", problems=False)
    if key in _TOGGLES:
        return _TOGGLES[key](view)
    if key in ("<", "left", ">", "right", "s"):
        names = list(SORTS)
        step = -1 if key in ("<", "left") else 1
        return view._replace(sort=names[(names.index(view.sort) + step) % len(names)], reverse=False, top=0)
    if key in ("enter", "backspace"):
        return view._replace(detail=key == "enter" and bool(view.selected))
    return _moved(view, key, order, rows)


_TOGGLES: dict[str, Callable[[View], View]] = {
    "q": lambda view: view._replace(quit=True),
    "h": lambda view: view._replace(help=True),
    "?": lambda view: view._replace(help=True),
    "r": lambda view: view._replace(reverse=not view.reverse),
    "p": lambda view: view._replace(problems=not view.problems),
    " ": lambda view: view._replace(paused=not view.paused),
    "/": lambda view: view._replace(typing=True, detail=False),
}


def _typed(view: View, key: str) -> View:
    if key == "enter":
        return view._replace(typing=False)
    if key == "esc":
        return view._replace(typing=False, filter="")
    if key == "backspace":
        return view._replace(filter=view.filter[:-1], top=0)
    if len(key) == 1 and len(view.filter) < _FILTER_MAX:
        return view._replace(filter=view.filter + key, top=0)
    return view


def _moved(view: View, key: str, order: Sequence[str], rows: int) -> View:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -rows, "page down": rows}
    steps |= {"home": -len(order), "g": -len(order), "end": len(order), "G": len(order)}
    if key not in steps or not order:
        return view
    at = order.index(view.selected) if view.selected in order else 0
    return view._replace(selected=order[min(max(at + steps[key], 0), len(order) - 1)])
