from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import config
from engine.config.rules import CAMERA_FILE_BYTES_MAX, file_stem
from engine.errors import InputError, NoSpace
from engine.shm import ring_file, segment, site
from engine.shm.ring import Consumer, Producer
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.wire import ring_layout
from tests.examples import examples
from tests.wire.names import HOSTILE, names


def site_config(
    directory,
    *cameras,
    capacity_mb=1,
    name="site",
    run_directory="/run/edge-video/test",
    writers=1,
    vhost="",
    redis=None,
    video=(),
    video_mb=1,
):
    return config.from_document(
        {
            "site": {"name": name, "run_directory": str(run_directory)},
            "ring": {"capacity_mb": capacity_mb, "directory": str(directory)},
            "writer": {"writers": writers},
            "redis": redis or {},
            "amqp": {"amqp_url": f"amqp://127.0.0.1/{vhost}"} if vhost else {},
            "video": {"capacity_mb": video_mb},
            "cameras": [{"id": camera, "url": "rtsp://192.0.2.1/x", "video": camera in video} for camera in cameras],
        },
        {},
    )


#: Whose the rings of ``site_config`` are.
OWNER = b"default:frames:embedded"


def make_ring(path, camera, frames=0, capacity=2**20, owner=OWNER, *, video=False):
    path.parent.mkdir(mode=0o700, exist_ok=True)
    ring_file.create(path, capacity, camera, owner=owner, video=video)
    producer = Producer(path, camera)
    for number in range(frames):
        producer.write([b"frame"], 10**18 + number, 0, 1, 1, encoding=int(video))
    producer.close()


def test_every_file_of_a_site_is_in_its_directory(shm):
    paths = SitePaths.of(site_config(shm, "cam1"))
    files = [paths.ring("cam1"), paths.capture("cam1"), paths.writer(0), paths.doorbell(0), paths.publisher()]
    files.append(paths.supervisor)
    assert len({*files, paths.writer(1), paths.doorbell(1)}) == 8
    assert {path.parent for path in files} == {paths.directory}
    assert paths.directory.parent == shm


def test_sites_with_other_run_directories_share_nothing(shm):
    one, other = (SitePaths.of(site_config(shm, "cam1", run_directory=f"/run/{name}")) for name in "ab")
    assert one.directory != other.directory


@settings(max_examples=examples(200), deadline=None)
@given(names | st.sampled_from(("writer 0", "publisher", "supervisor", "capture a", ".", "..")), names)
def test_no_camera_s_files_are_another_s_or_the_site_s(tmp_path_factory, one, other):
    paths = SitePaths.of(site_config("/dev/shm", "cam1"))
    own = {paths.writer(0), paths.doorbell(0), paths.publisher(), paths.supervisor}
    mine, others = ({paths.ring(camera), paths.capture(camera)} for camera in (one, other))
    assert len(mine | own) == 6
    assert (mine & others == set()) == (one != other)
    for path in mine:
        assert path.parent == paths.directory
        assert path.name.isascii()
        assert path.name.isprintable()


def test_the_longest_camera_name_still_makes_a_file(shm):
    longest = "é" * (CAMERA_FILE_BYTES_MAX // 6)
    paths = SitePaths.of(site_config(shm, longest))
    make_ring(paths.ring(longest), longest, frames=1)
    StatusPage.create(paths.capture(longest))
    assert [leftover.fits for leftover in site.leftovers(site_config(shm, longest))] == [True]


def test_a_site_that_was_never_there_left_nothing(shm):
    cfg = site_config(shm, "cam1")
    assert site.leftovers(cfg) == []
    assert site.sweep(cfg) == []
    site.remove(SitePaths.of(cfg))


#: Names that a site file may give a camera.
ALLOWED = [name for name in HOSTILE if len(file_stem(name)) <= CAMERA_FILE_BYTES_MAX and "\0" not in name]


@pytest.mark.parametrize("camera", ALLOWED)
def test_a_ring_that_fits_is_found_with_what_it_holds(shm, camera):
    cfg = site_config(shm, "other", camera)
    make_ring(SitePaths.of(cfg).ring(camera), camera, frames=3)
    (leftover,) = site.leftovers(cfg)
    assert (leftover.camera, leftover.held, leftover.fits, leftover.reason) == (camera, 3, True, "")


def test_only_what_does_not_fit_is_swept_and_what_it_held_is_told(shm):
    cfg = site_config(shm, "fits", "size", "version", "garbage", "short", "open")
    paths = SitePaths.of(cfg)
    make_ring(paths.ring("fits"), "fits", frames=1)
    make_ring(paths.ring("size"), "size", frames=2, capacity=2**19)
    make_ring(paths.ring("gone"), "gone", frames=4)
    make_ring(paths.ring("version"), "version", frames=5)
    shared = segment.open_existing(paths.ring("version"))
    shared.words[ring_layout.W_VERSION] = 1
    shared.close()
    make_ring(paths.ring("open"), "open", frames=6)
    paths.ring("open").chmod(0o644)
    for name, content in (("garbage", b"x" * 8192), ("short", b"x"), ("empty", b"")):
        paths.ring(name).touch(0o600)
        paths.ring(name).write_bytes(content)
    StatusPage.create(paths.writer(0))

    swept = {leftover.path.stem: leftover for leftover in site.sweep(cfg)}

    assert {name: leftover.held for name, leftover in swept.items()} == {
        "size": 2,
        "gone": 4,
        "version": 0,
        "garbage": 0,
        "short": 0,
        "empty": 0,
        "open": 0,
    }
    assert "524,288" in swept["size"].reason
    assert "1,048,576" in swept["size"].reason
    assert "'gone' is not in the site file" in swept["gone"].reason
    assert "version 1" in swept["version"].reason
    assert "rw-r--r--" in swept["open"].reason
    assert sorted(path.name for path in paths.directory.iterdir()) == ["fits.ring", "writer 0.status"]
    assert [leftover.camera for leftover in site.leftovers(cfg)] == ["fits"]


def test_a_ring_under_another_camera_s_name_is_not_adopted(shm):
    cfg = site_config(shm, "cam1", "cam2")
    paths = SitePaths.of(cfg)
    make_ring(paths.ring("cam1"), "cam1", frames=2)
    paths.ring("cam1").rename(paths.ring("cam2"))
    (leftover,) = site.leftovers(cfg)
    assert (leftover.camera, leftover.held, leftover.fits) == ("cam1", 2, False)


OTHERS = [
    {"vhost": "client-b"},
    {"redis": {"prefix": "pictures"}},
    {"redis": {"address": "127.0.0.1:6379"}},
]


@pytest.mark.parametrize("other", OTHERS)
def test_frames_of_another_tenant_prefix_or_server_are_refused_and_left(shm, other):
    mine, cfg = site_config(shm, "cam1", "cam2", "cam3"), site_config(shm, "cam1", "cam2", "cam3", **other)
    paths = SitePaths.of(mine)
    for camera, frames in (("cam1", 3), ("cam2", 0), ("cam3", 2)):
        make_ring(paths.ring(camera), camera, frames=frames)
    for refuse in (site.check_owner, site.sweep):
        with pytest.raises(InputError) as refusal:
            refuse(cfg)
        assert "5 frames of a former run" in str(refusal.value)
        assert "cam1 (3), cam3 (2)" in str(refusal.value)
        assert "belong to vhost 'default', prefix 'frames', Redis embedded; this site is vhost" in str(refusal.value)
        assert "edge-video clean" in str(refusal.value)
    assert [leftover.held for leftover in site.leftovers(mine)] == [3, 0, 2]
    site.check_owner(mine)


@pytest.mark.parametrize("other", OTHERS)
def test_empty_rings_of_another_tenant_are_swept(shm, other):
    make_ring(SitePaths.of(site_config(shm, "cam1")).ring("cam1"), "cam1")
    cfg = site_config(shm, "cam1", **other)
    site.check_owner(cfg)
    (swept,) = site.sweep(cfg)
    assert swept.reason == "its frames belong to vhost 'default', prefix 'frames', Redis embedded"
    assert site.leftovers(cfg) == []


def test_a_ring_that_is_in_use_for_another_tenant_is_refused_though_it_is_empty(shm):
    cfg = site_config(shm, "cam1", vhost="client-b")
    paths = SitePaths.of(cfg)
    make_ring(paths.ring("cam1"), "cam1")
    page = StatusPage.claim(paths.capture("cam1"))
    with pytest.raises(InputError, match="camera cam1 is being captured for vhost 'default'"):
        site.check_owner(cfg)
    page.close()
    site.check_owner(cfg)


def test_an_error_names_some_rings_and_counts_the_rest(shm):
    cameras = [f"cam{number:02}" for number in range(30)]
    for camera in cameras:
        make_ring(SitePaths.of(site_config(shm, "cam1")).ring(camera), camera, frames=1)
    with pytest.raises(InputError, match=r"30 frames .* cam07 \(1\) and 22 more$"):
        site.check_owner(site_config(shm, *cameras, vhost="client-b"))


@pytest.mark.parametrize(
    ("redis", "server"),
    [
        ({}, "embedded"),
        ({"address": "redis://user:secret@h:7/3"}, "h:7/3"),
        ({"address": "rediss://h"}, "h:6379/0"),
        ({"address": "unix:///tmp/r.sock?db=2"}, "/tmp/r.sock/2"),
        ({"sentinels": ["a", "b:1"], "service": "main"}, "main/0"),
    ],
)
def test_a_server_is_named_without_what_may_change(redis, server):
    assert site_config("/dev/shm", "cam1", redis=redis).owner == ("default", "frames", server)


def test_looking_at_leftovers_changes_nothing(shm):
    cfg = site_config(shm, "cam1")
    path = SitePaths.of(cfg).ring("cam1")
    make_ring(path, "cam1", frames=3)
    before = path.read_bytes()
    site.leftovers(cfg)
    assert path.read_bytes() == before


def test_what_is_held_counts_frames_not_yet_stored(shm):
    cfg = site_config(shm, "cam1")
    path = SitePaths.of(cfg).ring("cam1")
    make_ring(path, "cam1", frames=5)
    consumer = Consumer(path, "cam1")
    consumer.commit(consumer.poll(2**20, 2), 0)
    consumer.close()
    assert site.leftovers(cfg)[0].held == 3


def test_removing_a_site_leaves_nothing(shm):
    cfg = site_config(shm, "cam1")
    paths = SitePaths.of(cfg)
    make_ring(paths.ring("cam1"), "cam1")
    StatusPage.create(paths.publisher())
    os.mkfifo(paths.doorbell(0))
    site.remove(paths)
    site.remove(paths)
    assert not list(shm.iterdir())


def test_the_need_is_what_the_files_take(shm):
    cfg = site_config(shm, "cam1", "cam2", "cam3", writers=2)
    paths = SitePaths.of(cfg)
    for camera in ("cam1", "cam2", "cam3"):
        make_ring(paths.ring(camera), camera)
        StatusPage.create(paths.capture(camera))
    for page in (paths.writer(0), paths.writer(1), paths.publisher(), paths.supervisor):
        StatusPage.create(page)
    taken = [path.stat().st_blocks * 512 for path in paths.directory.iterdir()]
    assert sum(taken) <= site.shared_memory_need(cfg) <= sum(taken) + 4096 * len(taken)


def test_too_little_shared_memory_is_refused_with_both_ways_out(tmpfs):
    small = tmpfs("2m")
    with pytest.raises(
        NoSpace, match=r"2 cameras need [\d,]+ bytes and 2,097,152 are free; enlarge it .*shm_size\) or lower ring\.cap"
    ):
        site.check_space(site_config(small, "cam1", "cam2"))
    site.check_space(site_config(small, "cam1"))


def test_what_stands_already_needs_no_space_again(tmpfs):
    small = tmpfs("2m")
    cfg = site_config(small, "cam1")
    make_ring(SitePaths.of(cfg).ring("cam1"), "cam1")
    with pytest.raises(NoSpace):
        site.check_space(site_config(small, "cam1"))
    site.check_space(cfg, reserved=ring_layout.file_bytes(2**20))


def two_rings(cfg, camera, frames, units, **more):
    """A camera's ring of frames, and that of its video."""
    paths = SitePaths.of(cfg)
    make_ring(paths.ring(camera), camera, frames=frames)
    make_ring(paths.ring(camera, video=True), camera, frames=units, video=True, **more)


@pytest.mark.parametrize("camera", ALLOWED)
def test_both_rings_of_a_camera_with_video_are_found(shm, camera):
    cfg = site_config(shm, "other", camera, video=(camera,))
    two_rings(cfg, camera, 3, 5)
    found = {leftover.video: leftover for leftover in site.leftovers(cfg)}
    assert {video: (one.camera, one.held, one.fits) for video, one in found.items()} == {
        False: (camera, 3, True),
        True: (camera, 5, True),
    }
    assert site.sweep(cfg) == []


def test_video_that_was_switched_off_is_swept_and_told_and_the_frames_stay(shm):
    two_rings(site_config(shm, "cam1", video=("cam1",)), "cam1", 3, 5)
    cfg = site_config(shm, "cam1")
    (swept,) = site.sweep(cfg)
    assert (swept.camera, swept.video, swept.held) == ("cam1", True, 5)
    assert swept.reason == "the video of camera 'cam1' is not in the site file"
    assert [(left.held, left.video, left.fits) for left in site.leftovers(cfg)] == [(3, False, True)]


def test_a_camera_that_was_renamed_leaves_both_rings(shm):
    two_rings(site_config(shm, "cam1", video=("cam1",)), "cam1", 3, 5)
    cfg = site_config(shm, "cam2", video=("cam2",))
    assert {(one.camera, one.video, one.held) for one in site.sweep(cfg)} == {("cam1", False, 3), ("cam1", True, 5)}
    assert site.leftovers(cfg) == []


def test_each_ring_has_the_capacity_of_its_kind(shm):
    cfg = site_config(shm, "cam1", video=("cam1",), video_mb=2)
    two_rings(cfg, "cam1", 3, 5, capacity=2**21)
    assert [left.fits for left in site.leftovers(cfg)] == [True, True]
    (swept,) = site.sweep(site_config(shm, "cam1", video=("cam1",), video_mb=3))
    assert (swept.video, swept.held) == (True, 5)
    assert "2,097,152 bytes, the site file asks for 3,145,728" in swept.reason


@pytest.mark.parametrize("video", [False, True], ids=["frames", "video"])
def test_a_ring_under_the_name_of_the_other_kind_is_not_adopted(shm, video):
    cfg = site_config(shm, "cam1", video=("cam1",))
    paths = SitePaths.of(cfg)
    make_ring(paths.ring("cam1", video=video), "cam1", frames=2, video=video)
    paths.ring("cam1", video=video).rename(paths.ring("cam1", video=not video))
    (leftover,) = site.leftovers(cfg)
    assert (leftover.held, leftover.video, leftover.fits) == (2, video, False)


def test_video_of_another_tenant_is_refused_and_left(shm):
    mine = site_config(shm, "cam1", video=("cam1",))
    two_rings(mine, "cam1", 0, 5)
    with pytest.raises(InputError, match=r"5 frames of a former run .* The rings: cam1 \(5\)"):
        site.sweep(site_config(shm, "cam1", video=("cam1",), vhost="client-b"))
    assert [leftover.held for leftover in site.leftovers(mine)] == [0, 5]


def test_the_need_counts_both_rings(shm):
    cfg = site_config(shm, "cam1", "cam2", video=("cam2",), video_mb=2)
    paths = SitePaths.of(cfg)
    make_ring(paths.ring("cam1"), "cam1")
    two_rings(cfg, "cam2", 0, 0, capacity=2**21)
    for page in (paths.capture("cam1"), paths.capture("cam2"), paths.writer(0), paths.publisher(), paths.supervisor):
        StatusPage.create(page)
    taken = [path.stat().st_blocks * 512 for path in paths.directory.iterdir()]
    assert sum(taken) <= site.shared_memory_need(cfg) <= sum(taken) + 4096 * len(taken)
    site.remove(paths)
    assert not list(shm.iterdir())


def test_video_that_does_not_fit_beside_the_frames_is_refused_with_its_own_way_out(tmpfs):
    small = tmpfs("2m")
    site.check_space(site_config(small, "cam1"))
    with pytest.raises(NoSpace, match=r"or lower ring\.capacity_mb or video\.capacity_mb"):
        site.check_space(site_config(small, "cam1", video=("cam1",)))
    with pytest.raises(NoSpace) as without:
        site.check_space(site_config(small, "cam1", capacity_mb=3))
    assert "video.capacity_mb" not in str(without.value)
