"""The list of cameras that run, read from the rings in the site's directory."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shm import camera_list, ring_file, segment
from engine.shm.camera_list import CameraList, Changes
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.wire import ring_layout
from tests.wire.names import HOSTILE


class Directory:
    """A site's directory, the list of its cameras, and what the list passed over."""

    def __init__(self, shm: Path, *, video: bool = False) -> None:
        self.video = video
        self.paths = SitePaths(shm / "edge-video-site-0")
        self.paths.directory.mkdir(mode=0o700)
        self.odd: list[tuple[str, str]] = []
        self.list = CameraList(self.paths, lambda path, reason: self.odd.append((path.name, reason)), video=video)

    def make(self, *cameras: str) -> None:
        for camera in cameras:
            ring_file.create(self.ring(camera), 4096, camera, video=self.video)

    def ring(self, camera: str) -> Path:
        return self.paths.ring(camera, video=self.video)

    def age(self) -> None:
        """Let the directory's last change be long ago."""
        past = time.time_ns() - 10**9
        os.utime(self.paths.directory, ns=(past, past))


@pytest.fixture(params=[False, True], ids=["frames", "video"])
def directory(shm: Path, request: pytest.FixtureRequest) -> Directory:
    return Directory(shm, video=request.param)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that were read, one entry a time."""
    seen: list[str] = []
    scandir = os.scandir

    def counted(path):
        seen.append(path)
        return scandir(path)

    monkeypatch.setattr(camera_list.os, "scandir", counted)
    return seen


def test_rings_that_come_and_go_are_told_once(directory):
    look = directory.list.look
    assert look() == Changes()
    directory.make("b", "a")
    assert look() == Changes(came=("a", "b"))
    assert look() == Changes()
    directory.ring("a").unlink()
    assert look() == Changes(went=("a",))
    assert set(directory.list.rings) == {"b"}
    directory.make("a")
    assert look() == Changes(came=("a",))
    assert directory.odd == []


@pytest.mark.parametrize("camera", [name for name in HOSTILE if len(name.encode()) < 60])
def test_a_ring_s_header_names_its_camera(directory, camera):
    directory.make(camera)
    assert directory.list.look() == Changes(came=(camera,))


def test_a_ring_that_was_made_anew_has_gone_and_come(directory):
    directory.make("a", "b")
    directory.list.look()
    before = directory.list.rings["a"]
    # Held open, as the writer does, its inode is not given to the next file.
    held = segment.open_existing(directory.ring("a"))
    directory.ring("a").unlink()
    directory.make("a")
    assert directory.list.look() == Changes(came=("a",), went=("a",))
    assert directory.list.rings["a"] != before
    held.close()


def test_the_version_grows_with_each_change_that_is_found_and_only_then(directory):
    assert directory.list.version == 0
    directory.list.look()
    assert directory.list.version == 0
    directory.make("a", "b")
    directory.list.look()
    directory.list.look()
    assert directory.list.version == 1
    directory.ring("a").unlink()
    directory.list.look()
    assert directory.list.version == 2


def test_a_ring_that_was_moved_away_is_gone_and_said(directory):
    directory.make("a")
    directory.list.look()
    directory.ring("a").rename(directory.ring("b"))
    assert directory.list.look() == Changes(went=("a",))
    assert directory.odd == [(directory.ring("b").name, "it is the ring of camera 'a' under another name")]


def test_nothing_new_costs_no_look_at_the_files(directory, scans):
    directory.make("a")
    directory.age()
    assert directory.list.look().came == ("a",)
    assert len(scans) == 1
    for _ in range(10):
        assert directory.list.look() == Changes()
    assert len(scans) == 1


def test_a_second_change_within_the_clock_s_tick_is_found(directory):
    """The kernel's time stamps are coarse: a change may leave the directory's time as it was."""
    directory.make("a")
    assert directory.list.look().came == ("a",)
    status = directory.paths.directory.stat()
    directory.make("b")
    os.utime(directory.paths.directory, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert directory.list.look().came == ("b",)


def test_a_directory_that_looks_younger_than_the_clock_is_read_each_time(directory, scans):
    future = time.time_ns() + 3600 * 10**9
    directory.make("a")
    os.utime(directory.paths.directory, ns=(future, future))
    for _ in range(3):
        directory.list.look()
    assert len(scans) == 3


def test_a_ring_that_is_being_made_does_not_count(directory, monkeypatch):
    seen = []
    link = Path.hardlink_to

    def look_first(path, target):
        assert target.exists()
        seen.append(directory.list.look())
        link(path, target)

    monkeypatch.setattr(Path, "hardlink_to", look_first)
    directory.make("a")
    assert seen == [Changes()]
    assert directory.list.look().came == ("a",)
    assert directory.odd == []


def test_other_files_of_the_site_are_no_cameras(directory):
    StatusPage.create(directory.paths.capture("a"))
    StatusPage.create(directory.paths.supervisor)
    os.mkfifo(directory.paths.doorbell(0))
    assert directory.list.look() == Changes()
    assert directory.odd == []


def test_what_is_no_ring_of_this_site_is_passed_over_and_said_once(directory):
    directory.make("a", "version", "open")
    directory.ring("open").chmod(0o644)
    shared = segment.open_existing(directory.ring("version"))
    shared.words[ring_layout.W_VERSION] = 99
    shared.close()
    for name, content in (("empty", b""), ("short", b"x"), ("garbage", b"x" * 10_000)):
        directory.ring(name).touch(0o600)
        directory.ring(name).write_bytes(content)
    directory.ring("link").symlink_to(directory.ring("a"))
    directory.ring("directory").mkdir()
    os.mkfifo(directory.ring("fifo"))
    os.mknod(directory.ring("socket"), 0o600 | stat.S_IFSOCK)
    for _ in range(3):
        directory.list.look()
        directory.make(f"other{time.monotonic_ns()}")
    assert {name.removesuffix(".ring").removesuffix(".video") for name, _ in directory.odd} == {
        "version", "open", "empty", "short", "garbage", "link", "directory", "fifo", "socket",
    }  # fmt: skip
    assert len(directory.odd) == 9
    assert "a" in directory.list.rings


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_another_user_s_ring_is_passed_over(directory):
    directory.make("a")
    os.chown(directory.ring("a"), 12345, 12345)
    assert directory.list.look() == Changes()
    assert "belongs to uid 12345" in directory.odd[0][1]


def test_a_directory_that_goes_and_comes_back(directory):
    directory.make("a")
    directory.list.look()
    shutil.rmtree(directory.paths.directory)
    assert directory.list.look() == Changes(went=("a",))
    assert directory.list.look() == Changes()
    directory.paths.directory.mkdir(mode=0o700)
    directory.make("a")
    assert directory.list.look() == Changes(came=("a",))


@pytest.mark.parametrize("what", ["scandir", "open"])
def test_without_descriptors_what_is_known_stands_until_there_are_some(directory, monkeypatch, what):
    directory.make("a")
    directory.age()
    directory.list.look()
    directory.make("b")
    directory.age()
    with monkeypatch.context() as patched:

        def fail(*_, **__):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        patched.setattr(camera_list.os if what == "scandir" else segment.os, what, fail)
        assert directory.list.look() == Changes()
        assert set(directory.list.rings) == {"a"}
    assert directory.list.look() == Changes(came=("b",))
    assert directory.odd == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["make", "unlink", "look"])), max_size=20))
def test_whatever_happens_between_two_looks_the_sum_of_what_is_told_is_what_stands(tmp_path_factory, steps):
    directory = Directory(tmp_path_factory.mktemp("site"))
    told: set[str] = set()
    for camera, step in (*steps, ("", "look")):
        if step == "look":
            known = directory.list.version
            changes = directory.list.look()
            assert (directory.list.version == known) == (changes == Changes())
            told = (told - set(changes.went)) | set(changes.came)
            assert told == set(directory.list.rings)
        elif step == "unlink":
            directory.ring(camera).unlink(missing_ok=True)
        elif not directory.ring(camera).exists():
            directory.make(camera)
    assert told == {camera for camera in "abc" if directory.ring(camera).exists()}


def test_each_list_has_the_rings_of_its_kind(shm):
    frames = Directory(shm)
    video = CameraList(frames.paths, lambda path, reason: frames.odd.append((path.name, reason)), video=True)
    frames.make("a", "b")
    ring_file.create(frames.paths.ring("b", video=True), 4096, "b", video=True)
    assert (frames.list.look().came, video.look().came) == (("a", "b"), ("b",))
    frames.paths.ring("b", video=True).unlink()
    assert (frames.list.look(), video.look()) == (Changes(), Changes(went=("b",)))
    assert set(frames.list.rings) == {"a", "b"}
    assert frames.odd == []


def test_a_ring_under_the_name_of_the_other_kind_is_passed_over(directory):
    directory.make("a")
    directory.ring("a").rename(directory.paths.ring("a", video=not directory.video))
    other = CameraList(
        directory.paths, lambda path, reason: directory.odd.append((path.name, reason)), video=not directory.video
    )
    assert (directory.list.look(), other.look()) == (Changes(), Changes())
    assert len(directory.odd) == 1
    assert "under another name" in directory.odd[0][1]
