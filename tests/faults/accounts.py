"""The checker: accounts for every frame number that a site's cameras used up.

Each number must be stored (its key, its payload's own stamp and its journal entry agree) and announced, or be covered
by a count of drops with a reason. Nothing is taken from the engine's word alone: what is stored is counted in Redis,
what is announced at a consumer, and both are held against the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import redis

from engine.shm.ring_file import RingCounts
from engine.wire.journal import parse_entry_id
from engine.wire.keys import journal_key, parse_frame_key
from engine.wire.test_mark import find_mark


class Accounts(NamedTuple):
    """Sums over all cameras of one site. ``gone`` frames were stored and evicted since."""

    captured: int
    stored: int
    drops: dict[str, int]
    gone: int
    announced: int
    repeats: int
    expired: int


class Ledger(NamedTuple):
    """What one camera's frames came to: numbers in Redis, in the journal, and announced in order of arrival. ``counts``
    is None for a camera whose ring was lost, and its counts with it."""

    counts: RingCounts | None
    stored: list[int]
    listed: list[int]
    announced: list[int]


def read_ledgers(
    client: redis.Redis | redis.RedisCluster,
    vhost: str,
    counts: Mapping[str, RingCounts | None],
    events: Sequence[Mapping[str, object]],
    *,
    stamped: Sequence[str],
) -> dict[str, Ledger]:
    """One ledger for each camera in ``counts``; payloads of the ``stamped`` ones must prove what they are."""
    frames: dict[str, list[tuple[int, int]]] = {camera: [] for camera in counts}
    raw_keys = list(client.scan_iter(match=f"{vhost}:frames:*", count=5000))
    for first in range(0, len(raw_keys), 500):
        part = raw_keys[first : first + 500]
        # Not MGET, whose keys would have to lie in one slot of a cluster.
        payloads = client.pipeline(transaction=False)
        for raw in part:
            payloads.get(raw)
        for raw, payload in zip(part, payloads.execute(), strict=True):
            key = parse_frame_key(raw)
            if payload is None:
                continue
            frames[key.camera].append((key.unix_nano, key.sequence))
            assert payload.startswith(b"\xff\xd8"), f"{raw!r} is no JPEG"
            if key.camera in stamped:
                stamp = find_mark(payload)
                assert stamp, f"{raw!r} carries no stamp"
                proof = (stamp.camera, stamp.frame, stamp.unix_nano)
                assert proof == (key.camera, key.sequence, key.unix_nano), f"{raw!r} holds {proof}"
    announced: dict[str, list[int]] = {camera: [] for camera in counts}
    for event in events:
        announced[str(event["camera_id"])].append(int(str(event["sequence"])))
    ledgers = {}
    for camera, found in frames.items():
        entries = client.xrange(journal_key(vhost, "frames", camera))
        ledgers[camera] = Ledger(
            counts[camera],
            [sequence for _, sequence in sorted(found)],
            [parse_entry_id(entry)[1] for entry, _ in entries],
            announced[camera],
        )
    return ledgers


def check(
    ledgers: Mapping[str, Ledger],
    *,
    expired: int,
    evicting: bool = False,
    publishes: bool = True,
    unsettled: Collection[str] = (),
    apart: bool = False,
) -> Accounts:
    """Sums of ledgers that balance. Raises AssertionError naming the first camera whose do not.

    Of ``unsettled`` cameras, frames that count as damaged may be stored all the same. ``apart``: frames and journals
    are on several servers, which can lose one without the other. Then a frame is dropped if its entry is lost, or never
    came because the frame was given up, and also if the frame is lost and its entry stands."""
    drops: Counter[str] = Counter()
    gone = repeats = unannounced = 0
    for camera, ledger in ledgers.items():
        counts = ledger.counts
        for what, numbers in (("stored", ledger.stored), ("listed", ledger.listed)):
            assert numbers == sorted(set(numbers)), f"{camera}: numbers {what} repeat or run back"
        listed, stored = set(ledger.listed), set(ledger.stored)
        if apart and counts:
            unlisted, missing = stored - listed, listed - stored
            assert len(unlisted) <= counts.dropped, f"{camera}: neither listed nor dropped: {sorted(unlisted)[:10]}"
            assert len(missing) <= counts.drops["lost"], f"{camera}: neither there nor lost: {sorted(missing)[:10]}"
            listed &= stored
        else:
            assert stored <= listed, f"{camera}: stored and not listed: {sorted(stored - listed)[:10]}"
            assert evicting or stored == listed, f"{camera}: listed and not stored: {sorted(listed - stored)[:10]}"
        gone += len(listed - stored)
        lost = 0
        if counts:
            _check_counts(camera, counts, listed, counts.drops["damaged"] if camera in unsettled else 0)
            drops.update({reason: count for reason, count in counts.drops.items() if count})
            lost = counts.drops["lost"]
        if not publishes:
            continue
        first_times = list(dict.fromkeys(ledger.announced))
        assert first_times == sorted(first_times), f"{camera}: announced out of order"
        repeats += len(ledger.announced) - len(first_times)
        # A frame that Redis lost later may have been announced before.
        never_stored = set(first_times) - listed
        assert len(never_stored) <= lost, f"{camera}: announced, never stored: {never_stored}"
        unannounced += len(listed - set(first_times))
    assert unannounced <= expired, f"{unannounced} frames were never announced, {expired} are counted as expired"
    return Accounts(
        captured=sum(ledger.counts.captured for ledger in ledgers.values() if ledger.counts),
        stored=sum(ledger.counts.stored for ledger in ledgers.values() if ledger.counts),
        drops=dict(drops),
        gone=gone,
        announced=sum(len(set(ledger.announced)) for ledger in ledgers.values()),
        repeats=repeats,
        expired=expired,
    )


def _check_counts(camera: str, counts: RingCounts, listed: set[int], surplus: int) -> None:
    assert counts.held == 0, f"{camera}: {counts.held} frames are still in the ring"
    assert counts.captured == counts.stored + counts.dropped, f"{camera}: {counts}"
    assert counts.stored <= len(listed) <= counts.stored + surplus, (
        f"{camera}: counted {counts.stored} as stored, the journal lists {len(listed)}; drops {counts.drops}"
    )
    assert not listed or max(listed) <= counts.captured, f"{camera}: a number beyond {counts.captured}"
