"""Names that try to break formats: what a tenant, prefix or camera could be called."""

from __future__ import annotations

from hypothesis import strategies as st

#: One name for each kind of character that a format must carry: separators, escapes, globs, spaces of all sorts,
#: control characters, letters that look like other letters.
HOSTILE = (
    ":",
    "a:b",
    "%",
    "%3A",
    "%%25",
    "100%d",
    "/",
    "a/b",
    "..",
    " ",
    "two words",
    "*",
    "?",
    "[a-z]",
    "\\",
    "\t\r\n",
    "\x00",
    "\x1f\x7f",
    "\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000",
    "câmera",
    "ca\u0302mera",
    "カメラ",
    "🎥",
    "\u200b\ufeff",
    "-",
    "+",
    "$5",
    "'\"{}",
    "x" * 2000,
    "%" * 500,
)

#: Any name that a key can hold.
names = (
    st.sampled_from(HOSTILE)
    | st.text(min_size=1, max_size=40)
    | st.text(alphabet=":%/ *?[]\\^-\t\n\x00\x85\u2028aA09é", min_size=1, max_size=12)
)
unix_nanos = st.integers(10**18, 10**19 - 1)
sequences = st.integers(1, 99_999)
