"""The result of a check: what was found, what is good, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

#: ``information``: could not be checked, or is intended. It does not affect the exit code.
Verdict = Literal["ok", "information", "warning", "broken"]
Part = Literal["redis", "rabbitmq", "machine", "cameras"]

_SEVERITY: dict[Verdict, int] = {"ok": 0, "information": 0, "warning": 1, "broken": 2}


class Finding(msgspec.Struct, frozen=True):
    """One check of one part of the site. ``good`` and ``todo`` may be empty."""

    part: Part
    check: str
    verdict: Verdict
    found: str
    good: str = ""
    todo: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """0 if all is good, 1 with warnings, 2 if something is broken."""
    return max((_SEVERITY[finding.verdict] for finding in findings), default=0)


def not_asked(part: Part, check: str, denied: str, what: str) -> Finding:
    """The finding for a check whose command, ``denied``, the engine's user may not send."""
    return Finding(
        part, check, "information", f"not checked: this user may not ask {denied}", what,
        "to see it, run the doctor with REDIS_USERNAME and REDIS_PASSWORD of a user who may",
    )  # fmt: skip
