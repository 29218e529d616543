"""``edge-video frames``: every command as people and programs call it, on what a running engine stored."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.wire.keys import FrameKey, build_frame_key
from engine.wire.rfc3339 import rfc3339
from tests.servers.cluster_client import CLUSTER, AnyServer, ReadCluster, on_both
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site, stored_frames
from tests.system.site import command as any_command

PASSWORD = "geheim-4711"
OTHER = "câmara 2"
ENTRY = ["key", "camera", "time", "timestamp_nano", "sequence", "size", "width", "height", "encoding"]


class Stocked:
    """A Redis with a password, and in it what a site of two cameras left there."""

    def __init__(self, server: AnyServer, site: Site) -> None:
        self.server = server
        self.site = site
        self.client = server.client()
        stored = stored_frames(self.client, "default")
        self.keys: dict[str, list[FrameKey]] = {"cam1": [], OTHER: []}
        for key in stored.keys:
            self.keys[key.camera].append(key)

    @property
    def cam1(self) -> list[FrameKey]:
        """cam1's keys, oldest first."""
        return self.keys["cam1"]

    def payload(self, key: FrameKey) -> bytes:
        """What Redis has under a key."""
        data = self.client.get(build_frame_key(key))
        assert isinstance(data, bytes)
        return data

    def arguments(self, *arguments: object) -> list[str]:
        """``frames`` and its arguments, at this site."""
        return ["frames", *map(str, arguments), "-c", str(self.site.file)]

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """One command to its end; whatever it does, it shows neither a traceback nor the password."""
        done = any_command(*self.arguments(*arguments), environment=environment)
        assert "Traceback" not in done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done

    def json(self, *arguments: object) -> list[dict[str, Any]]:
        """The objects that ``--json`` prints."""
        done = self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def json_of_each(self, *questions: tuple[object, ...]) -> list[list[dict[str, Any]]]:
        """``json`` of some commands, several at a time."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda arguments: self.json(*arguments), questions))

    def refused(self, message: str, *arguments: object) -> None:
        """Exit code 2, one line that has ``message``, nothing on standard output."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert message in done.stderr

    def nothing(self, *arguments: object) -> None:
        """Exit code 3 and one line that says so."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What reads runs on one server and on a cluster; what is about output alone is marked ``one_server``."""
    on_both(metafunc)


@pytest.fixture(scope="module")
def stocked(redis_kind: str) -> Iterator[Stocked]:
    path = Path(tempfile.mkdtemp(prefix="ev-"))
    kind = ReadCluster if redis_kind == CLUSTER else RedisServer
    with kind(path / "redis", password=PASSWORD) as server:
        site = Site(path / "run", warm=True)
        url = "test://?fps=20&kb=20&size=640x480"
        site.write(
            cameras=[{"id": "cam1", "url": url}, {"id": OTHER, "url": url}],
            redis={**server.section, "password": PASSWORD},
        )
        try:
            site.start()
            wait_until(lambda: site.total("stored") >= 90, 30, "there are frames")
            assert site.stop() == 0
        finally:
            site.end()
        yield Stocked(server, site)
    shutil.rmtree(path, ignore_errors=True)


def expected(key: FrameKey) -> dict[str, Any]:
    """The entry of a key as JSON has it."""
    return {
        "key": build_frame_key(key),
        "camera": key.camera,
        "time": rfc3339(key.unix_nano),
        "timestamp_nano": key.unix_nano,
        "sequence": key.sequence,
        "size": 20 * 1024,
        "width": 640,
        "height": 480,
        "encoding": "jpeg",
    }


def test_latest_shows_the_newest_frame(stocked: Stocked) -> None:
    newest = stocked.cam1[-1]
    (shown,) = stocked.json("latest", "cam1")
    age = shown.pop("age_seconds")
    assert shown == expected(newest)
    assert list(shown) == ENTRY
    assert 0 < age < 300
    text = stocked.run("latest", "cam1").stdout
    for words in (build_frame_key(newest), rfc3339(newest.unix_nano), "20,480 bytes, 640x480 jpeg", "age"):
        assert words in text


def test_latest_of_all_cameras(stocked: Stocked) -> None:
    assert [shown["key"] for shown in stocked.json("latest")] == [
        build_frame_key(stocked.keys[camera][-1]) for camera in ("cam1", OTHER)
    ]
    lines = stocked.run("latest", COLUMNS="160").stdout.splitlines()
    assert len(lines) == 3
    assert OTHER in lines[2]
    assert rfc3339(stocked.keys[OTHER][-1].unix_nano) in lines[2]


def test_get_by_key_with_a_site_and_without(stocked: Stocked) -> None:
    key = stocked.keys[OTHER][3]
    name = build_frame_key(key)
    (shown,) = stocked.json("get", name)
    del shown["age_seconds"]
    assert shown == expected(key)
    done = any_command(
        "frames", "get", name, "--redis", stocked.server.address, environment={"REDIS_PASSWORD": PASSWORD}
    )
    assert name in done.stdout


@pytest.mark.one_server
def test_pictures_are_written_as_they_are_stored(stocked: Stocked, tmp_path: Path) -> None:
    newest, file = stocked.cam1[-1], tmp_path / "a.jpg"
    done = stocked.run("latest", "cam1", "-o", file)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert file.read_bytes() == stocked.payload(newest)
    stocked.refused("--force", "get", build_frame_key(stocked.cam1[0]), "-o", file)
    assert file.read_bytes() == stocked.payload(newest)
    (shown,) = stocked.json("get", build_frame_key(stocked.cam1[0]), "-o", file, "--force")
    assert shown["file"] == str(file)
    assert file.read_bytes() == stocked.payload(stocked.cam1[0])
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.one_server
def test_standard_output_has_the_picture_and_nothing_else(stocked: Stocked) -> None:
    key = build_frame_key(stocked.cam1[5])
    line = [*COMMAND, *stocked.arguments("get", key, "-o", "-")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert done.stdout == stocked.payload(stocked.cam1[5])
    assert done.stderr == b""
    leader, follower = pty.openpty()
    done = subprocess.run(line, cwd=ROOT, stdout=follower, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(follower)
    os.close(leader)
    assert done.returncode == 2
    assert b"terminal" in done.stderr


def test_list_has_every_entry_in_order(stocked: Stocked) -> None:
    one, both = stocked.json_of_each(("list", "cam1"), ("list",))
    assert one == [expected(key) for key in stocked.cam1]
    assert both == one + [expected(key) for key in stocked.keys[OTHER]]


def test_list_by_range_limit_step_and_from_the_end(stocked: Stocked) -> None:
    keys = stocked.cam1
    times = [key.unix_nano for key in keys]
    between, newest, thinned, first = stocked.json_of_each(
        ("list", "cam1", "--start", rfc3339(times[4]), "--end", times[8]),
        ("list", "cam1", "--end", times[8], "--limit", 3, "--reverse"),
        ("list", "cam1", "--step", "500ms"),
        ("list", "--start", "-1h", "--limit", len(keys) + 2),
    )
    assert between == [expected(key) for key in keys[4:9]]
    assert newest == [expected(key) for key in keys[8:5:-1]]
    assert len(thinned) == len({(time - times[0]) // 500_000_000 for time in times})
    # A limit is one for all cameras together.
    assert [entry["camera"] for entry in first][-3:] == ["cam1", OTHER, OTHER]


@pytest.mark.one_server
def test_list_for_people_is_aligned(stocked: Stocked) -> None:
    lines = stocked.run("list").stdout.splitlines()
    assert len(lines) == 1 + sum(map(len, stocked.keys.values()))
    assert lines[0].split() == ["time", "camera", "number", "bytes", "size", "key"]
    for line in lines[1:]:
        assert line.index("default:frames:") == lines[0].index("key")
        assert line.index("640x480 jpeg") == lines[0].index("size")
    assert lines[1].split()[:3] == [rfc3339(stocked.cam1[0].unix_nano), "cam1", "00001"]
    # What an encoding lacks is escaped, not an error.
    done = stocked.run("list", OTHER, "--limit", "1", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "c\\xe2mara 2" in done.stdout


def test_frames_that_are_gone_are_passed_over_and_counted(stocked: Stocked) -> None:
    gone = stocked.keys[OTHER][:3]
    saved = {build_frame_key(key): stocked.payload(key) for key in gone}
    stocked.client.delete(*saved)
    try:
        done = stocked.run("list", OTHER, "--json")
        assert done.stdout.count("\n") == len(stocked.keys[OTHER]) - 3
        assert done.stderr == "edge-video: 3 older frames have expired and are left out\n"
        assert stocked.run("count", OTHER).stdout == f"{len(stocked.keys[OTHER]) - 3}\n"
        stocked.nothing("get", build_frame_key(gone[0]))
    finally:
        for name, data in saved.items():
            stocked.client.set(name, data, ex=300)


def test_count(stocked: Stocked) -> None:
    one, two = len(stocked.cam1), len(stocked.keys[OTHER])
    assert stocked.run("count").stdout == f"{one + two}\n"
    assert stocked.json("count") == [{"camera": "cam1", "frames": one}, {"camera": OTHER, "frames": two}]
    assert stocked.run("count", "cam1", "--end", stocked.cam1[9].unix_nano).stdout == "10\n"
    done = stocked.run("count", "cam1", "--end", "2024-11-08T14:30:00Z", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout) == {"camera": "cam1", "frames": 0}


@pytest.mark.one_server
def test_what_cannot_be_done_is_one_line_and_exit_code_2(stocked: Stocked, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    film, picture = ("-o", tmp_path / "a.mp4"), ("-o", tmp_path / "a.jpg")
    questions: dict[str, list[tuple[object, ...]]] = {
        "the range is reversed": [("list", "cam1", "--start", "-10s", "--end", "-20s")],
        "has no time zone": [("export", "cam1", "--end", "2024-11-08T14:30:00", *film)],
        "did you mean 'cam1'?": [("rate", "cam11"), ("tail", "cam2"), ("export", "cam11", *film)],
        "did you mean 'câmara 2'?": [("latest", "camara 2", *picture)],
        "nothing is stored for tenant 'other'": [("latest", "cam1", "--vhost", "other")],
        "not vhost:prefix:camera:unix_nano:sequence": [("get", "cam1", *picture)],
        "is of tenant 'other'": [("get", build_frame_key(stocked.cam1[0]._replace(vhost="other")))],
        "say which": [("latest", "-o", "-")],
        "both write to standard output": [("latest", "cam1", "-o", "-", "--json")],
        "duration 'week'": [("rate", "cam1", "--bucket", "week")],
        "ends in .png": [("rate", "cam1", "-o", tmp_path / "rate.jpg")],
        "films are written as .mp4": [("export", "cam1", "-o", tmp_path / "a.avi")],
        "standard output": [("export", "cam1", "-o", "-")],
        "is no directory": [
            ("latest", "cam1", "-o", tmp_path / "none" / "a.jpg"),
            ("export", "cam1", "-o", tmp_path / "none" / "a"),
            ("export", "cam1", "-o", tmp_path / "file", "--force"),
        ],
    }
    pairs = [(message, arguments) for message, all_ in questions.items() for arguments in all_]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda pair: stocked.refused(pair[0], *pair[1]), pairs))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    done = any_command("frames", "latest", directory=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "name a site file with --config, or a server with --redis" in done.stderr


@pytest.mark.one_server
def test_rate_has_a_bar_for_each_span(stocked: Stocked) -> None:
    rows = stocked.json("rate", "cam1", "--bucket", "1s")
    assert sum(row["frames"] for row in rows) == len(stocked.cam1)
    assert all(row["start_nano"] % 10**9 == 0 and row["start"].endswith(".000000000Z") for row in rows)
    assert {row["mean_bytes"] for row in rows} == {20480.0}
    for encoding, block in (("utf-8", "█"), ("ascii", "#")):
        lines = stocked.run("rate", "cam1", "--bucket", "1s", COLUMNS="80", PYTHONIOENCODING=encoding).stdout.split(
            "\n"
        )
        bars = [line.count(block) for line in lines[1:-1]]
        assert len(bars) == len(rows)
        assert max(map(len, lines)) == 80
        for bar, row in zip(bars, rows, strict=True):
            most = max(row["frames"] for row in rows)
            assert bar == row["frames"] * max(bars) // most
            assert row["start"][:19] + "Z " in "\n".join(lines)


@pytest.mark.one_server
def test_rate_draws_a_chart(stocked: Stocked, tmp_path: Path) -> None:
    file = tmp_path / "rate.png"
    done = stocked.run("rate", OTHER, "--bucket", "1s", "-o", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("time ")
    picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.shape == (480, 1200)
    stocked.refused("--force", "rate", OTHER, "-o", file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.one_server
def test_export_to_jpeg_files(stocked: Stocked, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    keys = stocked.keys[OTHER]
    (report,) = stocked.json("export", OTHER, "-o", directory, "--end", keys[-3].unix_nano)
    assert report == {
        "camera": OTHER,
        "file": str(directory),
        "frames": len(keys) - 2,
        "bytes": (len(keys) - 2) * 20 * 1024,
        "missing": 0,
        "start": rfc3339(keys[0].unix_nano),
        "end": rfc3339(keys[-3].unix_nano),
        "start_nano": keys[0].unix_nano,
        "end_nano": keys[-3].unix_nano,
    }
    files = sorted(directory.iterdir())
    assert [file.name for file in files] == [
        f"c%C3%A2mara%202-{key.unix_nano}-{key.sequence:05d}.jpg" for key in keys[:-2]
    ]
    for file, key in zip(files, keys, strict=False):
        assert file.read_bytes() == stocked.payload(key)
        assert file.stat().st_mtime_ns == key.unix_nano
    # More of them go beside those that are there; the same ones do not.
    assert stocked.run("export", OTHER, "-o", directory, "--start", keys[-2].unix_nano).returncode == 0
    assert len(list(directory.iterdir())) == len(keys)
    files[0].write_bytes(b"mine")
    stocked.refused(f"{files[0]} exists", "export", OTHER, "-o", directory)
    assert files[0].read_bytes() == b"mine"
    assert stocked.run("export", OTHER, "-o", directory, "--force", "--limit", "1").returncode == 0
    assert files[0].read_bytes() == stocked.payload(keys[0])


@pytest.mark.one_server
def test_export_to_a_film(stocked: Stocked, tmp_path: Path) -> None:
    file, keys = tmp_path / "cam1.mp4", stocked.cam1
    done = stocked.run("export", "cam1", "-o", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{file}: {len(keys)} frames, {len(keys) * 20 * 1024:,} bytes, "
        f"{rfc3339(keys[0].unix_nano)} to {rfc3339(keys[-1].unix_nano)}\n"
    )
    assert file.stat().st_mtime_ns == keys[-1].unix_nano
    film = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == len(keys)
    shown_ms = -1
    for key in keys:
        good, picture = film.read()
        assert good
        # A camera that was late sends frames within less than a millisecond; they follow each other.
        shown_ms = max((key.unix_nano - keys[0].unix_nano + 500_000) // 10**6, shown_ms + 1)
        assert film.get(cv2.CAP_PROP_POS_MSEC) == pytest.approx(shown_ms, abs=0.01)
        still = cv2.imdecode(np.frombuffer(stocked.payload(key), np.uint8), cv2.IMREAD_COLOR)
        assert still is not None
        assert np.abs(picture.astype(int) - still).mean() < 2
    raw = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    assert raw.grab()
    assert raw.retrieve()[1].tobytes() == stocked.payload(keys[0])
    stocked.refused("--force", "export", "cam1", "-o", file)
    (report,) = stocked.json("export", "cam1", "-o", file, "--force", "--step", "1s", "--limit", 2)
    assert report["frames"] == 2
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.one_server
def test_an_export_of_nothing_leaves_nothing(stocked: Stocked, tmp_path: Path) -> None:
    for name in ("a.mp4", "directory"):
        stocked.nothing("export", "cam1", "-o", tmp_path / name, "--end", "2024-11-08T14:30:00Z")
    assert not list(tmp_path.iterdir())
    stocked.nothing("list", "--vhost", "other")


def limited(bytes_max: int) -> Callable[[], None]:
    """A ``preexec_fn``: no file of the process may grow beyond this, as on a disk that is full."""

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))

    return set_limit


@pytest.mark.one_server
@pytest.mark.parametrize(("name", "bytes_max"), [("a.mp4", 100_000), ("a", 1000)])
def test_a_full_disk_is_one_error_and_leaves_nothing_partial(
    name: str, bytes_max: int, stocked: Stocked, tmp_path: Path
) -> None:
    line = [*COMMAND, *stocked.arguments("export", "cam1", "-o", tmp_path / name)]
    done = subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, preexec_fn=limited(bytes_max)
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "cannot be written" in done.stderr
    assert not list(tmp_path.rglob("*"))


@pytest.mark.one_server
def test_a_disk_that_fills_keeps_the_files_that_are_whole(stocked: Stocked, tmp_path: Path) -> None:
    # What is in the way of the fourth file is as good as no room for it.
    fourth = stocked.cam1[3]
    directory = tmp_path / "out"
    (directory / f"cam1-{fourth.unix_nano}-{fourth.sequence:05d}.jpg" / "in the way").mkdir(parents=True)
    stocked.refused("the 3 frames before it are written", "export", "cam1", "-o", directory, "--force")
    assert [path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()] == [
        stocked.payload(key) for key in stocked.cam1[:3]
    ]


@pytest.mark.one_server
@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "a.mp4"), (signal.SIGTERM, "a")])
def test_an_export_that_is_interrupted_leaves_nothing_partial(
    number: signal.Signals, name: str, stocked: Stocked, tmp_path: Path
) -> None:
    """The signal comes when all is written and nothing has its name yet: there the export is made to wait."""
    script = (
        "import engine.cli.output as o, time\n"
        "def slow(self, target):\n"
        "    print('writing', flush=True); time.sleep(30)\n"
        "o.Path.replace = slow\n"
        "from engine.cli.main import main\n"
        "main()\n"
    )
    line = [COMMAND[0], "-c", script, *stocked.arguments("export", "cam1", "-o", tmp_path / name)]
    with subprocess.Popen(
        line,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert list(tmp_path.rglob(".*.partial.*"))
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors == ""
    assert not list(tmp_path.rglob("*"))


def test_tail_prints_what_is_stored_after_it_began(stocked: Stocked, site: Site) -> None:
    site.write(
        cameras=[{"id": "live", "url": "test://?fps=20&kb=20&size=320x240"}],
        redis={**stocked.server.section, "password": PASSWORD, "prefix": "live"},
    )
    site.start()
    began = time.time_ns()
    done = any_command("frames", "tail", "--limit", "5", "--json", "-c", str(site.file))
    assert (done.returncode, done.stderr) == (0, "")
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["sequence"] for entry in shown] == list(range(shown[0]["sequence"], shown[0]["sequence"] + 5))
    assert shown[0]["timestamp_nano"] > began
    with subprocess.Popen(
        [*COMMAND, "frames", "tail", "live", "-c", str(site.file)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[:2] == ["time", "camera"]
        assert process.stdout.readline().split()[1] == "live"
        process.terminate()
        rest = process.stdout.read()
        assert process.wait(30) == 0
    assert rest == "" or rest.endswith("\n"), "no line is cut"
    assert site.stop() == 0


def test_tail_since_a_time_ends_at_ctrl_c(stocked: Stocked) -> None:
    keys = stocked.cam1
    line = [*COMMAND, *stocked.arguments("tail", "cam1", "--since", rfc3339(keys[-4].unix_nano), "--json")]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = [json.loads(process.stdout.readline()) for _ in range(4)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert shown == [expected(key) for key in keys[-4:]]


def test_a_password_on_the_command_line_is_not_seen(stocked: Stocked) -> None:
    url = stocked.server.url
    line = [*COMMAND, "frames", "tail", "cam1", "--since", "-1h", "--redis", url]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = process.stdout.readline()
        visible = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
        process.terminate()
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert visible.startswith(b"edge-video: reader")
    assert PASSWORD.encode() not in visible
    assert PASSWORD not in shown + rest + errors
    for wrong in (url.replace(PASSWORD, f"{PASSWORD}x"), f"redis://:{PASSWORD}@127.0.0.1:1"):
        done = any_command("frames", "latest", "cam1", "--redis", wrong)
        assert done.returncode in (1, 2)
        assert done.stderr.count("\n") == 1
        assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.one_server
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_error(options: list[str], stocked: Stocked) -> None:
    line = [*COMMAND, *stocked.arguments("list", *options)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
