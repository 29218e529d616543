"""The processes of a site load the libraries that its cameras need, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.http_cameras import HttpCameras
from tests.servers.wait import wait_until
from tests.system.site import Site

#: Of each library, a part of the names of its files.
LIBRARIES = {"cv2": "/cv2/", "numpy": "/numpy/", "PyAV": "/av/"}


@pytest.fixture
def run(short_path: Path) -> Iterator[Callable[..., dict[str, set[str]]]]:
    """Runs a site whose one camera sends JPEG over HTTP; returns the libraries of each process."""
    site = Site(short_path / "site", warm=False)

    def loaded(**camera: Any) -> dict[str, set[str]]:
        site.write(cameras=[{"id": "cam1", **camera}], ring={"capacity_mb": 1})
        site.start()
        wait_until(lambda: site.total("stored") >= 3, 30, "frames are stored")
        status = site.status()
        pids = {"supervisor": status["pid"]} | {one["role"]: one["pid"] for one in status["processes"]}
        return {role: libraries(pid) for role, pid in pids.items()}

    yield loaded
    site.end()


def libraries(pid: int) -> set[str]:
    files = Path(f"/proc/{pid}/maps").read_text()
    return {name for name, part in LIBRARIES.items() if part in files}


def test_jpeg_over_http_needs_none_of_those_that_decode(run: Callable[..., Any], short_path: Path) -> None:
    with HttpCameras(short_path / "cameras", 1, fps=15, kilobytes=8) as cameras:
        assert run(url=cameras.urls[0]) == {"supervisor": set(), "writer": set(), "capture": set()}


def test_what_a_camera_needs_is_loaded_before_the_forks(run: Callable[..., Any], short_path: Path) -> None:
    everything = set(LIBRARIES)
    with HttpCameras(short_path / "cameras", 1, fps=15, kilobytes=8) as cameras:
        loaded = run(url=cameras.urls[0], encoding="jpeg")
    assert loaded == {"supervisor": everything, "writer": everything, "capture": everything}
