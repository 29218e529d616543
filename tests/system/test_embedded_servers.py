"""A site on several servers of its own: killed, continued, one of its servers killed; every frame is accounted for."""

from __future__ import annotations

import os
import signal

import pytest

from engine.client.store import FrameStore
from engine.runtime.embedded_pids import running_pids
from tests.servers.wait import wait_until
from tests.system.site import Site, command
from tests.system.test_embedded import kill

FRAMES = 400
CAMERAS = [
    {"id": f"cam{number}", "url": f"test://?fps=40&kb=20&size=320x240&frames={FRAMES}"} for number in range(1, 5)
]


def stored(site: Site) -> dict[str, int]:
    """By camera: the frames that can be read."""
    with FrameStore.from_site(site.file) as store:
        return {camera: sum(1 for frame in store.range(camera) if frame.data) for camera in store.cameras()}


@pytest.mark.parametrize("key_tags", [False, True], ids=("plain", "tags"))
def test_every_frame_is_stored_or_counted_when_any_process_is_killed(key_tags: bool, site: Site) -> None:
    redis = {"embedded_servers": 2, "key_tags": key_tags, "ttl_seconds": 600}
    site.write(cameras=CAMERAS, redis=redis, writer={"writers": 2})
    site.start()
    wait_until(lambda: site.total("stored") > 100, 30, "frames flow", log=site.log_text)
    kill(site)
    pids = running_pids(site.config)
    assert len(pids) == 2
    before = sum(stored(site).values())
    assert before > 100
    done = command("status", "-c", str(site.file))
    assert f"pid {pids[0]}, {pids[1]}" in done.stdout
    site.write(cameras=CAMERAS, redis=redis | {"embedded_servers": 3})
    done = command("run", "-c", str(site.file))
    assert (done.returncode, "with redis.embedded_servers = 2 still run" in done.stderr) == (2, True), done.stderr

    site.write(cameras=CAMERAS, redis=redis, writer={"writers": 2})
    site.start()
    assert running_pids(site.config) == pids
    assert site.log_text().count("embedded server of a former run adopted") == 2
    assert sum(stored(site).values()) >= before
    wait_until(lambda: site.total("stored") > before + 200, 30, "frames flow again", log=site.log_text)
    os.kill(pids[1], signal.SIGKILL)
    wait_until(lambda: "embedded server ended" in site.log_text(), 10, "the supervisor starts another")
    wait_until(
        lambda: all(camera["state"] == "ended" or camera["captured"] >= FRAMES for camera in site.status()["cameras"]),
        60, "the cameras have ended", log=site.log_text,
    )  # fmt: skip

    def accounts() -> dict[str, list[int]]:
        """By camera: frames captured, frames that can be read, and frames that are counted as dropped."""
        readable = stored(site)
        return {
            camera["id"]: [camera["captured"], readable[camera["id"]], sum(camera["dropped"].values())]
            for camera in site.status()["cameras"]
        }

    wait_until(
        lambda: all(captured == readable + dropped for captured, readable, dropped in accounts().values()),
        30, "every captured frame can be read or is counted", log=lambda: f"{site.log_text()}\n{accounts()}",
    )  # fmt: skip
    assert site.dropped()["lost"] > 0
    new = running_pids(site.config)
    assert new[0] == pids[0]
    assert new[1] != pids[1]
    assert site.stop() == 0
    assert not running_pids(site.config)
    assert not [path.name for path in site.config.run_directory.glob("*")]
