"""Coverage-guided fuzzing: ``python -m tests.fuzz.fuzz TARGET --seconds 60``, or ``all`` for all targets in turn.

New inputs that reach new code are merged into the target's corpus, what breaks a promise goes to its crashes. Needs
atheris: ``pip install -e '.[fuzz]'``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

#: Bytes of an input. A corpus of larger ones would be slower, and is not kept.
LENGTH_MAX = 8192
#: Files that a target's corpus is kept to, smallest first.
FILES_MAX = 50
#: Seconds that one input may take.
_HANG_SECONDS = 10
_RSS_MB_MAX = 2048
#: Names the target in the environment of a process that fuzzes it.
_TARGET = "EDGE_VIDEO_FUZZ_TARGET"


def run(target: str, arguments: list[str]) -> None:
    """In a process of its own: libFuzzer over one target, with the engine's modules instrumented."""
    import atheris

    with atheris.instrument_imports(include=["engine"]):
        from tests.fuzz.targets import TARGETS
    # A merge starts this file again, through a shell, with what it was given as the program's name.
    atheris.Setup([f"{sys.executable} {__file__}", *arguments], TARGETS[target])
    atheris.Fuzz()


def fuzz(target: str, seconds: int) -> bool:
    """One target: seeds, a run, and its corpus merged. Prints one line; True where nothing broke."""
    from tests.fuzz import memory, seeds, targets

    corpus, crashes = targets.CORPUS / target, targets.CRASHES / target
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edge-video-t-fuzz-", dir="/dev/shm") as directory:
        found, merged, words = (Path(directory) / name for name in ("found", "merged", "words"))
        found.mkdir()
        merged.mkdir()
        for seed in seeds.seeds(target):
            _keep(found, seed[:LENGTH_MAX])
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in seeds.dictionary(target)))
        os.environ[memory.PARENT] = directory
        outcome = _child(
            target,
            f"-max_total_time={seconds}",
            f"-dict={words}",
            f"-artifact_prefix={directory}/",
            "-print_final_stats=1",
            str(found),
            str(corpus),
            *([str(crashes)] if crashes.is_dir() else []),
        )
        executions = re.findall(r"stat::number_of_executed_units: (\d+)", outcome.stderr)
        coverage = [int(count) for count in re.findall(r"cov: (\d+)", outcome.stderr)]
        broken = [path for path in Path(directory).glob("*-*") if path.is_file()]
        for path in broken:
            crashes.mkdir(parents=True, exist_ok=True)
            _keep(crashes, path.read_bytes())
        _child(target, "-merge=1", str(merged), str(corpus), str(found))
        kept = sorted(merged.iterdir(), key=lambda path: path.stat().st_size)[:FILES_MAX]
        if kept:
            for path in corpus.iterdir():
                path.unlink()
            for path in kept:
                _keep(corpus, path.read_bytes())
        print(
            f"{target}: {executions[0] if executions else '?'} executions, coverage {coverage[0] if coverage else '?'} "
            f"to {coverage[-1] if coverage else '?'}, corpus of {len(kept)} files, {len(broken)} crashes",
            flush=True,
        )
        if outcome.returncode:
            print(outcome.stdout[-3000:], outcome.stderr[-800:], flush=True)
        return not outcome.returncode


def _child(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    bounds = (f"-max_len={LENGTH_MAX}", f"-timeout={_HANG_SECONDS}", f"-rss_limit_mb={_RSS_MB_MAX}")
    environment = {**os.environ, _TARGET: target, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, *bounds, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", env=environment)


def _keep(directory: Path, data: bytes) -> None:
    (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def main() -> int:
    """The exit code: 0 where no promise was broken."""
    if target := os.environ.get(_TARGET):
        run(target, sys.argv[1:])
        return 0
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description="Fuzz one target, or all.")
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    names = list(TARGETS) if options.target == "all" else [options.target]
    broken = sum(not fuzz(name, options.seconds) for name in names)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
