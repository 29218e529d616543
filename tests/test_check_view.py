"""What ``check`` prints of a site: video where there is video, and nothing of it elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.cli import look, show
from engine.config import Config, from_document
from engine.config.memory import redis_memory

DOOR = {"id": "door", "url": "http://192.0.2.1/mjpeg", "fps": 10}
GATE = {"id": "gate", "url": "rtsp://192.0.2.2/h264", "video": True, "decode": "key"}


def site(*cameras: dict[str, Any], **sections: Any) -> Config:
    return from_document({"cameras": list(cameras), **sections}, {})


def printed(config: Config) -> str:
    text = io.StringIO()
    show.print_site(Console(file=text, width=200), config, 1, 1, redis_memory(config), None)
    return text.getvalue().replace("edge-video", "")


def row(text: str, camera: str) -> str:
    """A camera's line."""
    return next(line.rstrip() for line in text.splitlines() if line.startswith(f" {camera} "))


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
    memory = document["redis_memory"]
    assert memory["packets"] == 25 * 300
    assert 0 < memory["video_bytes"] < memory["need_bytes"]
    # Two rings of 8 MiB.
    assert document["shared_memory"]["need_bytes"] > 16 * 2**20
