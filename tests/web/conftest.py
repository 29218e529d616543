"""One site with a web role for all tests of the API: cameras of several kinds, and names that need care."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, own_name
from tests.web.client import Answer, ask
from tests.web.streaming import streaming  # noqa: F401  (one for all files that ask for it)

#: A camera's name, and how it stands in a path.
HOSTILE = {"a/b": "a%2Fb", "..": "%2e%2e", "Ł ünï?#%2F": "%C5%81%20%C3%BCn%C3%AF%3F%23%252F", "x:y*": "x%3Ay*"}
#: Frames of the camera that ends.
FEW = 25
FILM = Path(__file__).parents[2] / "engine/cli/demo.mp4"


class WebSite(NamedTuple):
    site: Site
    redis: RedisServer
    port: int

    def get(self, path: str, **options: Any) -> Answer:
        return ask(self.port, f"/api/v1/{path}", **options)

    def lists(self, camera: str, count: int = 1) -> bool:
        return self.get(f"cameras/{camera}/frames?limit={count}").body.count(b'"key":') == count


@pytest.fixture(scope="session")
def web_site() -> Iterator[WebSite]:
    directory, port = Path(tempfile.mkdtemp(prefix="ev-")), free_port()
    pattern = "test://?size=320x240&fps=10&kb=20"
    cameras: list[dict[str, Any]] = [{"id": name, "url": pattern} for name in ("cam1", "cam2", *HOSTILE)]
    cameras.append({"id": "few", "url": f"{pattern}&frames={FEW}"})
    cameras.append({"id": "gate", "url": str(FILM), "loop": True, "video": True, "decode": "none"})
    with RedisServer(directory / "redis") as redis:
        site = Site(directory / "run", warm=True, name=own_name("web"))
        try:
            site.write(
                cameras=cameras,
                redis={"address": redis.address, "ttl_seconds": 600},
                web={"listen": f"127.0.0.1:{port}"},
            )
            site.start()
            web = WebSite(site, redis, port)
            wait_until(lambda: _serves(web), 30, "the web role answers", log=site.log_text)
            wait_until(lambda: web.lists("few", FEW), 30, "a camera has all its frames", log=site.log_text)
            for path in ("cam1", "cam2", *HOSTILE.values()):
                wait_until(lambda path=path: web.lists(path), 30, "all cameras have frames", log=site.log_text)  # type: ignore[misc]
            yield web
        finally:
            site.end()
    shutil.rmtree(directory, ignore_errors=True)


def _serves(web: WebSite) -> bool:
    try:
        return web.get("cameras").status == 200
    except OSError:
        return False
