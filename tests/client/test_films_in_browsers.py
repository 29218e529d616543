"""Exported films in a browser: Chromium loads them over HTTP, knows their size and length, seeks and plays them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.client.stocked import VHOST
from tests.client.stored_video import CAR, PERSON, arrivals, clip, stock_video
from tests.servers.browser import served
from tests.servers.redis_server import RedisServer
from tests.system.site import command

#: Answers what a film is, after it was sought and played to a second behind its middle, and the pixels shown there.
PAGE = """<!doctype html><video muted></video><script>
const film = document.querySelector("video"), seen = {};
const answer = error => fetch("/answer", {method: "POST", body: JSON.stringify({...seen, error})});
film.onerror = () => answer(`${film.error.code}: ${film.error.message}`);
film.onloadedmetadata = () => {
  Object.assign(seen, {width: film.videoWidth, height: film.videoHeight, duration: film.duration});
  seen.from = film.currentTime = film.duration / 2;
};
film.onseeked = () => film.play();
film.ontimeupdate = () => {
  if (film.paused || film.currentTime < seen.from + 1 || "played" in seen) return;
  seen.played = film.currentTime;
  seen.frames = film.getVideoPlaybackQuality().totalVideoFrames;
  const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 36});
  const context = canvas.getContext("2d");
  context.drawImage(film, 0, 0, 64, 36);
  seen.shades = new Set(context.getImageData(0, 0, 64, 36).data).size;
  answer(null);
};
film.src = "film.mp4";
</script>"""


@pytest.mark.one_server
@pytest.mark.parametrize("option", ["--video", "--fragmented"])
@pytest.mark.parametrize("source", [PERSON, CAR], ids=["B-frames", "Baseline"])
def test_a_browser_seeks_and_plays_an_export(
    client: Any, shared_redis: RedisServer, tmp_path: Path, source: str, option: str
) -> None:
    film = clip(source, 80)
    units = arrivals(film)
    stock_video(client, units)
    words = ["export", "cam1", option, "-o", str(tmp_path / "film.mp4"), "--redis", shared_redis.address]
    done = command("frames", *words, "--vhost", VHOST)
    assert done.returncode == 0, done.stderr
    (tmp_path / "page.html").write_text(PAGE)
    with served(tmp_path) as pages:
        seen = pages.ask("page.html", tmp_path)
    assert seen["error"] is None
    assert (seen["width"], seen["height"]) == (film.width, film.height)
    seconds = len(units) * film.interval_us / 1e6
    assert seen["duration"] == pytest.approx(seconds, abs=0.5)
    assert seen["played"] >= seen["from"] + 1
    assert seen["frames"] > 5
    assert seen["shades"] > 50
    assert pages.ranges
