"""What another user of the machine does beforehand to get at frames: each is refused with one error, and nothing of
theirs is touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.config import Config, parse
from engine.errors import InputError, RingMismatch
from engine.runtime.lock import SiteLock
from engine.shm import segment, site
from engine.shm.doorbell import Doorbell
from engine.shm.status_page import StatusPage
from tests.servers.users import SOMEBODY, STRANGER, as_user


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory like /tmp: everybody may make something in it, and move what is theirs."""
    path = Path(tempfile.mkdtemp(prefix="ev-public-", dir="/dev/shm"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


def config(public: Path) -> Config:
    text = f"""
        [site]
        run_directory = "{public}/edge-video-64001/site"
        [ring]
        directory = "{public}"
        [[cameras]]
        id = "cam1"
        url = "test://"
    """
    return parse(text.encode(), {})


def open_parent(public: Path) -> None:
    (public / "edge-video-64001" / "site").mkdir(parents=True)


def link(public: Path) -> None:
    (public / "elsewhere").mkdir()
    (public / "edge-video-64001").symlink_to(public / "elsewhere")


def file(public: Path) -> None:
    (public / "edge-video-64001").touch()


@pytest.mark.parametrize("trap", [open_parent, link, file])
def test_a_way_that_a_stranger_has_made_is_refused(public: Path, trap: Callable[[Path], None]) -> None:
    as_user(STRANGER, partial(trap, public))
    error = as_user(SOMEBODY, partial(segment.private_directory, public / "edge-video-64001" / "site"))
    assert isinstance(error, InputError), error
    assert "belongs to uid 64002" in str(error)
    assert "remove it" in str(error)


def test_a_directory_of_one_s_own_in_a_stranger_s_is_refused(public: Path) -> None:
    """The stranger would put another in its place as soon as it was looked at."""
    as_user(STRANGER, partial((public / "theirs").mkdir, 0o1777))
    own = public / "theirs" / "own"
    as_user(SOMEBODY, partial(own.mkdir, 0o700))
    assert "who may replace what is in it" in str(as_user(SOMEBODY, partial(segment.private_directory, own)))


def test_a_place_where_anyone_moves_anything_is_refused_with_the_way_out(public: Path) -> None:
    public.chmod(0o777)
    error = as_user(SOMEBODY, partial(segment.private_directory, public / "a"))
    assert isinstance(error, InputError), error
    assert f"chmod +t {public}" in str(error)
    assert not (public / "a").exists()


def test_a_link_of_one_s_own_is_followed_and_a_loop_of_them_ends(public: Path) -> None:
    def follow() -> None:
        (public / "real").mkdir(0o700)
        (public / "link").symlink_to("real")
        (public / "loop").symlink_to(public / "loop")
        segment.private_directory(public / "link" / ".." / "link" / "a")

    assert as_user(SOMEBODY, follow) is None
    assert (public / "real" / "a").stat().st_uid == SOMEBODY
    loop = as_user(SOMEBODY, partial(segment.private_directory, public / "loop" / "a"))
    assert "Too many levels of symbolic links" in str(loop)


def test_all_directories_made_are_their_user_s_alone(public: Path) -> None:
    as_user(SOMEBODY, partial(segment.private_directory, public / "a" / "b"))
    for path in (public / "a", public / "a" / "b"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (SOMEBODY, 0o700)


@pytest.mark.parametrize("work", ["make_directory", "sweep", "remove", "leftovers"])
def test_a_link_in_the_place_of_a_site_s_memory_costs_nobody_a_file(public: Path, work: str) -> None:
    """Its name can be known beforehand; a site of root's that emptied it would empty what it leads to."""
    victim = public / "victim"
    victim.mkdir(0o700)
    for name in ("precious", ".hidden", "cam1.ring"):
        (victim / name).write_text("x")
    site_config = config(public)
    paths = site.SitePaths.of(site_config)
    as_user(STRANGER, partial(paths.directory.symlink_to, victim))
    with pytest.raises(InputError, match="belongs to uid 64002"):
        getattr(site, work)(paths if work == "remove" else site_config)
    # And one of the user's own, that somebody may have been talked into.
    paths.directory.unlink()
    paths.directory.symlink_to(victim)
    with pytest.raises(InputError, match="stands there; remove it"):
        getattr(site, work)(paths if work == "remove" else site_config)
    assert len(list(victim.iterdir())) == 3


def test_the_lock_s_directory_is_looked_at_like_the_others(public: Path) -> None:
    as_user(STRANGER, partial(open_parent, public))
    assert "belongs to uid 64002" in str(as_user(SOMEBODY, partial(SiteLock, config(public), exclusive=True)))


def test_a_doorbell_that_others_may_ring_or_hear_is_refused(tmp_path: Path) -> None:
    StatusPage.create(tmp_path / "status page")
    page = StatusPage.claim(tmp_path / "status page")
    os.mkfifo(tmp_path / "bell", 0o600)
    for mode in (0o620, 0o604):
        (tmp_path / "bell").chmod(mode)
        with pytest.raises(RingMismatch, match=r"belongs to uid 0 with mode prw"):
            Doorbell(tmp_path / "bell", page)
    (tmp_path / "bell").chmod(0o600)
    os.chown(tmp_path / "bell", STRANGER, STRANGER)
    with pytest.raises(RingMismatch, match="belongs to uid 64002"):
        Doorbell(tmp_path / "bell", page)
    page.close()
