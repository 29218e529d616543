"""Writes docs/benchmarks.md, docs/benchmarks-tables.md and their plots from results/raw.json alone: the same results
give the same bytes. The first has the figures that matter most with their curves, the second all measurements.

A group is the part of a name before its first dot. The report defines the groups' order and descriptions; the
benchmarks define the names within them. Two details place a figure: ``goal`` ("<= 25", ">= 5000"; ``target=5000`` is
the same as the latter) puts it into the table of goals, ``claim`` into the table of the product page's claims. All
other details are shown as remarks.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.highlights import CHAPTERS, chapter_table, highlights, modes, number, with_measured

HERE = Path(__file__).parent
RAW = HERE / "results" / "raw.json"
TRIED = HERE / "tried.md"
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
#: The file of the tables, in the document's directory.
TABLES = "benchmarks-tables.md"
#: The plots' directory, relative to the document's.
PLOTS = "benchmarks"
#: An axis is logarithmic from this ratio of the largest to the smallest value.
_LOGARITHMIC = 20.0
#: Exponents that count as flat and as proportional: y grows with the power of x.
_FLAT, _PROPORTIONAL = 0.1, 0.15
#: Marker and line style of each series, in turn, so that series differ without colour.
_STYLES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", "-"), ("x", "--"), ("P", ":"), ("*", "-."))


class Group(NamedTuple):
    """A section: its heading, and what it compares."""

    title: str
    text: str


GROUPS = {
    "everyday": Group(
        "Everyday sites",
        "A few cameras that speak HTTP or RTSP, Redis by TCP, an event a frame, a consumer that listens. An `ffmpeg` a "
        "camera pipes its JPEGs into one Python process that does SETEX and `basic_publish` for each, with the Go "
        "edition's options or without encoding; OpenCV reads, encodes and does SETEX. Neither keeps a journal, waits "
        "for a confirm or counts a loss. The cameras' CPU is nobody's.",
    ),
    "keys": Group(
        "Keys",
        "Building and parsing a key; 19 digits of nanoseconds against the 30 characters of RFC 3339 that were there "
        "before. The product page says of the change: 36 % smaller, 10x faster to compare, 11 MB less per million "
        "keys. The first is a share of the timestamp alone; what it comes to for the whole key, and the others in "
        "Redis's own memory and against strings that are not parsed first, is what was measured here.",
    ),
    "ring": Group(
        "Ring",
        "A frame through shared memory between two processes, against a plain copy of it (the limit) and against what "
        "Python brings for the purpose.",
    ),
    "writer": Group(
        "Writer",
        "Frames into Redis, each under a new key with a TTL and with its journal entry, against `redis-benchmark` "
        "doing SET alone (the limit), a pipeline of redis-py, and the page's SETEX a frame.",
    ),
    "cluster": Group(
        "Redis Cluster",
        "The same site on one Valkey and on a cluster of three masters and three replicas, all on the same two cores: "
        "what a frame takes there. And the model of docs/scale.md: what smaller loads predict of a larger one.",
    ),
    "embedded_servers": Group(
        "Embedded servers",
        "One embedded server or a local cluster of two, and one to four writers, with rings that are full. Servers and "
        "writers share the machine's cores.",
    ),
    "publisher": Group(
        "Publisher",
        "Events to RabbitMQ, persistent and confirmed, against one confirmed message at a time, and against sending "
        "without confirms (the limit).",
    ),
    "capture": Group(
        "Capture",
        "CPU of a frame that is passed through or transcoded, against `VideoCapture.read` with `imencode`, and against "
        "`ffmpeg -f image2pipe`, of which the Go edition runs one a camera.",
    ),
    "video": Group(
        "Video",
        "H.264 cameras over RTSP, 720p, 15 fps, 2.5 Mbit/s, a key frame every 2 s: stored as they are sent, decoded at "
        "their key frames or whole, against OpenCV that decodes and encodes every frame; and reading what was stored.",
    ),
    "e2e": Group(
        "End to end",
        "A whole site (`edge-video run` with test cameras, the embedded Valkey, RabbitMQ) against the page's way in "
        "Python: one process that takes ready frames and does SETEX and `basic_publish` for each. That process reads "
        "no camera, keeps no journal and waits for no confirm; the engine's CPU here includes all three, and its "
        "supervisor's. The servers' CPU is counted on neither side.",
    ),
    "web": Group(
        "Web",
        "The HTTP interface: what it costs the engine that it runs beside, and what its answers cost the web process, "
        "against a plain server on the same event loop that answers from memory (the limit: no Redis, no routes, no "
        "checks). All other sites here run without it.",
    ),
    "growth": Group(
        "Growth",
        "Each cost as a curve: over cameras, over a frame's size, over the frames stored; reading beside the page's "
        "SCAN recipes.",
    ),
    "idle": Group(
        "Idle and start",
        "Starting, waiting with cameras connected, and the memory of a camera's process, against plain interpreters "
        "that have loaded OpenCV. Memory is PSS: what processes share is divided among them.",
    ),
}
_QUIET_DETAILS = {"value", "unit", "goal", "target", "claim", "runs", "load"}


def write_report(raw: Path = RAW, document: Path = DOCUMENT, tried: Path = TRIED) -> Path:
    """Write the report of the results in ``raw``: both texts and the plots. If modes.md beside it and the README of the
    parent directory exist, their figures are replaced, too. Writes all or nothing."""
    results = json.loads(raw.read_text())
    shown = {document.parent.parent / "README.md": highlights(results), document.parent / "modes.md": modes(results)}
    shown = {path: table for path, table in shown.items() if path.exists()}
    document.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".report-", dir=document.parent))
    try:
        draw(results, draft)
        names = sorted(path.name for path in draft.iterdir())
        (draft / document.name).write_text(render(results, tried.read_text() if tried.exists() else "", names))
        (draft / TABLES).write_text(render_tables(results, names))
        for path, table in shown.items():
            (draft / path.name).write_text(with_measured(path.read_text(), results, table))
        with _uninterrupted():
            plots = document.parent / PLOTS
            plots.mkdir(exist_ok=True)
            for old in plots.glob("*.svg"):
                if old.name not in names:
                    old.unlink()
            for name in names:
                (draft / name).replace(plots / name)
            (draft / document.name).replace(document)
            (draft / TABLES).replace(document.parent / TABLES)
            for path in shown:
                (draft / path.name).replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return document


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C, so that it leaves the old report or the new one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


def _again(run: Mapping[str, Any]) -> str:
    groups = run.get("again", ())
    return f"; something else ran beside {', '.join(groups)}, so some of those were measured again" if groups else ""


def render(results: Mapping[str, Any], tried: str, plots: Iterable[str]) -> str:
    """The report's text: the figures that matter most and their curves, the goals, and what was tried."""
    run = results["run"]
    lines = [
        "# Benchmarks",
        "",
        f"Run **{run['name']}** on {run['cpu']}, {run['memory_gb']} GB, Linux {run['kernel']}, Python {run['python']}. "
        f"All numbers are of that run{_again(run)}. `benchmarks/report.py` writes this file and "
        f"[all tables]({TABLES}) from `benchmarks/results/raw.json`. Each comparison is measured in turns, in one run. "
        "[How it is measured](../benchmarks/README.md).",
        "",
    ]
    lines += _failures(results["ratios"])
    for chapter in CHAPTERS:
        table = chapter_table(chapter, results)
        if table:
            lines += [f"## {chapter.title}", "", *table]
        for highlight in chapter.highlights:
            curve = results["curves"].get(highlight.curve)
            if curve:
                lines += [f"### {highlight.title}", "", *_curve(highlight.curve, highlight.title, curve, set(plots))]
    goals = _goals(results)
    if goals:
        lines += ["## Goals", "", "What the engine is built to, and whether this run reached it.", "", *goals]
    lines += ["## What was tried for speed", "", tried.strip() or "Nothing yet.", ""]
    return "\n".join(lines)


def render_tables(results: Mapping[str, Any], plots: Iterable[str]) -> str:
    """All measurements, by group."""
    lines = [
        "# Benchmarks: all tables",
        "",
        f"Run **{results['run']['name']}**. [benchmarks.md](benchmarks.md) has the figures that matter most. Every "
        "ratio is arranged so that more is better; one below its floor fails the run. Figures are this machine's.",
        "",
    ]
    for name in _group_names(results):
        lines += _section(name, results, set(plots))
    return "\n".join(lines)


def _group_names(results: Mapping[str, Any]) -> list[str]:
    """Groups that are not empty, in the report's order; unknown ones last."""
    found = {group_of(name) for kind in ("ratios", "figures", "curves", "skipped") for name in results[kind]}
    return [name for name in GROUPS if name in found] + sorted(found - set(GROUPS))


def group_of(name: str) -> str:
    """The group that a name belongs to."""
    return name.partition(".")[0]


def _of(group: str, entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A group's entries, by their names within the group."""
    return [(name.partition(".")[2] or name, entry) for name, entry in entries.items() if group_of(name) == group]


def _failures(ratios: Mapping[str, Any]) -> list[str]:
    below = [name for name, entry in ratios.items() if entry["floor"] is not None and entry["value"] < entry["floor"]]
    if not below:
        return []
    return [f"**Below their floors in this run: {', '.join(f'`{name}`' for name in below)}.**", ""]


def _goals(results: Mapping[str, Any]) -> list[str]:
    """The table of goals."""
    entries = [*results["figures"].items(), *results["ratios"].items()]
    rows = [(name, {**entry, "goal": goal}) for name, entry in entries if (goal := _goal(entry))]
    rows.sort(key=lambda row: list(GROUPS).index(group_of(row[0])) if group_of(row[0]) in GROUPS else len(GROUPS))
    if not rows:
        return []
    lines = ["| figure to build to | goal | measured | |", "| --- | --- | --- | --- |"]
    for name, entry in rows:
        load = f" ({entry['load']})" if "load" in entry else f" ({entry['against']})" if "against" in entry else ""
        lines.append(
            f"| {_words(name)}{load} | {entry['goal']} | {number(entry['value'])} {entry['unit']} | {_met(entry)} |"
        )
    return [*lines, ""]


def _goal(entry: Mapping[str, Any]) -> str:
    return entry["goal"] if "goal" in entry else f">= {entry['target']}" if "target" in entry else ""


def _met(entry: Mapping[str, Any]) -> str:
    sign, _, bound = entry["goal"].partition(" ")
    met = entry["value"] <= float(bound) if sign == "<=" else entry["value"] >= float(bound)
    return "met" if met else "missed"


def _words(name: str) -> str:
    group, _, rest = name.partition(".")
    title = GROUPS[group].title if group in GROUPS else group
    return f"{title}: {rest.replace('.', ', ')}"


def _section(name: str, results: Mapping[str, Any], plots: set[str]) -> list[str]:
    group = GROUPS.get(name, Group(name.capitalize(), ""))
    lines = [f"## {group.title}", ""]
    if group.text:
        lines += [group.text, ""]
    ratios = _of(name, results["ratios"])
    if ratios:
        lines += ["| ratio | value | floor | against |", "| --- | --- | --- | --- |"]
        for key, entry in ratios:
            floor = "" if entry["floor"] is None else number(entry["floor"])
            unit = "×" if entry["unit"] == "times" else f" {entry['unit']}"
            lines.append(f"| {key} | {number(entry['value'])}{unit} | {floor} | {_cell(entry['against'])} |")
        lines.append("")
    if ratios_plot(name) in plots:
        lines += [f"![{group.title}: guarded ratios and their floors]({PLOTS}/{ratios_plot(name)})", ""]
    figures = _of(name, results["figures"])
    claims = [(key, entry) for key, entry in figures if "claim" in entry]
    if claims:
        lines += ["| the page says | measured | |", "| --- | --- | --- |"]
        lines += [
            f"| {_cell(e['claim'])} | {number(e['value'])} {e['unit']} | {_remark(key, e)} |" for key, e in claims
        ]
        lines.append("")
    plain = [(key, entry) for key, entry in figures if "claim" not in entry]
    if plain:
        lines += ["| figure | value | |", "| --- | --- | --- |"]
        lines += [f"| {key} | {number(e['value'])} {e['unit']} | {_remark('', e)} |" for key, e in plain]
        lines.append("")
    for key, curve in _of(name, results["curves"]):
        lines += _curve(f"{name}.{key}", key, curve, plots)
    skipped = _of(name, results["skipped"])
    if skipped:
        lines += ["Not measured:", "", *(f"* {key}: {reason}" for key, reason in skipped), ""]
    return lines


def _curve(name: str, title: str, curve: Mapping[str, Any], plots: set[str]) -> list[str]:
    lines = []
    if plot_name(name) in plots:
        lines += [f"![{title}]({PLOTS}/{plot_name(name)})", ""]
    words = [f"{key}: {growth(points)}" for key, points in curve["series"].items() if len(points) > 1]
    text = f"{curve['y']} over {curve['x']}."
    if words:
        text += f" {'; '.join(words)}."
    if curve.get("note"):
        text += f" Note: {curve['note'].rstrip('.')}."
    return [*lines, text, ""]


def growth(points: Iterable[tuple[float, float]]) -> str:
    """Describe how a series grows, from its ends, in words and numbers."""
    (x0, y0), *_, (x1, y1) = sorted(tuple(point) for point in points)
    if min(x0, y0, y1) <= 0 or x0 == x1:
        return f"from {number(y0)} to {number(y1)}"
    power = math.log(y1 / y0) / math.log(x1 / x0)
    if abs(power) <= _FLAT:
        kind = "flat"
    elif abs(power - 1) <= _PROPORTIONAL:
        kind = "in proportion"
    elif power < 0:
        kind = "falls"
    else:
        kind = "slower than in proportion" if power < 1 else "FASTER than in proportion"
    return f"{kind} ({number(x1 / x0)} times the size, {number(y1 / y0)} times the value)"


def _remark(key: str, entry: Mapping[str, Any]) -> str:
    parts = [key] if key else []
    parts += [str(entry["load"])] if "load" in entry else []
    parts += [f"{name.replace('_', ' ')}: {_listed(v)}" for name, v in entry.items() if name not in _QUIET_DETAILS]
    return _cell("; ".join(parts))


def _listed(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_listed(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_listed(item)}" for key, item in value.items())
    return number(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def plot_name(curve: str) -> str:
    """The file of a curve's plot."""
    return "".join(letter if letter.isalnum() else "-" for letter in curve.lower()) + ".svg"


def ratios_plot(group: str) -> str:
    """The file of the plot of a group's guarded ratios."""
    return f"ratios-{group}.svg"


def draw(results: Mapping[str, Any], directory: Path) -> None:
    """Draw every curve, and each group's guarded ratios, into ``directory``."""
    if not results["curves"] and not results["ratios"]:
        return
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    # Text stays text, which keeps the files small; the salt makes the bytes the same in every run.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "edge-video", "font.size": 9})
    for name, curve in results["curves"].items():
        _draw_curve(pyplot, curve, directory / plot_name(name))
    for group in _group_names(results):
        guarded = {name: entry for name, entry in _of(group, results["ratios"]) if entry["floor"] is not None}
        if guarded:
            _draw_ratios(pyplot, guarded, directory / ratios_plot(group))


def _draw_curve(pyplot: Any, curve: Mapping[str, Any], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for position, (label, points) in enumerate(curve["series"].items()):
        marker, line = _STYLES[position % len(_STYLES)]
        ordered = sorted(tuple(point) for point in points)
        axes.plot(
            [x for x, _ in ordered],
            [y for _, y in ordered],
            color="black",
            marker=marker,
            linestyle=line,
            linewidth=1,
            markersize=5,
            markerfacecolor="white",
            label=label,
        )
    for position, use in enumerate((axes.set_xscale, axes.set_yscale)):
        values = _values(curve, position)
        if values and min(values) > 0 and max(values) / min(values) > _LOGARITHMIC:
            use("log")
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    axes.set_xlabel(curve["x"])
    axes.set_ylabel(curve["y"])
    axes.grid(visible=True, color="0.85", linewidth=0.5)
    axes.legend(frameon=False)
    _save(pyplot, figure, path)


def _values(curve: Mapping[str, Any], position: int) -> list[float]:
    return [point[position] for points in curve["series"].values() for point in points]


def _draw_ratios(pyplot: Any, ratios: Mapping[str, Any], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 0.6 + 0.26 * len(ratios)), layout="constrained")
    places = range(len(ratios))
    axes.barh(
        places, [entry["value"] for entry in ratios.values()], color="white", edgecolor="black", hatch="///", height=0.6
    )
    axes.plot([entry["floor"] for entry in ratios.values()], places, "k|", markersize=12, markeredgewidth=3)
    axes.set_yticks(places, list(ratios))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times what it is compared to (bar), and the floor (thick stroke); more is better")
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    _save(pyplot, figure, path)


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    print(write_report())
