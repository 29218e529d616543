"""The tables of docs/metrics.md, made from the families that ``/metrics`` has.

``python -m engine.web.metrics_page`` writes them into the page, between its two marks.
"""

from __future__ import annotations

from pathlib import Path

from engine.web.metrics import FAMILIES
from engine.web.metrics_text import Family

_BEGIN = "<!-- Begin of the tables. They are made from the code: python -m engine.web.metrics_page -->"
_END = "<!-- End of the tables. -->"
_PAGE = Path("docs/metrics.md")


def tables() -> str:
    """The tables, one a subject, in Markdown."""
    parts = []
    for subject, families in FAMILIES.items():
        rows = [_row(family) for family in families]
        parts += [f"### {subject}", "", "| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    return "\n".join(parts)


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"


def filled(page: str) -> str:
    """The page with its tables as they must be. Raises ValueError if it lacks the marks."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the page needs {_BEGIN!r} and {_END!r}")
    return f"{before}{_BEGIN}\n\n{tables()}\n{_END}{after}"


if __name__ == "__main__":
    _PAGE.write_text(filled(_PAGE.read_text()))
