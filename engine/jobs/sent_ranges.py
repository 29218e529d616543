"""Records which entries of a journal a recovery has sent: spans of ids, as text in a hash.

``1731-0..1740-5,1800-0..1900-7``: all entries between the two ids of a span, both included, were sent. Runs over
windows of time make several spans. Spans that touch are merged.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import WireError
from engine.wire.journal import entry_id, parse_entry_id

#: (unix_nano, sequence).
Identifier = tuple[int, int]


class Spans:
    """Disjoint spans of ids, in order."""

    def __init__(self, spans: Iterable[tuple[Identifier, Identifier]] = ()) -> None:
        self._spans: list[tuple[Identifier, Identifier]] = []
        for first, last in spans:
            self.add(first, last)

    @classmethod
    def parse(cls, text: bytes) -> Spans:
        """Inverse of ``text``. Raises WireError."""
        spans = []
        for span in text.split(b",") if text else ():
            first, dots, last = span.partition(b"..")
            if not dots:
                raise WireError(f"sent span {span[:60]!r} is not first..last")
            spans.append((parse_entry_id(first), parse_entry_id(last)))
        return cls(spans)

    @property
    def text(self) -> str:
        """The stored form of the spans."""
        return ",".join(f"{entry_id(*first)}..{entry_id(*last)}" for first, last in self._spans)

    def __contains__(self, identifier: Identifier) -> bool:
        return any(first <= identifier <= last for first, last in self._spans)

    def add(self, first: Identifier, last: Identifier) -> None:
        """Add a span, which may overlap others."""
        if first > last:
            return
        apart = []
        for span in self._spans:
            if span[1] < first or last < span[0]:
                apart.append(span)
            else:
                first, last = min(first, span[0]), max(last, span[1])
        self._spans = sorted([*apart, (first, last)])
