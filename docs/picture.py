"""Draws docs/status.svg: what ``edge-video status`` prints of a real site. Run it with ``python -m docs.picture``."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.servers.clips import read_clip, street_clip
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import free_port, wait_until
from tests.system.clips import person_clip
from tests.system.site import Site, command

PICTURE = Path(__file__).with_name("status.svg")
COLUMNS = 108
#: Frames of each camera before the picture is taken: at 5 fps, half a minute.
FRAMES = 150


def status_of_a_site(directory: Path) -> str:
    """Run a site of cameras of each kind, one of them unplugged, and return its status with colours."""
    clip = read_clip(street_clip(directory / "street.mp4"))
    tests = [{"id": f"aisle-{number}", "url": "test://?size=1280x720&fps=30&kb=60"} for number in range(1, 5)]
    with (
        RedisServer(directory / "redis") as redis,
        RabbitMQ(directory / "rabbitmq") as broker,
        RtspCamera(directory / "rtsp", clip=person_clip(), loop=True) as rtsp,
        RtspVideo(directory / "video", {"/cam": Mount(clip)}) as street,
        MjpegCamera(make_jpegs(100, (1280, 720)), fps=15) as http,
    ):
        broker.add_vhost("client-a")
        site = Site(directory / "site")
        site.write(
            site={"name": "shop"},
            cameras=[
                {"id": "entrance", "url": rtsp.url, "fps": 5},
                {"id": "gate", "url": street.url("/cam"), "video": True, "decode": "key"},
                {"id": "yard", "url": http.url},
                {"id": "dock", "url": f"rtsp://127.0.0.1:{free_port()}/cam"},
                *tests,
            ],
            redis={"address": redis.address},
            amqp_url=broker.url("client-a"),
        )
        try:
            site.start()
            working = [camera.id for camera in site.config.cameras if camera.id not in ("dock", "gate")]
            wait_until(lambda: all(site.camera(camera)["stored"] >= FRAMES for camera in working), 120, "the site runs")
            wait_until(lambda: site.camera("gate")["video"]["stored"] >= FRAMES, 60, "video is stored")
            printed = command("status", "-c", str(site.file), environment={"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)})
            site.stop()
        finally:
            site.end()
    return printed.stdout


def draw(printed: str) -> str:
    """The text as an SVG of a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(printed.rstrip()))
    return console.export_svg(title="edge-video status -c site.toml", unique_id="status")


def main() -> None:
    """Replace the picture."""
    directory = Path(tempfile.mkdtemp(prefix="ev-"))
    try:
        printed = status_of_a_site(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    PICTURE.write_text(draw(printed))
    print(printed)


if __name__ == "__main__":
    main()
