"""Facts about Redis. Each is read separately, because a user of least privilege may read only some of them.

Only one probe key is written. It expires after 0.2 s and is also deleted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from redis.exceptions import NoPermissionError

from engine.config import Config
from engine.servers.redis.session import Session, glob_literal, is_error
from engine.wire import keys

#: Round trips measured; bounds of the search for keys without TTL, in seconds and keys.
_PINGS = 100
_SCAN_SECONDS_MAX = 1.0
_SCAN_FRAMES_MAX = 5000
_SCAN_COUNT = 1000
#: Lifetime of the probe key, and how late it may expire before expiry counts as broken.
_PROBE_MS = 200
_PROBE_SECONDS_MAX = 2.0
_SLOW_ENTRIES = 128
#: Names that are tried for a probe key at one node of a cluster: it may have few slots.
_NAMES_MAX = 100_000


class SlowCommand(NamedTuple):
    """An entry of the slow log: UTC seconds, microseconds taken, the command without its arguments."""

    unix_seconds: int
    microseconds: int
    name: str


class Sample(NamedTuple):
    """The number of keys checked, how many of them never expire, and whether these were all keys."""

    keys: int
    without_ttl: int
    complete: bool


class RedisFacts(NamedTuple):
    """The replies; None if this user may not read it. ``probe``: ``expired``, ``stays``, ``denied``, or Redis's
    refusal."""

    name: str
    version: str
    info: dict[str, str] | None
    settings: dict[str, str] | None
    slow: list[SlowCommand] | None
    events: dict[str, int] | None
    pings_ms: list[float]
    offset_seconds: float | None
    probe: str
    #: Samples of the keys that must have a TTL, by what they hold.
    samples: dict[str, Sample | None]
    mode: str = "standalone"


#: Tells whether a server has a key. A node of a cluster has some.
HasKey = Callable[[str], bool]


def gather(config: Config, session: Session, has_key: HasKey = lambda _: True) -> RedisFacts:
    """All facts, over a connection like the engine's, about the keys that the server has. Raises RedisUnavailable if it
    breaks."""
    asker = _Asker(session)
    fields = session.hello()
    return RedisFacts(
        name=fields.get("server", ""),
        version=fields.get("version", ""),
        info=_info(asker.ask("INFO")),
        settings=_settings(asker),
        slow=_slow(asker.ask("SLOWLOG", "GET", _SLOW_ENTRIES)),
        events=_events(asker.ask("LATENCY", "LATEST")),
        pings_ms=asker.pings(),
        offset_seconds=_offset(asker),
        probe=_probe(asker, config, has_key),
        samples=_samples(asker, config, has_key),
        mode=fields.get("mode", ""),
    )


class _Asker:
    def __init__(self, session: Session) -> None:
        self.try_ask = session.try_call

    def ask(self, *command: Any) -> Any:
        """The reply; None for an error: the user lacks the right, or the server lacks the command."""
        reply = self.try_ask(command)[0]
        return None if is_error(reply) else reply

    def pings(self) -> list[float]:
        took = []
        for _ in range(_PINGS):
            begun = time.perf_counter()
            self.ask("PING")
            took.append((time.perf_counter() - begun) * 1000)
        return sorted(took)


def parse_info(text: str) -> dict[str, str]:
    """INFO's lines ``name:value``."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {name: value.strip() for name, value in pairs}


def info_number(info: dict[str, str], name: str) -> int:
    """A number of INFO; 0 if it is not there."""
    text = info.get(name, "0")
    return int(text) if text.isdecimal() else 0


def _info(reply: Any) -> dict[str, str] | None:
    return None if reply is None else parse_info(_text(reply))


def _settings(asker: _Asker) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for name in ("save", "appendfsync", "slowlog-log-slower-than", "maxclients"):
        reply = asker.ask("CONFIG", "GET", name)
        if reply is None:
            return None
        found.update(zip(map(_text, reply[0::2]), map(_text, reply[1::2]), strict=True))
    return found


def _slow(reply: Any) -> list[SlowCommand] | None:
    if reply is None:
        return None
    return [SlowCommand(entry[1], entry[2], _text(entry[3][0]).upper()[:32] if entry[3] else "?") for entry in reply]


def _events(reply: Any) -> dict[str, int] | None:
    """Event -> its worst latency in milliseconds, if the server's latency monitor is on."""
    return None if reply is None else {_text(name): int(worst) for name, _, _, worst, *_ in reply}


def _offset(asker: _Asker) -> float | None:
    """Seconds that Redis's clock is ahead of this machine's, to within half a round trip."""
    begun = time.time()
    reply = asker.ask("TIME")
    if reply is None:
        return None
    return int(reply[0]) + int(reply[1]) / 1e6 - (begun + time.time()) / 2


def _probe(asker: _Asker, config: Config, has_key: HasKey) -> str:
    # The key is named like a journal's draft: no documented pattern for frames, journals or states matches it.
    names = (keys.rebuild_key(config.vhost, f"doctor-{secrets.token_hex(8)}") for _ in range(_NAMES_MAX))
    key = next(filter(has_key, names), "")
    if not key:
        return "denied"
    try:
        reply, there = asker.try_ask(("SET", key, "1", "PX", _PROBE_MS, "NX"), ("EXISTS", key))
        for one in (reply, there):
            if isinstance(one, NoPermissionError):
                return "denied"
            if is_error(one):
                return str(one)
        deadline = time.monotonic() + _PROBE_SECONDS_MAX
        while asker.ask("EXISTS", key):
            if time.monotonic() > deadline:
                return "stays"
            time.sleep(_PROBE_MS / 2000)
        return "expired"
    finally:
        asker.ask("UNLINK", key)


def _samples(asker: _Asker, config: Config, has_key: HasKey) -> dict[str, Sample | None]:
    names = config.vhost, config.prefix
    found = {"frames": _scan(asker, ":".join(glob_literal(keys.encode_part(name)) for name in names) + ":*")}
    if any(camera.video for camera in config.cameras):
        found["video"] = _scan(asker, glob_literal(keys.video_root(*names)) + "*")
    return {**found, "journals": _journals(asker, config, has_key)}


def _scan(asker: _Asker, pattern: str) -> Sample | None:
    """A sample of the keys that match: as many as can be checked in one second."""
    deadline = time.monotonic() + _SCAN_SECONDS_MAX
    looked = without = 0
    cursor = b"0"
    while True:
        step = asker.ask("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
        if step is None:
            return None
        cursor, found = step
        lives = asker.try_ask(*(("PTTL", key) for key in found)) if found else []
        if any(is_error(life) for life in lives):
            return None
        looked += len(lives)
        without += sum(life == -1 for life in lives)
        if cursor == b"0" or looked >= _SCAN_FRAMES_MAX or time.monotonic() > deadline:
            return Sample(looked, without, cursor == b"0")


def _journals(asker: _Asker, config: Config, has_key: HasKey) -> Sample | None:
    names = (
        (keys.video_journal_key if video else keys.journal_key)(config.vhost, config.prefix, camera)
        for camera, video in config.rings
    )
    commands = [("PTTL", name) for name in names if has_key(name)]
    lives = asker.try_ask(*commands)
    if any(is_error(life) for life in lives):
        return None
    return Sample(sum(life != -2 for life in lives), sum(life == -1 for life in lives), complete=True)


def _text(reply: Any) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
