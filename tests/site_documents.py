"""Site documents as hypothesis strategies: every key of every section, with values at its bounds and beyond them,
text that breaks formats, addresses of all shapes, and values of other types.

Made from the configuration's own types, so that a key which is added is met too.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from engine.config import Camera, Config, Secret, Url

Document = dict[str, Any]

#: Text that paths, names, logins, titles and terminals have trouble with.
TEXTS = (
    "", "a", "cam1", "\0", "a\0b", "a b", " ", "\n", "\t\r", "\x1b[2J", "\x7f", "é", "ca\u0302m", "名前", "🎥",
    "\u2028", "\u200b\ufeff", "..", "../..", "/", "/tmp", "/dev/shm", "/dev/null", "/nowhere/x", "relative/x", "~",
    "-", "--help", "%", "%s", "%00", "%ff", "%2F", "{}", "'\"\\", "*?[]", ":", "a:b", "engine", "default", "journal",
    "cursor", "frames", "nan", "x" * 255, "x" * 256, "x" * 5000, "é" * 128, "é" * 120, "\u00df.example", "a..b",
    "h" * 64, ".x", "x.",
)  # fmt: skip
_SCHEMES = (
    "amqp://", "amqps://", "AMQP://", "redis://", "rediss://", "unix://", "rtsp://", "rtsps://", "http://", "file://",
    "test://", "gopher://", "rtsp:/", "//", "",
)  # fmt: skip
_LOGINS = ("", "u:p@", "u@", "u:@", ":p@", "@", "u%40:p%2F@", "u:%zz@", "u:p@ss@", "u:p/x@", "u:%00@", "é:ü@")
_HOSTS = (
    "", "h", "127.0.0.1", "192.168.1.5", "[::1]", "[::1", "localhost", "camera.local", "a..b", "h" * 64, "é.example",
    "\u2100", "h%41", "[fe80::1%25eth0]", "999.1.1.1",
)  # fmt: skip
_PORTS = ("", ":", ":1", ":0", ":65535", ":65536", ":x", ":-1", ":²")
_PATHS = (
    "", "/", "//", "/a", "/a/", "/a/b", "/a%2Fb", "/a;b", "/default", "/engine", "/%ff", "/%00", "/%", "/0", "/-1",
    "/" + "v" * 256, "/é", "/ a", "/stream", "/a.mp4", "/x\ny", "/" + "9" * 4400,
)  # fmt: skip
_QUERIES = (
    "", "?", "#", "?heartbeat=abc", "?heartbeat=1&heartbeat=2", "?foo=1", "?frame_max=1", "?ssl_options={'x'", "?db=1",
    "?db=x", "?size=64x48&kb=9", "?fps=1e-300", "?fps=nan", "?kb=9000", "?frames=-1", "?size=1x1", "#x",
)  # fmt: skip
_ADDRESSES = st.builds(
    "".join,
    st.tuples(*map(st.sampled_from, (_SCHEMES, _LOGINS, _HOSTS, _PORTS, _PATHS, _QUERIES))),
)
#: Addresses that are sound in most of their parts, so that what is wrong in one of them is met.
_NEARLY = st.one_of(
    st.builds("amqp://{}h{}{}{}".format, *map(st.sampled_from, (("", "u:p@", "u@"), ("", ":1"), _PATHS, _QUERIES))),
    st.builds("amqp://u:p@h/{}".format, st.sampled_from(TEXTS)),
    st.builds("redis://{}{}:1{}".format, *map(st.sampled_from, (_LOGINS, _HOSTS, _PATHS))),
    st.builds("test://{}".format, st.sampled_from(_QUERIES)),
    st.builds("rtsp://{}{}{}/stream".format, *map(st.sampled_from, (_LOGINS, _HOSTS, _PORTS))),
    st.builds("file://{}{}".format, *map(st.sampled_from, (_PATHS, _QUERIES))),
    st.sampled_from(("embedded", "/dev/video0", "/dev/video99", "clips/a.mp4", "a.mp4", "192.168.1.5/stream", "é.mp4")),
    st.sampled_from(TEXTS),
)
_WRONG = st.one_of(
    st.booleans(),
    st.integers(-1, 5),
    st.sampled_from((10**30, -(10**30), float("nan"), float("inf"), 1e-300, 1e300, -0.0)),
    st.sampled_from(TEXTS),
    st.sampled_from(([], {}, [{}], [5], {"a": 1}, datetime.date(2024, 1, 1), datetime.time(1, 2))),
)


def _bounds(kind: inspect.IntType | inspect.FloatType) -> tuple[Any, Any]:
    """The least and the greatest that a number may be."""
    low = kind.ge if kind.ge is not None else kind.gt
    high = kind.le if kind.le is not None else kind.lt
    assert low is not None, "a number of a site file has bounds"
    assert high is not None, "a number of a site file has bounds"
    return low, high


def value(kind: inspect.Type, *, sound: bool) -> st.SearchStrategy[Any]:
    """A value for a field of that type; unless ``sound``, one at, near or beyond its bounds."""
    if isinstance(kind, inspect.UnionType):
        return st.one_of(*(value(one, sound=sound) for one in kind.types if not isinstance(one, inspect.NoneType)))
    if isinstance(kind, inspect.IntType):
        low, high = _bounds(kind)
        steps = () if sound else (low - 1, high + 1)
        return st.sampled_from((low, low + 1, high - 1, high, *steps)) | st.integers(low, high)
    if isinstance(kind, inspect.FloatType):
        low, high = _bounds(kind)
        least = low if kind.ge is not None else 1e-300
        steps = () if sound else (low, 1e-300, 5e-324, -1.0, high * 1.001, float("nan"), float("inf"))
        return st.sampled_from((least, high, *steps)) | st.floats(least, high)
    if isinstance(kind, inspect.BoolType):
        return st.booleans()
    if isinstance(kind, inspect.LiteralType):
        return st.sampled_from(kind.values)
    if isinstance(kind, inspect.VarTupleType):
        return st.lists(value(kind.item_type, sound=sound), max_size=3)
    if isinstance(kind, inspect.DictType):
        return st.dictionaries(st.sampled_from(TEXTS), value(kind.value_type, sound=sound), max_size=2)
    if isinstance(kind, inspect.CustomType) and kind.cls in (Url, Secret):
        return _NEARLY | _ADDRESSES | st.text(max_size=12)
    assert isinstance(kind, inspect.StrType | inspect.CustomType), f"no strategy for {kind}"
    return st.sampled_from(TEXTS) | st.text(max_size=12) | _ADDRESSES


def _fields(struct: type) -> dict[str, inspect.Type]:
    kind = inspect.type_info(struct)
    assert isinstance(kind, inspect.StructType)
    return {field.encode_name: field.type for field in kind.fields}


SECTIONS = {
    name: {field.encode_name: field.type for field in kind.fields}
    for name, kind in _fields(Config).items()
    if isinstance(kind, inspect.StructType)
}
CAMERA = _fields(Camera)


#: Of ten values, so many are sound, and so many of another type; the rest is at, near or beyond its bounds.
_SOUND, _OTHER = 7, 1


@st.composite
def _changed(draw: st.DrawFn, fields: dict[str, inspect.Type], table: Document) -> Document:
    """``table`` with up to two of its keys set to something."""
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True)):
        roll = draw(st.integers(0, 9))
        table[name] = draw(_WRONG if roll < _OTHER else value(fields[name], sound=roll >= 10 - _SOUND))
        if name in ("width", "height"):
            # The two go together.
            table.setdefault("width", 640)
            table.setdefault("height", 480)
    return table


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A small site in which a few keys say something else; now and then of another shape altogether."""
    document: Document = {name: {} for name in SECTIONS if name != "site"} | {"site": {"heartbeat_seconds": 4000.0}}
    if draw(st.booleans()):
        document["amqp"]["amqp_url"] = "amqps://u:p@h:1/v"
    if draw(st.booleans()):
        document["redis"]["address"] = "rediss://u:p@h:1"
    for name in draw(st.lists(st.sampled_from(sorted(SECTIONS)), max_size=2, unique=True)):
        document[name] = draw(_changed(SECTIONS[name], document[name]))
    number = draw(st.integers(1, 2))
    document["cameras"] = [{"id": f"cam{index}", "url": "test://?size=64x48&kb=9"} for index in range(number)]
    if draw(st.booleans()):
        document["cameras"][0] = draw(_changed(CAMERA, document["cameras"][0]))
    if draw(st.integers(0, 19)) == 0:
        document[draw(st.sampled_from((*SECTIONS, "cameras", "ttl_seconds", "target_fps", "x")))] = draw(_WRONG)
    return document


def to_toml(document: Document) -> str:
    """A document of tables and an array of tables as TOML."""
    lines = []
    for name, table in document.items():
        for one in table if name == "cameras" else [table]:
            lines += [f"[[{name}]]" if name == "cameras" else f"[{name}]"]
            lines += [f"{key} = {_toml(item)}" for key, item in one.items()]
    return "\n".join(lines) + "\n"


def _toml(item: Any) -> str:
    if isinstance(item, str):
        return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(item, list):
        return f"[{', '.join(map(_toml, item))}]"
    if isinstance(item, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(one)}' for key, one in item.items())}}}"
    return str(item).lower() if isinstance(item, bool | float) else str(item)


def plain(document: Document) -> str:
    """A document as a failure shows it."""
    return msgspec.json.encode(document, enc_hook=str).decode()
