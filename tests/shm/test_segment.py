from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from engine.errors import InputError, NoSpace, RingMismatch
from engine.shm import segment

#: A user that is not us.
STRANGER = 54_321


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def foreign(path: Path) -> Path:
    """``path`` given to another user; who may not do that takes a file of root's own."""
    if os.geteuid() == 0:
        os.chown(path, STRANGER, STRANGER)
        return path
    return Path("/etc") if path.is_dir() else Path("/etc/passwd")


def test_a_new_segment_is_zeroed_reserved_and_ours_alone(tmp_path):
    path = tmp_path / "a"
    made = segment.create(path, 8192)
    assert made.view == bytes(8192)
    assert len(made.words) == 1024
    assert mode(path) == 0o600
    assert path.stat().st_blocks * 512 >= 8192
    made.close()


def test_both_ends_see_the_same_memory(tmp_path):
    made = segment.create(tmp_path / "a", 4096)
    seen = segment.open_existing(tmp_path / "a", writable=False)
    made.words[3] = 2**64 - 1
    made.view[32:34] = b"ab"
    assert seen.words[3] == 2**64 - 1
    assert seen.view[32:34] == b"ab"
    with pytest.raises(TypeError):
        seen.words[3] = 0
    made.close()
    seen.close()


def test_a_segment_that_stands_is_not_made_again(tmp_path):
    segment.create(tmp_path / "a", 4096).close()
    with pytest.raises(FileExistsError):
        segment.create(tmp_path / "a", 4096)


def test_a_payload_that_is_still_held_keeps_the_memory(tmp_path):
    made = segment.create(tmp_path / "a", 4096)
    made.view[8:12] = b"held"
    held = made.view[8:12]
    made.close()
    assert held == b"held"


def test_closing_gives_the_descriptor_back(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    segment.create(tmp_path / "a", 4096).close()
    segment.open_existing(tmp_path / "a").close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_full_file_system_is_an_error_with_need_and_have_and_leaves_nothing(tmpfs):
    small = tmpfs("64k")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(NoSpace, match=r"needs 1,048,576 bytes and .* has 65,536 left.*remount.*ring\.capacity_mb"):
        segment.create(small / "a", 2**20)
    assert not list(small.iterdir())
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_storage_is_taken_when_the_segment_is_made(tmpfs):
    """Nothing is left to be refused at the first touch, where it would be SIGBUS."""
    small = tmpfs("64k")
    made = segment.create(small / "a", 49_152)
    assert segment.free_bytes(small) == 65_536 - 49_152
    with pytest.raises(NoSpace):
        segment.create(small / "b", 49_152)
    made.view[:] = b"x" * 49_152
    made.close()


def test_a_link_is_refused(tmp_path):
    segment.create(tmp_path / "a", 4096).close()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(RingMismatch, match="symbolic link"):
        segment.open_existing(tmp_path / "link")
    with pytest.raises(FileExistsError):
        segment.create(tmp_path / "link", 4096)


@pytest.mark.parametrize("open_mode", [0o640, 0o604, 0o602, 0o666, 0o610])
def test_a_file_that_others_may_touch_is_refused(tmp_path, open_mode):
    path = tmp_path / "a"
    segment.create(path, 4096).close()
    path.chmod(open_mode)
    with pytest.raises(RingMismatch, match=re.escape(stat.filemode(stat.S_IFREG | open_mode))):
        segment.open_existing(path)


def test_a_file_of_another_user_is_refused(tmp_path):
    path = tmp_path / "a"
    segment.create(path, 4096).close()
    with pytest.raises(RingMismatch, match="belongs to uid"):
        segment.open_existing(foreign(path), writable=False)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(RingMismatch):
        segment.open_existing(tmp_path / "fifo")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a").touch(0o600)
    with pytest.raises(RingMismatch, match="empty"):
        segment.open_existing(tmp_path / "a")


def test_a_missing_file_is_just_that(tmp_path):
    with pytest.raises(FileNotFoundError):
        segment.open_existing(tmp_path / "a")


@pytest.mark.parametrize("size", [1, 7, 9, 4095])
def test_any_size_can_be_mapped(tmp_path, size):
    (tmp_path / "a").touch(0o600)
    (tmp_path / "a").write_bytes(b"x" * size)
    opened = segment.open_existing(tmp_path / "a")
    assert (len(opened.view), len(opened.words)) == (size, size // 8)
    opened.close()


def test_a_private_directory_is_made_with_its_parents(tmp_path):
    path = tmp_path / "a" / "b"
    old = os.umask(0)
    try:
        assert segment.private_directory(path) == path
    finally:
        os.umask(old)
    assert mode(path) == 0o700
    assert segment.private_directory(path) == path


@pytest.mark.parametrize("open_mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_refused_with_the_way_out(tmp_path, open_mode):
    path = tmp_path / "a"
    path.mkdir(0o700)
    path.chmod(open_mode)
    with pytest.raises(InputError, match=f"chmod 700 {path}"):
        segment.private_directory(path)


def test_a_directory_of_another_user_is_refused(tmp_path):
    path = tmp_path / "a"
    path.mkdir(0o700)
    with pytest.raises(InputError, match="belongs to uid"):
        segment.private_directory(foreign(path))


def test_a_link_to_a_directory_is_refused(tmp_path):
    (tmp_path / "a").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(InputError):
        segment.private_directory(tmp_path / "link")


def test_a_directory_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot make the directory"):
            segment.private_directory(path)
