"""What ``check`` prints of a site: video where there is video, and nothing of it elsewhere."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from engine.cli import check_view, look
from engine.config import Config, from_document
from engine.config.memory import redis_memory

DOOR = {"id": "door", "url": "http://192.0.2.1/mjpeg", "fps": 10}
GATE = {"id": "gate", "url": "rtsp://192.0.2.2/h264", "video": True, "decode": "key"}


def site(*cameras: dict[str, Any], **sections: Any) -> Config:
    return from_document({"cameras": list(cameras), **sections}, {})


def printed(config: Config, width: int = 200) -> str:
    text = io.StringIO()
    sizing = check_view.Sizing(1, 1, redis_memory(config), None, 0.5, 2)
    check_view.print_site(Console(file=text, width=width), config, sizing)
    return text.getvalue().replace("edge-video", "")


def row(text: str, camera: str) -> str:
    """A camera's line."""
    return next(line.rstrip() for line in text.splitlines() if line.startswith(f"{camera} "))


def test_video_is_shown_with_its_keys_time_and_memory():
    document = {"redis": {"ttl_seconds": 60, "prefix": "a/b"}, "video": {"ttl_seconds": 600}}
    text = printed(site(DOOR, GATE, **document))
    assert "engine:default:video:a%2Fb/<camera>:<unix_nano>:<sequence>, TTL 600 s" in text
    assert "and 15,000 packets of video (25/s, 600 s, 296 MiB)" in text
    assert row(text, "gate").endswith("  key, video")
    assert row(text, "door").endswith("  auto")


def test_a_decode_mode_is_shown_without_video_too():
    text = printed(site(DOOR, {**GATE, "video": False}))
    assert "decode" in text
    assert "packets" not in text


def test_a_site_of_jpegs_is_shown_without_video():
    text = printed(site(DOOR))
    assert not any(word in text for word in ("video", "decode", "packets", "GOP"))


LONG = {
    "id": "loading-ramp-north-east-2",
    "name": "Loading ramp",
    "url": f"rtsp://user:secret@192.0.2.77:8554/{'a-long-path-' * 6}",
    "video": True,
    "width": 1920,
    "height": 1080,
}


@pytest.mark.parametrize("width", [80, 100, 400])
def test_no_width_breaks_headers_or_cuts_names(width: int):
    text = printed(site(DOOR, GATE, LONG), width)
    header = next(line for line in text.splitlines() if line.startswith("camera "))
    shown = {"camera", "fps", "size", "quality", "encoding", "transport", "decode"}
    assert set(header.split()) == (shown | {"name", "url"} if width == 400 else shown)
    assert all(cell_len(line.rstrip()) <= width for line in text.splitlines())
    lines = [line.strip() for line in text.splitlines()]
    place = next(at for at, line in enumerate(lines) if line.startswith(LONG["id"]))
    # A URL that is longer than the line goes on in the next one.
    joined = "".join(lines[place : place + 5])
    assert "Loading ramp" in joined
    assert f"rtsp://***@192.0.2.77:8554/{'a-long-path-' * 6}" in joined.replace("  ", " ")
    assert "1920x1080" in joined


def test_the_cores_that_cameras_need_are_shown():
    assert re.search(r"cpu +about 0.50 of 2 cores", printed(site(DOOR), 80))


def test_events_of_gops_are_shown():
    document = {"amqp": {"amqp_url": "amqp://localhost"}, "metadata": {"video": "gop"}}
    assert "camera.metadata (event, GOPs of video)" in printed(site(GATE, **document))


def test_for_programs_all_keys_of_video_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "site.toml"
    camera = '[[cameras]]\nid = "gate"\nurl = "rtsp://192.0.2.2/x"\nvideo = true\ndecode = "key"\n'
    file.write_text(f'[site]\nrun_directory = "{tmp_path}"\n{camera}')
    look.check(file, json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["cameras"][0]["video"], document["cameras"][0]["decode"]) == (True, "key")
    assert document["video"] == {"ttl_seconds": None, "capacity_mb": 8}
    assert document["metadata"]["video"] == "none"
    assert 0 < document["cpu"]["need_cores"] < document["cpu"]["have_cores"]
    memory = document["redis_memory"]
    assert memory["packets"] == 25 * 300
    assert 0 < memory["video_bytes"] < memory["need_bytes"]
    # Two rings of 8 MiB.
    assert document["shared_memory"]["need_bytes"] > 16 * 2**20
