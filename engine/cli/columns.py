"""Rows of text in columns that fit a width. No cell is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_GAP = "  "
#: Most columns of the terminal for first cells if not everything fits; longer first cells get their own line.
LABEL_MAX = 24


class Column(NamedTuple):
    """A column. ``rank`` 0 is always shown. If not all columns fit, those with the highest rank are left out first."""

    name: str
    rank: int = 0
    right: bool = True


class Row(NamedTuple):
    """Cells, of which the first is the label; an optional line below them; the style of the second cell."""

    cells: Sequence[str]
    below: str = ""
    style: str = ""


def printable(text: str) -> str:
    """The text without characters that would move a terminal's cursor or change its colours."""
    return (
        text
        if text.isprintable()
        else "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    )


def wrapped(text: str, width: int, style: str = "") -> list[Text]:
    """The lines of a text, broken between words. Each has the text's indentation."""
    text = printable(text)
    if cell_len(text) <= width:
        return [Text(text, style=style)]
    indent = text[: len(text) - len(text.lstrip())]
    # Rich wants a console to wrap text; its width is not used.
    lines = Text(text.strip(), style=style).wrap(Console(), max(width - len(indent), 1), overflow="fold")
    for line in lines:
        line.rstrip()
    return [Text(indent, style=style) + line for line in lines]


def needed_width(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """Columns of the terminal for all columns of the table."""
    widths = _widths(columns, rows)
    return widths[0] + _rest(widths, list(range(len(columns))))


def layout(columns: Sequence[Column], rows: Sequence[Row], width: int, label_max: int = LABEL_MAX) -> list[list[Text]]:
    """The header's line, and the lines of each row. Nothing is cut: a terminal that is too narrow wraps lines."""
    rows = [row._replace(cells=[printable(cell) for cell in row.cells]) for row in rows]
    widths = _widths(columns, rows)
    shown = list(range(len(columns)))
    least = min(widths[0], label_max)
    for at in sorted(shown[1:], key=lambda at: -columns[at].rank):
        if least + _rest(widths, shown) <= width or not columns[at].rank:
            break
        shown.remove(at)
    label = max(min(widths[0], width - _rest(widths, shown)), least)
    lines = [[Text(_line([column.name for column in columns], columns, widths, shown, label), style="dim")]]
    lines += [_row(row, columns, widths, shown, label) + _below(row, width) for row in rows]
    return lines


def _widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    """The widest cell of each column, its name included."""
    return [
        max([cell_len(column.name), *(cell_len(row.cells[at]) for row in rows)]) for at, column in enumerate(columns)
    ]


def _below(row: Row, width: int) -> list[Text]:
    return wrapped(f"{_GAP}{row.below}", width, "dim") if row.below else []


def _row(row: Row, columns: Sequence[Column], widths: list[int], shown: list[int], label: int) -> list[Text]:
    cells = list(row.cells)
    lines = []
    if cell_len(cells[0]) > label:
        lines.append(Text(cells[0]))
        cells[0] = ""
    line = Text(_line(cells, columns, widths, shown, label))
    if row.style:
        line.stylize(row.style, label, label + len(_GAP) + widths[1])
    lines.append(line)
    return lines


def _rest(widths: list[int], shown: list[int]) -> int:
    """Columns of the terminal for all cells but the first, with their gaps."""
    return sum(widths[at] + len(_GAP) for at in shown[1:])


def _line(cells: Sequence[str], columns: Sequence[Column], widths: list[int], shown: list[int], label: int) -> str:
    parts = [_padded(cells[0], label, right=False)]
    parts += [_padded(cells[at], widths[at], right=columns[at].right) for at in shown[1:]]
    return _GAP.join(parts).rstrip()


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * max(width - cell_len(text), 0)
    return space + text if right else text + space
