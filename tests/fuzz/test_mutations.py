"""Valid inputs with a few things wrong: bytes changed, cut out, repeated, spliced; lengths and counts that lie."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

#: Examples of the slow targets: "stream" starts a decoder for each, others a connection or files.
EXAMPLES = {"stream": 40, "video_file": 40, "leftovers": 100, "publisher": 80, "reader": 80, "writer": 150}
_NUMBER = re.compile(rb"\d+")
_NUMBERS = (b"0", b"-1", b"1", b"2", b"99999", b"100000", b"2147483648", b"18446744073709551616", b"9" * 4400)
_WORDS = (b"\0", b"\n", b"\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\xed\xa0\x80", b"[" * 2000)


@st.composite
def mutated(draw: st.DrawFn, target: str) -> bytes:
    """A seed of the target with up to five changes."""
    valid = seeds.seeds(target)
    words = st.sampled_from([*seeds.dictionary(target), *_WORDS]) | st.binary(max_size=9)
    data = draw(st.sampled_from(valid))
    for change in draw(st.lists(st.sampled_from(("flip", "cut", "repeat", "splice", "insert", "number")), max_size=5)):
        start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        numbers = [found.span() for found in _NUMBER.finditer(data)]
        if change == "flip" and start < len(data):
            data = data[:start] + bytes([data[start] ^ draw(st.integers(1, 255))]) + data[start + 1 :]
        elif change == "cut":
            data = data[:start] + data[end:]
        elif change == "repeat":
            data = data[:end] + data[start:]
        elif change == "splice":
            other = draw(st.sampled_from(valid))
            data = data[:start] + other[draw(st.integers(0, len(other))) :]
        elif change == "insert":
            data = data[:start] + draw(words) + data[start:]
        elif change == "number" and numbers:
            start, end = draw(st.sampled_from(numbers))
            data = data[:start] + draw(st.sampled_from(_NUMBERS)) + data[end:]
        data = data[:32_768]
    return data


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_no_mutation_breaks_a_promise(target: str) -> None:
    @settings(
        max_examples=examples(EXAMPLES.get(target, 300)),
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(target))
    def check(data: bytes) -> None:
        TARGETS[target](data)

    check()
