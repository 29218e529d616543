"""The descriptors that a site's processes have open: as many as the engine asks the system for."""

from __future__ import annotations

from pathlib import Path

from engine.doctor.machine_facts import gather
from engine.runtime.limits import FILES_MIN, FILES_PER_RING, files_needed
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site

VIDEO, JPEG = 5, 2


def opened(pid: int) -> list[Path]:
    """What the descriptors of a process lead to."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(link.readlink())
        except FileNotFoundError:
            continue
    return found


def test_a_camera_with_video_takes_as_many_descriptors_as_two(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    url = f"rtsp://127.0.0.1:{free_port()}/cam"
    video = [{"id": f"gate{number}", "url": url, "video": True} for number in range(VIDEO)]
    jpeg = [{"id": f"door{number}", "url": "test://?size=320x240&fps=20&kb=8"} for number in range(JPEG)]
    site.write(
        cameras=[*video, *jpeg],
        redis={"address": redis_server.address},
        metadata={"video": "gop"},
        amqp_url=rabbitmq.url(vhost),
    )
    site.start()
    config, shared = site.config, site.paths.directory
    rings = len(config.rings)
    assert rings == 2 * VIDEO + JPEG
    wait_until(lambda: site.status()["publisher"]["confirmed"] > 20, 30, "events are confirmed")
    files = {process["name"]: opened(process["pid"]) for process in site.status()["processes"]}
    assert site.process is not None
    files["supervisor"] = opened(site.process.pid)
    of_cameras = {
        name: sum(path.parent == shared and path.name.startswith(("gate", "door", "capture")) for path in paths)
        for name, paths in files.items()
    }
    assert of_cameras["writer"] == FILES_PER_RING * rings, files["writer"]
    assert max(of_cameras.values()) == of_cameras["writer"], of_cameras
    assert files_needed(config) >= FILES_MIN + of_cameras["writer"]
    assert all(len(paths) - of_cameras[name] <= FILES_MIN / 2 for name, paths in files.items()), of_cameras
    assert gather(config).files_need == files_needed(config)
    assert site.stop() == 0
