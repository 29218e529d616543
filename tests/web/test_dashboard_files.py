"""The dashboard's files over HTTP: their types, their ETags, nothing beside them, and nothing from another host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from engine.web import answers, dashboard
from tests.web.asking import ask

STATIC = Path(dashboard.__file__).parent / "static"
FILES = sorted(
    path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.suffix in {".js", ".css", ".html"}
)
OURS = [name for name in FILES if not name.startswith("vendor/")]
APP = Starlette(routes=dashboard.ROUTES, exception_handlers={HTTPException: answers.on_http_error})


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_its_type_and_an_etag_of_its_content(name: str) -> None:
    answer = ask(APP, f"/static/{name}")
    assert (answer.status, answer.body) == (200, (STATIC / name).read_bytes())
    expected = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}[Path(name).suffix]
    assert answer.headers["content-type"].split(";")[0] == expected
    again = ask(APP, f"/static/{name}", if_none_match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert ask(APP, f"/static/{name}", if_none_match='"another"').status == 200


def test_the_page_is_its_index() -> None:
    assert ask(APP, "/").body == (STATIC / "index.html").read_bytes()


@pytest.mark.parametrize(
    "path", ["../dashboard.py", "../../__init__.py", "", "/etc/passwd", "vendor", "no.js", "..", "a\x00.js"]
)
def test_nothing_else_is_served(path: str) -> None:
    assert ask(APP, f"/static/{path}").status == 404


@pytest.mark.parametrize("name", OURS)
def test_nothing_comes_from_another_host_and_no_text_becomes_markup(name: str) -> None:
    """The strict policy of the server would refuse inline scripts and styles; markup of users' text would get in."""
    text = (STATIC / name).read_text()
    hosts = set(re.findall(r"(?:https?:)?//[a-z0-9][a-z0-9.-]+\.[a-z]{2,}", text))
    assert not hosts
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    if name.endswith(".html"):
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script>", text)


def test_every_file_that_a_page_names_is_there() -> None:
    for name in OURS:
        text = (STATIC / name).read_text()
        for path in re.findall(r'(?:href|src)="/static/([^"]+)"', text):
            assert (STATIC / path).is_file(), f"{name} names {path}"
        for path in re.findall(r'from "\./([^"]+)"', text):
            assert (STATIC / path).is_file(), f"{name} imports {path}"


def test_vendored_files_name_their_version_and_licence() -> None:
    assert "uPlot (v" in (STATIC / "vendor/uPlot.esm.js").read_text()[:400]
    assert "Permission is hereby granted" in (STATIC / "vendor/uPlot.LICENSE").read_text()
