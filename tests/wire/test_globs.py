"""The matcher that test_keys relies on, against Redis's own behaviour."""

from __future__ import annotations

import pytest

from tests.wire.globs import matches


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a:*", "a:b:c", True),
        ("*:b:*", "a:b:c", True),
        ("*:b:*", "b:c", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("[ab]c", "bc", True),
        ("[^ab]c", "bc", False),
        ("[a-c]d", "bd", True),
        ("[c-a]d", "bd", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("a*", "a\nb", True),
        ("a", "ab", False),
    ],
)
def test_matching_follows_redis(pattern, text, expected):
    assert matches(pattern, text) is expected
