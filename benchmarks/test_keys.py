"""Keys: 19 digits of nanoseconds against the former 30 characters of RFC 3339.

Timed: building, parsing, comparing and filtering some thousand keys or timestamps in a loop of one process. Compared
values are made before, unless the name says that they are parsed. Both loops differ only in the operation. Not timed:
making the stamps, loading Redis. The engine's functions check every part; the RFC 3339 side checks nothing, which
favours it. Memory is ``used_memory`` of a separate redis-server that holds only the keys.
"""

from __future__ import annotations

import functools
import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import keys_peers as peers
from benchmarks.harness import Results, Scale, paired
from engine.wire import keys, old_keys
from engine.wire.keys import UNIX_NANO_DIGITS, FrameKey
from tests.servers.redis_server import RedisServer

VHOST, PREFIX, CAMERA = "supermercado_vhost", "frames", "cam4"
HEAD = keys.frame_key_prefix(VHOST, PREFIX, CAMERA)
BEGIN_NANO = 1_731_076_200_123_456_789
#: Nanoseconds between frames, and the range of a random delay.
INTERVAL_NANO, JITTER_NANO = 33_333_333, 5_000_000
FRAME_BYTES = 60 * 1024
MILLION = 1_000_000
TTL_MS = 3_600_000


def stamps_of(count: int) -> list[int]:
    """Stamps of a camera with 30 fps, in order."""
    chance = random.Random(19)
    return [BEGIN_NANO + number * INTERVAL_NANO + chance.randrange(JITTER_NANO) for number in range(count)]


@pytest.fixture(scope="module")
def stamps(scale: Scale) -> list[int]:
    return stamps_of(scale.pick(200, 3000, 20_000))


@pytest.fixture
def rounds(scale: Scale) -> int:
    return scale.pick(1, 3, 11)


def compare(
    benchmark: BenchmarkFixture,
    results: Results,
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    count: int,
    rounds: int,
    against: str,
) -> None:
    """Time both sides in turn. Record the ratio, and the nanoseconds per operation of ``count`` operations."""
    pairs = paired(benchmark, ours, theirs, rounds)
    runs = [their / our for our, their in zip(pairs.ours, pairs.theirs, strict=True)]
    results.ratio(name, pairs.ratio, against=against, unit="times faster", runs=runs)
    for side, seconds in (("ours", pairs.ours), ("theirs", pairs.theirs)):
        results.figure(f"{name}.{side}_ns", round(sorted(seconds)[len(seconds) // 2] / count * 1e9, 1), "ns")


def test_building(benchmark: BenchmarkFixture, results: Results, stamps: list[int], rounds: int) -> None:
    """Build a camera's next key. Both sides have built the constant part before."""
    suffix = keys.frame_key_suffix
    built = [HEAD + suffix(stamp, 7) for stamp in stamps]
    assert built == [keys.build_frame_key(FrameKey(VHOST, PREFIX, CAMERA, stamp, 7)) for stamp in stamps]
    assert [peers.parse(peers.build(HEAD, stamp, 7))[3] for stamp in stamps] == stamps
    compare(
        benchmark,
        results,
        "keys.build",
        lambda: [HEAD + suffix(stamp, 7) for stamp in stamps],
        lambda: [peers.build(HEAD, stamp, 7) for stamp in stamps],
        count=len(stamps),
        rounds=rounds,
        against="building the same key with an RFC 3339 timestamp (datetime.isoformat), unchecked",
    )


def test_parsing_checked(benchmark: BenchmarkFixture, results: Results, stamps: list[int], rounds: int) -> None:
    """Parse a whole key into its parts, with each part checked on both sides."""
    ours = [HEAD + keys.frame_key_suffix(stamp, 7) for stamp in stamps]
    theirs = [f"{PREFIX}:{VHOST}:{CAMERA}:{peers.timestamp(stamp)}:00007" for stamp in stamps]
    parts = [FrameKey(VHOST, PREFIX, CAMERA, stamp, 7) for stamp in stamps]
    assert [keys.parse_frame_key(key) for key in ours] == parts
    assert [old_keys.parse_old_key(key, PREFIX) for key in theirs] == parts
    compare(
        benchmark,
        results,
        "keys.parse.checked",
        lambda: [keys.parse_frame_key(key) for key in ours],
        lambda: [old_keys.parse_old_key(key, PREFIX) for key in theirs],
        count=len(stamps),
        rounds=rounds,
        against="parsing the whole former key, with the same checks",
    )


def test_parsing_unchecked(benchmark: BenchmarkFixture, results: Results, stamps: list[int], rounds: int) -> None:
    """The engine's checked parse against unchecked split and fromisoformat. Below 1, the checks cost more."""
    ours = [HEAD + keys.frame_key_suffix(stamp, 7) for stamp in stamps]
    theirs = [peers.build(HEAD, stamp, 7) for stamp in stamps]
    assert [peers.parse(key) for key in theirs] == [keys.parse_frame_key(key) for key in ours]
    compare(
        benchmark,
        results,
        "keys.parse.unchecked",
        lambda: [keys.parse_frame_key(key) for key in ours],
        lambda: [peers.parse(key) for key in theirs],
        count=len(stamps),
        rounds=rounds,
        against="a split and datetime.fromisoformat of the RFC 3339 key that check nothing",
    )


def test_reading_the_timestamp(benchmark: BenchmarkFixture, results: Results, stamps: list[int], rounds: int) -> None:
    """Read only the timestamp, from text to nanoseconds."""
    digits = [str(stamp) for stamp in stamps]
    texts = [peers.timestamp(stamp) for stamp in stamps]
    assert [peers.nano(text) for text in texts] == [int(text) for text in digits] == stamps
    compare(
        benchmark,
        results,
        "keys.parse.timestamp",
        lambda: [int(text) for text in digits],
        lambda: [peers.nano(text) for text in texts],
        count=len(stamps),
        rounds=rounds,
        against="datetime.fromisoformat of 30 characters, to the nanosecond; ours is int() of 19 digits",
    )


#: Way of comparing -> its description.
WAYS = {
    "parsed": ("19 digits through int() against 30 characters through fromisoformat, at every comparison"),
    "strings": ("30 characters compared as strings; ours are integers already"),
    "digits": ("19 digits compared as strings; ours are integers already"),
}


def forms(way: str, stamps: Sequence[int]) -> tuple[list[int] | list[str], list[str], Callable[[str], int] | None]:
    """The engine's values, the peer's, and the peer's parser or None. With a parser, the engine's side uses int()."""
    if way == "parsed":
        return [str(stamp) for stamp in stamps], [peers.timestamp(stamp) for stamp in stamps], peers.nano
    # New integers, so that both lists are contiguous in memory in their own order.
    integers = [int(str(stamp)) for stamp in stamps]
    return integers, [peers.timestamp(stamp) if way == "strings" else str(stamp) for stamp in stamps], None


@pytest.mark.parametrize("way", list(WAYS))
def test_comparing(benchmark: BenchmarkFixture, results: Results, stamps: list[int], rounds: int, way: str) -> None:
    """Find the later of two stamps, for neighbours in a shuffled list."""
    shuffled = random.Random(4).sample(stamps, len(stamps))
    ours, theirs, read = forms(way, shuffled)
    later = sum(a < b for a, b in itertools.pairwise(shuffled))

    def plain(values: Sequence[Any]) -> int:
        count = 0
        before = values[0]
        for value in values:
            if before < value:
                count += 1
            before = value
        return count

    def through(values: Sequence[Any], reading: Callable[[str], int]) -> int:
        count = 0
        before = values[0]
        for value in values:
            if reading(before) < reading(value):
                count += 1
            before = value
        return count

    ours_side: Callable[[], int] = functools.partial(plain, ours)
    theirs_side: Callable[[], int] = functools.partial(plain, theirs)
    if read:
        ours_side, theirs_side = functools.partial(through, ours, int), functools.partial(through, theirs, read)
    assert ours_side() == theirs_side() == later
    compare(
        benchmark,
        results,
        f"keys.compare.{way}",
        ours_side,
        theirs_side,
        count=len(stamps),
        rounds=rounds,
        against=WAYS[way],
    )


@pytest.mark.parametrize("way", list(WAYS))
def test_range_filter(benchmark: BenchmarkFixture, results: Results, stamps: list[int], rounds: int, way: str) -> None:
    """Filter the stamps of a tenth of the time from a shuffled list: the page's ``>= X AND <= Y``."""
    shuffled = random.Random(5).sample(stamps, len(stamps))
    ours, theirs, read = forms(way, shuffled)
    first, last = stamps[len(stamps) * 4 // 10], stamps[len(stamps) // 2]
    expected = [number for number, stamp in enumerate(shuffled) if first <= stamp <= last]

    def plain(values: Sequence[Any], low: int | str, high: int | str) -> list[int]:
        return [number for number, value in enumerate(values) if low <= value <= high]

    def through(values: Sequence[Any], reading: Callable[[str], int]) -> list[int]:
        return [number for number, value in enumerate(values) if first <= reading(value) <= last]

    text: Callable[[int], str] = peers.timestamp if way == "strings" else str
    ours_side: Callable[[], list[int]] = functools.partial(plain, ours, first, last)
    theirs_side: Callable[[], list[int]] = functools.partial(plain, theirs, text(first), text(last))
    if read:
        ours_side, theirs_side = functools.partial(through, ours, int), functools.partial(through, theirs, read)
    assert ours_side() == theirs_side() == expected
    compare(
        benchmark,
        results,
        f"keys.range.{way}",
        ours_side,
        theirs_side,
        count=len(stamps),
        rounds=rounds,
        against=WAYS[way],
    )


def test_characters(results: Results, stamps: list[int]) -> None:
    """How much shorter the timestamp and the page's example key are, and which texts sort by time.

    Nothing is timed.
    """
    ours, theirs = len(str(stamps[0])), len(peers.timestamp(stamps[0]))
    assert (ours, theirs) == (UNIX_NANO_DIGITS, peers.RFC3339_CHARACTERS)
    key = HEAD + keys.frame_key_suffix(stamps[0], 1)
    former = peers.build(HEAD, stamps[0], 1)
    results.figure(
        "keys.size.timestamp_smaller",
        round(100 * (1 - ours / theirs), 1),
        "%",
        claim="36 % smaller",
        it_holds="of the timestamp alone",
        characters=[theirs, ours],
    )
    results.figure(
        "keys.size.whole_key_smaller",
        round(100 * (1 - len(key) / len(former)), 1),
        "%",
        claim="36 % smaller",
        it_does_not_hold="of the whole key",
        characters=[len(former), len(key)],
    )
    results.figure(
        "keys.size.timestamps_less_per_million",
        (theirs - ours) * MILLION / 1e6,
        "MB",
        claim="-11 MB per million",
        it_holds="of the timestamps' characters, counted",
    )
    # Go's form drops trailing zeros, so whole seconds and round fractions sort out of order.
    chance = random.Random(9)
    tidy = sorted({BEGIN_NANO // 10**9 * 10**9 + chance.randrange(10**5) * 10**5 for _ in range(len(stamps))})
    fixed, short = [peers.timestamp(stamp) for stamp in tidy], [peers.go_timestamp(stamp) for stamp in tidy]
    assert sorted(fixed) == fixed
    assert sorted(map(str, tidy)) == list(map(str, tidy))
    wrong = sum(a > b for a, b in itertools.pairwise(short))
    results.figure(
        "keys.order.go_rfc3339nano_neighbours_out_of_order",
        round(100 * wrong / (len(short) - 1), 2),
        "%",
        of="stamps with four digits of fraction, sorted by time",
        with_all_nine_digits="0 %, as with 19 digits of nanoseconds",
    )


def test_verdicts(benchmark: BenchmarkFixture, results: Results, stamps: list[int], rounds: int) -> None:
    """The claim "10x faster", against each of its possible meanings. The engine compares two integers.

    This test times the claim's own meaning: a comparison of existing integers, against RFC 3339 that is parsed at every
    comparison.
    """
    texts = [peers.timestamp(stamp) for stamp in stamps]
    low, high = stamps[len(stamps) // 3], stamps[len(stamps) // 2]
    pairs = paired(
        benchmark,
        lambda: [stamp for stamp in stamps if low <= stamp <= high],
        lambda: [text for text in texts if low <= peers.nano(text) <= high],
        rounds,
    )
    results.ratio(
        "keys.claim.10x",
        pairs.ratio,
        against="RFC 3339 parsed at every comparison; ours are integers already",
        unit="times faster",
    )
    value = round(pairs.ratio, 1)
    results.figure(
        "keys.compare.integers_against_parsing",
        value,
        "times",
        claim="10x faster",
        it_holds="for times that are integers already",
    )
    said = {
        "keys.compare.parsed": "where both begin as text, as every key does",
        "keys.compare.strings": "of strings, which sort as well: no parsing was ever needed to compare",
    }
    for name, text in said.items():
        if name in results.ratios:
            value = results.ratios[name]["value"]
            verdict = {"it_holds" if value >= 10 else "it_does_not_hold": text}
            results.figure(f"{name}.beside_the_claim", value, "times", claim="10x faster", **verdict)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    path = Path(tempfile.mkdtemp(prefix="evb-keys-"))
    with RedisServer(path, unix=True) as running:
        # The server's one-time allocations happen here.
        memory_of(running, str, stamps_of(1000))
        yield running
    shutil.rmtree(path, ignore_errors=True)


def used_memory(server: RedisServer) -> int:
    """The server's used bytes, once they are constant: growing tables are rehashed in the background."""
    with server.client() as client:
        before, deadline = -1, time.monotonic() + 10
        while time.monotonic() < deadline:
            now = int(client.info("memory")["used_memory"])
            if abs(now - before) < 4096:
                return now
            before = now
            time.sleep(0.1)
    raise AssertionError("the server's memory does not come to rest")


def memory_of(server: RedisServer, build: Callable[[int], str], stamps: Sequence[int]) -> float:
    """Bytes per key, with a value of one byte and a lifetime. Empties the server afterwards."""
    with server.client() as client:
        client.flushall()
        empty = used_memory(server)
        assert server.socket_path is not None
        peers.load(str(server.socket_path), (build(stamp).encode() for stamp in stamps), TTL_MS)
        assert client.dbsize() == len(stamps)
        full = used_memory(server)
        assert client.get(build(stamps[-1])) == b"x"
        client.flushall()
    return (full - empty) / len(stamps)


def memory_of_both(server: RedisServer, head: str, stamps: Sequence[int]) -> tuple[float, float]:
    """Bytes of a key with 19 digits, and of the same key with RFC 3339."""
    ours = memory_of(server, lambda stamp: head + keys.frame_key_suffix(stamp, 1), stamps)
    return ours, memory_of(server, lambda stamp: peers.build(head, stamp, 1), stamps)


def test_memory_of_a_million_keys(results: Results, scale: Scale, server: RedisServer) -> None:
    """Bytes of both forms in a real redis-server. All costs of a key count: its string, and its entries in the tables
    of keys and lifetimes. Nothing is timed."""
    count = scale.pick(1000, 100_000, MILLION)
    # Memory for the server's table, and for the stamps and commands in this process.
    if not results.fits("keys.memory of a million keys", 800 * count):
        return
    stamps = stamps_of(count)
    ours, theirs = memory_of_both(server, HEAD, stamps)
    less = theirs - ours
    # With a thousand keys, the server's own allocations exceed the difference.
    assert less > 0 or scale.mode == "once"
    results.figure("keys.memory.unix_nano", round(ours, 1), "bytes a key", keys=count)
    results.figure("keys.memory.rfc3339", round(theirs, 1), "bytes a key", keys=count)
    results.figure(
        "keys.memory.less_per_million",
        round(less * MILLION / 1e6, 1),
        "MB",
        claim="-11 MB per million",
        in_redis="the allocator's size classes round a key's bytes up, so it depends on the names' lengths",
        total_mb_before_and_after=[round(theirs * MILLION / 1e6, 1), round(ours * MILLION / 1e6, 1)],
    )
    results.figure(
        "keys.memory.smaller",
        round(100 * less / theirs, 1),
        "%",
        claim="36 % smaller",
        it_does_not_hold="of Redis's memory for a key without its frame",
    )
    with server.client() as client:
        client.set(HEAD + keys.frame_key_suffix(stamps[0], 1), b"j" * FRAME_BYTES, px=TTL_MS)
        frame = client.memory_usage(HEAD + keys.frame_key_suffix(stamps[0], 1))
    assert frame is not None
    results.figure(
        "keys.memory.smaller_with_its_60kb_frame",
        round(100 * less / (frame + less), 3),
        "%",
        claim="-11 MB per million",
        beside="what a million frames of 60 KB take",
        gb_of_a_million_frames=round(frame * MILLION / 1e9, 1),
    )
    results.ratio(
        "keys.memory.ratio", theirs / ours, against="Redis's memory for the same keys with RFC 3339", unit="times less"
    )


def test_memory_over_names(results: Results, scale: Scale, server: RedisServer) -> None:
    """Bytes per key for longer names of vhost and camera. The allocator's size steps decide whether the 11 characters
    matter. Nothing is timed."""
    stamps = stamps_of(scale.pick(1000, 10_000, 40_000))
    series: list[tuple[float, float, float]] = []
    for length in scale.pick((18,), (1, 18), (4, 12, 20, 28, 36)):
        head = keys.frame_key_prefix("v" * length, PREFIX, CAMERA)
        ours, theirs = memory_of_both(server, head, stamps)
        assert ours < theirs + 1 or scale.mode == "once"
        series.append((length, round(ours, 1), round(theirs, 1)))
    results.curve(
        "keys.memory.over_names",
        "characters of the vhost",
        "bytes a key in Redis",
        {
            "19 digits": [(length, ours) for length, ours, _ in series],
            "RFC 3339": [(length, theirs) for length, _, theirs in series],
        },
        note="Redis's allocator gives bytes in steps, so that 11 characters less are a step or none",
    )
