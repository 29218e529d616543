"""What a check says: what was found, what is good, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

#: ``information`` is what could not be asked, or is as it is for a reason: it makes no exit code.
Verdict = Literal["ok", "information", "warning", "broken"]
Part = Literal["redis", "rabbitmq", "machine", "cameras"]

_SEVERITY: dict[Verdict, int] = {"ok": 0, "information": 0, "warning": 1, "broken": 2}


class Finding(msgspec.Struct, frozen=True):
    """One check of one part of the site. ``good`` and ``todo`` are empty where there is nothing to say."""

    part: Part
    check: str
    verdict: Verdict
    found: str
    good: str = ""
    todo: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """0 where all is good, 1 with warnings, 2 where something is broken."""
    return max((_SEVERITY[finding.verdict] for finding in findings), default=0)


def not_asked(part: Part, check: str, denied: str, what: str) -> Finding:
    """A check whose command, ``denied``, the engine's user may not send."""
    return Finding(
        part, check, "information", f"not checked: this user may not ask {denied}", what,
        "run it with REDIS_USERNAME and REDIS_PASSWORD of a user who may, to see",
    )  # fmt: skip
