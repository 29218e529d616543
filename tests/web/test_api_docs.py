"""docs/api.md: its commands are run against a real site, and its answers are the site's."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from engine.web import frame_lists, frames, history
from engine.wire import jpeg
from tests.web.conftest import WebSite

DOCUMENT = (Path(__file__).parents[2] / "docs/api.md").read_text()
SHELL = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("commands", SHELL, ids=range(len(SHELL)))
def test_commands_work_as_they_stand(web_site: WebSite, tmp_path: Path, commands: str):
    script = commands.replace("127.0.0.1:8080", f"127.0.0.1:{web_site.port}")
    done = subprocess.run(["sh", "-euc", script], cwd=tmp_path, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done
    made = list(tmp_path.iterdir())
    assert made or done.stdout, "a command shows or stores something"
    for file in made:
        if file.suffix == ".jpg":
            assert jpeg.inspect(file.read_bytes()).width == 320
        elif file.suffix == ".mp4":
            assert file.read_bytes()[4:8] == b"ftyp"
        else:
            assert json.loads(file.read_bytes())["openapi"] == "3.1.0"
    for line in done.stdout.replace(b"}{", b"}\n{").splitlines():
        json.loads(line)


def test_the_error_is_the_one_that_is_answered(web_site: WebSite):
    (shown,) = re.findall(r"^```json\n(.*?)\n```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert web_site.get("cameras/cam1/latest.jpg?width=9999").body.decode() == shown


def test_headers_paths_and_bounds_are_those_of_the_answers(web_site: WebSite):
    headers = web_site.get("cameras/cam1/latest.jpg").headers
    named = re.findall(r"`(ETag|Last-Modified|X-[\w-]+)`", DOCUMENT)
    assert set(named) >= {"ETag", "Last-Modified"}
    assert {name.lower() for name in headers if name.startswith("x-frame-") and name != "x-frame-options"} == {
        name.lower() for name in named if name.startswith("X-Frame")
    }
    for path in re.findall(r"^\| (`/api/v1/.*?) \|", DOCUMENT, re.MULTILINE):
        for one in re.findall(r"`/api/v1/(.*?)`", path):
            if re.search(r"stream\.mjpeg|live\.mp4|events", one):
                # Does not end.
                continue
            assert web_site.get(one).status == 200, one
    bounds = (frame_lists.LIMIT_MAX, frame_lists.BUCKETS_MAX, frames.WIDTH_MAX)
    assert all(f"{bound:,}" in DOCUMENT for bound in bounds)
    assert f"({history.MINUTES_MAX} at most), a value every {history.INTERVAL_SECONDS} s" in DOCUMENT
