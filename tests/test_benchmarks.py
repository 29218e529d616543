"""The frame of the benchmarks: floors, results and report belong together, and a run that ends early leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from benchmarks import scale_model
from benchmarks.events import Seen, delays
from benchmarks.everyday_peers import whole_jpegs
from benchmarks.harness import LATEST_KEYS, Results, Scale
from benchmarks.highlights import CHAPTERS, highlights, modes, number, with_measured
from benchmarks.most import NARROW, confirm, most, search
from benchmarks.report import PLOTS, TABLES, growth, write_report
from tests.servers.wait import wait_until
from tests.system.site import ROOT

BENCHMARKS = ROOT / "benchmarks"
RESULTS = BENCHMARKS / "results"
FRAME = ("__init__.py", "conftest.py", "harness.py", "highlights.py", "report.py")
PLOT_BYTES_MAX = 60_000

pytestmark = pytest.mark.slow


def start(directory: Path, *arguments: str, temporary: Path, **environment: str) -> subprocess.Popen[str]:
    """``pytest ARGUMENTS`` in ``directory``, as from a shell that it can be interrupted from."""
    path = os.pathsep.join((str(directory), str(ROOT)))
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )


def contents(*places: Path) -> dict[Path, bytes]:
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*"))]
    return {path: path.read_bytes() for path in files if path.is_file()}


def floors() -> dict[str, Any]:
    return tomllib.loads((BENCHMARKS / "floors.toml").read_text())


def test_every_floor_has_its_reason() -> None:
    for name, entry in floors().items():
        assert set(entry) == {"floor", "reason"}, name
        assert entry["floor"] > 0, name
        assert len(entry["reason"].split()) > 2, name


def test_results_floors_and_report_are_of_one_run(tmp_path: Path) -> None:
    raw = json.loads((RESULTS / "raw.json").read_text())
    latest = json.loads((RESULTS / "latest.json").read_text())
    assert {name: {key: entry[key] for key in LATEST_KEYS} for name, entry in raw["ratios"].items()} == latest
    for name, entry in latest.items():
        assert entry["floor"] is None or name in floors(), name
    assert set(floors()) <= set(latest), "a floor guards nothing"
    document = write_report(RESULTS / "raw.json", tmp_path / "benchmarks.md")
    for name in (document.name, TABLES):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), "python -m benchmarks.report"
    shown = [highlight for chapter in CHAPTERS for highlight in chapter.highlights]
    assert all(f"| {highlight.title} |" in document.read_text() for highlight in shown), "a name has changed"
    assert {highlight.curve for highlight in shown} - {""} <= set(raw["curves"])
    drawn = {path.name for path in (tmp_path / PLOTS).iterdir()}
    standing = list((ROOT / "docs" / PLOTS).iterdir())
    assert {path.name for path in standing} == drawn
    assert all(path.stat().st_size < PLOT_BYTES_MAX for path in standing)


@pytest.mark.parametrize(("name", "table"), [("README.md", highlights), ("docs/modes.md", modes)])
def test_a_document_shows_the_figures_of_the_reports_run(name: str, table: Callable[..., list[str]]) -> None:
    text = (ROOT / name).read_text()
    results = json.loads((RESULTS / "raw.json").read_text())
    assert table(results)
    assert with_measured(text, results, table(results)) == text, "python -m benchmarks.report"
    assert results["run"]["name"] in text
    with pytest.raises(ValueError, match="2 marks"):
        with_measured("no marks", results, [])


@pytest.fixture
def frame(short_path: Path) -> Path:
    """The frame of the benchmarks without any, in a directory of its own: its results and report go there."""
    root = short_path / "tree"
    (root / "benchmarks").mkdir(parents=True)
    (root / "temporary").mkdir()
    for name in FRAME:
        shutil.copy(BENCHMARKS / name, root / "benchmarks" / name)
    (root / "benchmarks" / "floors.toml").write_text('["demo.ratio"]\nfloor = 2.0\nreason = "it is an example"\n')
    (root / "benchmarks" / "tried.md").write_text("| direction | kept |\n| --- | --- |\n| none | no |\n")
    return root


def fake(frame: Path, value: float, wait: str = "") -> None:
    (frame / "benchmarks" / "test_fake.py").write_text(
        "import time\n"
        "def test_fake(results):\n"
        "    results.figure('demo.figure', 12.5, 'ms', goal='<= 25', load='1 camera')\n"
        "    series = {'ours': [(1, 1.0), (10, 1.02)], 'theirs': [(1, 2), (10, 20)]}\n"
        "    results.curve('demo.curve', 'cameras', 'ms', series)\n"
        "    results.skip('demo.large', 'too little memory')\n"
        f"    {wait or 'pass'}\n"
        f"    results.ratio('demo.ratio', {value}, against='an example')\n"
    )


def run_fake(frame: Path, value: float) -> tuple[int, str]:
    fake(frame, value)
    process = start(frame, "benchmarks", "--bench", "full", temporary=frame / "temporary")
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_a_missed_floor_turns_the_run_red_and_is_written_down(frame: Path) -> None:
    code, output = run_fake(frame, 1.5)
    assert code == 1, output
    assert "demo.ratio: 1.5 times against an example is below its floor of 2" in output
    latest = json.loads((frame / "benchmarks/results/latest.json").read_text())
    assert latest == {"demo.ratio": {"value": 1.5, "floor": 2.0, "unit": "times", "against": "an example"}}
    text = (frame / "docs/benchmarks.md").read_text()
    assert "Below their floors in this run: `demo.ratio`" in text
    raw = json.loads((frame / "benchmarks/results/raw.json").read_text())
    assert f"Run **{raw['run']['name']}**" in text
    assert "| none | no |" in text
    text = (frame / "docs" / TABLES).read_text()
    assert "| figure | 12.5 ms |" in text
    assert "| Demo: figure" not in text
    assert "ours: flat" in text
    assert "theirs: in proportion" in text
    assert "* large: too little memory" in text

    code, output = run_fake(frame, 3)
    assert code == 0, output
    assert "Below their floors" not in (frame / "docs/benchmarks.md").read_text()


def test_missing_servers_are_named_with_their_packages(frame: Path) -> None:
    fake(frame, 3)
    bare = str(Path(sys.executable).parent)
    process = start(frame, "benchmarks", "--bench", "full", temporary=frame / "temporary", PATH=bare)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "the benchmarks need: apt-get install redis-server redis-tools" in output
    assert "ffmpeg" in output
    assert not (frame / "benchmarks/results").exists()
    assert not (frame / "docs").exists()


def test_what_a_machine_is_too_small_for_is_skipped_with_the_numbers() -> None:
    results = Results(Scale("full"))
    assert results.fits("demo.small", 1, 1)
    assert not results.fits("demo.large", 2**60)
    assert not results.fits("demo.shared", 1, 2**60)
    assert list(results.skipped) == ["demo.large", "demo.shared"]
    assert results.skipped["demo.large"].startswith(f"it takes {2**30:.1f} GB of memory, ")
    assert results.skipped["demo.shared"].startswith(f"it takes {2**30:.1f} GB of /dev/shm, ")


def test_the_same_results_make_the_same_report(frame: Path) -> None:
    code, output = run_fake(frame, 2.5)
    assert code == 0, output
    first = contents(frame / "docs")
    assert any(path.suffix == ".svg" for path in first)
    write_report(frame / "benchmarks/results/raw.json", frame / "docs/benchmarks.md", frame / "benchmarks/tried.md")
    assert contents(frame / "docs") == first


def test_an_interrupted_run_leaves_results_and_report_alone(frame: Path) -> None:
    code, output = run_fake(frame, 2.5)
    assert code == 0, output
    before = contents(frame / "docs", frame / "benchmarks/results")
    fake(frame, 99, wait="print('now', flush=True); time.sleep(60)")
    process = start(frame, "benchmarks", "--bench", "full", temporary=frame / "temporary")
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert contents(frame / "docs", frame / "benchmarks/results") == before


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_leaves_no_server_and_no_shared_memory(short_path: Path, end: signal.Signals) -> None:
    """Interrupted while a benchmark's site captures."""
    kept = [RESULTS, *(ROOT / "docs" / name for name in ("benchmarks.md", TABLES, PLOTS))]
    before = contents(*kept)
    process = start(ROOT, "benchmarks/test_idle.py", "--bench", "once", temporary=short_path)
    mine = f"edge-video-t{process.pid}-*"
    try:
        wait_until(lambda: len(list(Path("/dev/shm").glob(f"{mine}/*.status"))) > 4, 90, "a benchmark's site runs")
        family = psutil.Process(process.pid).children(recursive=True)
        assert any("valkey" in child.name() for child in family)
        process.send_signal(end)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2, output
    assert "KeyboardInterrupt" in output
    _, alive = psutil.wait_procs(family, 10)
    assert not alive
    assert not list(Path("/dev/shm").glob(mine))
    assert not [path for path in short_path.iterdir() if not path.name.startswith("pytest-of-")]
    assert contents(*kept) == before


def test_the_report_reads_numbers_and_growth() -> None:
    assert [number(value) for value in (0.01234, 1.5, 12345.6, 3.0, 0, "yes")] == [
        "0.0123",
        "1.5",
        "12,346",
        "3",
        "0",
        "yes",
    ]
    assert growth([(1, 5.0), (100, 5.1)]).startswith("flat")
    assert growth([(100, 520.0), (1, 5.0)]).startswith("in proportion")
    assert growth([(1, 1.0), (10, 100.0)]).startswith("FASTER")
    assert growth([(1, 1.0), (10, 4.0)]).startswith("slower")
    assert growth([(1, 10.0), (10, 4.0)]).startswith("falls")


class Load(NamedTuple):
    """A try at a machine of two cores that carries ``carried`` cameras at most."""

    cameras: int
    carried: bool
    cores_used: float


@pytest.mark.parametrize("limit", [60, 90, 130, 160, 200, 250, 400])
@pytest.mark.parametrize("cheaper", [0.0, 0.15, 0.3])
def test_the_most_cameras_are_found_in_few_tries(limit: int, cheaper: float) -> None:
    """Also where a camera costs less the more of them there are, which makes the estimate too low."""

    def probe(cameras: int) -> Load:
        return Load(cameras, cameras <= limit, min(1.9 * (cameras / limit) ** (1 - cheaper), 2.0))

    tries = search(probe, (25, 100), tries_max=6, fits=lambda _: True, cores=2)
    found = most(tries)
    assert found is not None
    assert found.cameras <= limit <= found.cameras * NARROW
    assert len(tries) <= 8


def test_a_search_stops_where_there_is_no_room_and_tries_a_first_failure_twice() -> None:
    carried = iter([False, True])
    asked: list[int] = []

    def fits(cameras: int) -> bool:
        asked.append(cameras)
        return cameras < 150

    tries = search(lambda n: Load(n, next(carried), 1.0), (100,), tries_max=3, fits=fits, cores=2)
    assert tries == [Load(100, False, 1.0), Load(100, True, 1.0)]
    assert asked == [100, 190]
    assert search(lambda n: Load(n, True, 1.0), (100,), tries_max=3, fits=lambda _: False) == []


def test_a_long_run_that_loses_frames_is_tried_with_fewer_cameras() -> None:
    assert confirm(lambda n: Load(n, n <= 180, 1.0), 200) == Load(180, True, 1.0)
    assert confirm(lambda n: Load(n, False, 1.0), 200) is None


def test_a_peer_takes_jpegs_out_of_a_pipe_at_every_split() -> None:
    jpegs = [b"\xff\xd8one\xff\x00\xff\xd9", b"\xff\xd8two\xff\xd9"]
    stream = b"".join(jpegs)
    for first in range(len(stream)):
        for second in range(first, len(stream)):
            pending = bytearray()
            parts = (stream[:first], stream[first:second], stream[second:])
            assert [jpeg for part in parts for jpeg in whole_jpegs(pending, part)] == jpegs
            assert not pending


def test_delays_are_of_the_same_frame_of_the_same_camera() -> None:
    stored = [Seen("a", 1, 1_000_000), Seen("b", 1, 2_000_000), Seen("a", 2, 3_000_000)]
    events = [Seen("b", 1, 5_000_000), Seen("a", 1, 1_500_000), Seen("a", 3, 9_000_000)]
    assert delays(stored, events) == [0.5, 3.0]


def test_the_page_of_many_cameras_is_what_the_stored_results_make_it() -> None:
    assert scale_model.document() == scale_model.DOCUMENT.read_text()


def test_a_line_through_two_loads_predicts_a_third() -> None:
    line = scale_model.line_through([(100.0, 0.3), (200.0, 0.5)])
    assert line.at(400.0) == pytest.approx(0.9)
    good = scale_model.Prediction("CPU", "cores", 0.9, 1.0)
    bad = scale_model.Prediction("CPU", "cores", 0.7, 1.0)
    assert (good.good, bad.good) == (True, False)


def test_boxes_are_counted_by_what_is_full_first() -> None:
    for mode in scale_model.modes(json.loads(scale_model.RAW.read_text())):
        cameras = scale_model.cameras_of_box(mode)
        planned = scale_model.BOX_CORES * scale_model.PLANNED
        memory = scale_model.BOX_GIB * scale_model.GIB
        over = (cameras + 1) * mode.cores > planned or (cameras + 1) * mode.redis_bytes(
            scale_model.TTL_SECONDS
        ) > memory
        assert over, mode.name
        assert cameras * mode.cores <= planned
        assert cameras * mode.redis_bytes(scale_model.TTL_SECONDS) <= memory
        assert scale_model.boxes(mode, cameras + 1) == 2
