"""Writes docs/reliability.md: each case of the table, and what its runs observed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.cases import GROUPS, Case

PATH = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
_HEAD = """\
# Faults, and what they cost

`make faults` does each of these to a running site, {runs} times over, and writes this table. Twenty cameras send
numbered frames; afterwards a checker accounts for every number: stored and announced, or counted as dropped for a
reason. It reads Redis and listens at the broker, and holds both against the engine's counts. A fault that costs more
than the second column says fails the suite. The table is written only if each was over within its bound. `make test`
runs every case once, six of them beside a second tenant on the same servers that must not lose, repeat or delay
anything; `make soak` does a fault every 20 seconds for 15 minutes to 100 cameras.

*Observed* sums the runs up: frames captured, those that are missing by reason, events that came twice. *Recovery* is
the time from the end of the fault until all was as before, in seconds: the median, and in brackets the longest and the
bound.
"""
SOAK = "## Soak"
_GROUP = """
## {group}

| fault | may cost | observed | recovery, s |
| --- | --- | --- | --- |
"""


def write_report(runs: int, observed: Sequence[Mapping[str, Any]]) -> None:
    """Write the file anew. A case of which nothing was observed keeps its row; where a case passed in some runs only,
    took longer than its bound, or has no row yet, the file stays as it is."""
    standing = PATH.read_text().partition(SOAK)[0].splitlines(keepends=True) if PATH.exists() else []
    results: dict[str, list[Mapping[str, Any]]] = {}
    for result in observed:
        results.setdefault(str(result["key"]), []).append(result)
    lines = [_HEAD.format(runs={3: "three"}.get(runs, str(runs)))]
    for group, cases in GROUPS.items():
        lines.append(_GROUP.format(group=group))
        for case in cases:
            found = results.get(case.key, [])
            rows = [line for line in standing if line.startswith(row_head(case))]
            if case.key not in results and rows:
                lines.append(rows[0])
                continue
            if len(found) != runs:
                print(f"\ndocs/reliability.md not written: {case.key} passed {len(found)} of {runs} runs")
                return
            longest = max(float(result["seconds"]) for result in found)
            if longest > case.bound:
                print(f"\ndocs/reliability.md not written: {case.key} took {longest:.1f} s of {case.bound:g} s")
                return
            lines.append(f"{row_head(case)} {_observed(found)} | {_recovery(case, found)} |\n")
    PATH.write_text("".join(lines) + "\n" + _soak_part())


def write_soak(found: Mapping[str, Any]) -> None:
    """Put what a soak observed into the file."""
    drops = ", ".join(f"{count:,} `{reason}`" for reason, count in found["drops"].items()) or "none"
    faults = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in found["faults"].items())
    begin, end = found["begin"], found["end"]
    text = (
        f"{SOAK}\n\n{found['cameras']} cameras x 30 fps x 60 KB for {found['seconds'] // 60} minutes, a fault every "
        f"{found['every']:g} s ({faults}). Accounts balance: {found['captured']:,} frames captured, "
        f"{found['stored']:,} stored; missing: {drops}. Events: {found['expired']:,} expired, "
        f"{found['repeats']:,} came twice. {found['proved']:,} frames were proved by their payload.\n\n"
        "| | after the warm-up | at the end |\n| --- | --- | --- |\n"
        f"| memory, rings apart, MB | {begin['memory'] / 2**20:.0f} | {end['memory'] / 2**20:.0f} |\n"
        f"| file descriptors | {begin['descriptors']} | {end['descriptors']} |\n"
        f"| processes | {begin['processes']} | {end['processes']} |\n"
        f"| files in shared memory | {begin['files']} | {end['files']} |\n"
    )
    table = PATH.read_text().partition(SOAK)[0] if PATH.exists() else ""
    PATH.write_text(table + text)


def _soak_part() -> str:
    """What stands there of the last soak."""
    _, mark, after = (PATH.read_text() if PATH.exists() else "").partition(SOAK)
    return mark + after


def row_head(case: Case) -> str:
    """The part of a case's row that does not change from run to run."""
    return f"| {case.fault} | {case.loss} |"


def _observed(found: Sequence[Mapping[str, Any]]) -> str:
    accounts = [result["accounts"] for result in found if result["accounts"]]
    parts = []
    if accounts:
        captured = sum(account["captured"] for account in accounts)
        drops: dict[str, int] = {}
        for account in accounts:
            for reason, count in account["drops"].items():
                drops[reason] = drops.get(reason, 0) + count
        missing = ", ".join(f"{count:,} `{reason}`" for reason, count in sorted(drops.items()))
        parts.append(f"{captured:,} captured, {missing or 'none'} missing")
        for name, words in (("gone", "evicted"), ("expired", "events expired"), ("repeats", "events came twice")):
            total = sum(account[name] for account in accounts)
            if total:
                parts.append(f"{total:,} {words}")
    notes = dict.fromkeys(str(result["note"]) for result in found if result["note"])
    return "; ".join([*parts, *notes])


def _recovery(case: Case, found: Sequence[Mapping[str, Any]]) -> str:
    seconds = [float(result["seconds"]) for result in found]
    if not any(seconds):
        return "-"
    return f"{statistics.median(seconds):.1f} ({max(seconds):.1f} of {case.bound:g})"
