"""Glob patterns by Redis's rules (util.c, stringmatchlen), as KEYS and SCAN apply them."""

from __future__ import annotations

import re


def matches(pattern: str, text: str) -> bool:
    """Whether a Redis glob ``pattern`` matches all of ``text``."""
    return re.fullmatch(_regex(pattern), text, re.DOTALL) is not None


def _regex(pattern: str) -> str:
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out += ".*"
        elif char == "?":
            out += "."
        elif char == "\\" and at < len(pattern):
            out += re.escape(pattern[at])
            at += 1
        elif char == "[":
            members, at = _members(pattern, at)
            out += members
        else:
            out += re.escape(char)
    return out


def _members(pattern: str, at: int) -> tuple[str, int]:
    """The regex of a bracket whose inside begins at ``at``, and where it ends: with the text, if it is not closed."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    members = ""
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "\\" and at + 1 < len(pattern):
            at += 1
            members += re.escape(pattern[at])
        elif pattern[at + 1 : at + 2] == "-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            members += f"{re.escape(low)}-{re.escape(high)}"
            at += 2
        else:
            members += re.escape(pattern[at])
        at += 1
    if not members:
        return ("." if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{members}]", at + 1
