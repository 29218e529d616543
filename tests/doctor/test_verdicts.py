"""From measured facts to verdicts, without any server."""

from __future__ import annotations

from pathlib import Path

import pytest
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAuthenticationError,
    StreamLostError,
)

from engine.config import from_document
from engine.config.memory import MemoryNeed
from engine.doctor import broker_checks, camera_checks, machine_checks, redis_checks
from engine.doctor import redis_memory_checks as memory_checks
from engine.doctor.broker_facts import Backlog, Management, Queue
from engine.doctor.camera_probe import CameraFacts
from engine.doctor.findings import Finding, exit_code
from engine.doctor.machine_facts import RunDirectory, run_directory
from engine.doctor.redis_facts import Sample, SlowCommand
from engine.doctor.tcp_check import Reach, unreachable
from engine.servers.amqp.probe import Rights
from engine.servers.amqp.refusals import connection_error
from engine.wire.amqp_url import parse_amqp_url
from engine.wire.state import NO_SETS

MIB = 2**20
NEED = MemoryNeed(800 * MIB, 1200, 20.0, ("a", "b", "c", "d", "e"))
VIDEO_NEED = MemoryNeed(800 * MIB, 1200, 20.0, (), 400 * MIB, 600, 2.0)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [([], 0), (["ok", "information"], 0), (["ok", "warning"], 1), (["warning", "broken", "ok"], 2)],
)
def test_the_worst_finding_is_the_exit_code(verdicts, code):
    assert exit_code([Finding("redis", "x", verdict, "") for verdict in verdicts]) == code


LATE = {"expired_keys": "0", "uptime_in_seconds": "601", "db0": "keys=3,expires=3"}


@pytest.mark.parametrize(
    ("finding", "verdict", "says"),
    [
        (redis_checks.version("redis", "7.0.15"), "ok", "redis 7.0.15"),
        (redis_checks.version("redis", "6.2.0"), "ok", "6.2.0"),
        (redis_checks.version("redis", "6.0.16"), "broken", "6.0.16"),
        (redis_checks.version("valkey", "8.1"), "ok", "valkey"),
        (redis_checks.version("", ""), "broken", "before 6"),
        (memory_checks.memory(80 * MIB, 100 * MIB), "ok", "80%"),
        (memory_checks.memory(81 * MIB, 100 * MIB), "warning", "81%"),
        (memory_checks.memory(MIB, 0), "warning", "not set"),
        (memory_checks.policy("volatile-ttl"), "ok", ""),
        (memory_checks.policy("noeviction"), "warning", "takes no more frames"),
        (memory_checks.policy("allkeys-lru"), "warning", "journals and cursors"),
        (memory_checks.policy("volatile-lru"), "warning", "no order of age"),
        (memory_checks.hit_rate(800, 200), "ok", "20.0%"),
        (memory_checks.hit_rate(790, 210), "warning", "21.0%"),
        (memory_checks.hit_rate(0, 999), "ok", "too few"),
        (redis_checks.clients(1000, 10_000), "ok", "1,000"),
        (redis_checks.clients(1001, 10_000), "warning", "1,001"),
        (redis_checks.clients(91, 100), "warning", "91"),
        (redis_checks.role("master"), "ok", "primary"),
        (redis_checks.role("slave"), "broken", "read only"),
        (redis_checks.persistence({}, {"save": ""}), "ok", "off"),
        (redis_checks.persistence({}, {"save": "60 1"}), "information", "RDB"),
        (redis_checks.persistence({"aof_enabled": "1"}, None), "information", "AOF"),
        (redis_checks.persistence({"rdb_last_bgsave_status": "err"}, None), "broken", "refuse writes"),
        (memory_checks.expiry("expired", {"expired_keys": "7"}, 300), "ok", "7 keys"),
        (memory_checks.expiry("expired", LATE, 300), "warning", "0 keys"),
        (memory_checks.expiry("expired", LATE, 301), "ok", "0 keys"),
        (memory_checks.expiry("expired", None, 300), "ok", "probe key expired"),
        (memory_checks.expiry("stays", None, 300), "broken", "outlived"),
        (memory_checks.expiry("denied", None, 300), "information", "may not ask SET"),
        (memory_checks.expiry("OOM command not allowed", None, 300), "broken", "OOM"),
        (memory_checks.ttl("frames", Sample(5, 0, complete=True)), "ok", "none of 5"),
        (memory_checks.ttl("frames", Sample(5000, 2, complete=False)), "warning", "2 of 5,000 that were looked at"),
        (memory_checks.ttl("journals", None), "information", "PTTL"),
        (redis_checks.slow([], {}, 0), "ok", "none"),
        (redis_checks.slow([SlowCommand(100, 12_000, "KEYS")], {}, 3700), "warning", "KEYS with 12.0 ms"),
        (redis_checks.slow([SlowCommand(100, 12_000, "KEYS")], {}, 3701), "ok", "none"),
        (redis_checks.slow([], {"slowlog-log-slower-than": "-1"}, 0), "information", "off"),
        (redis_checks.latency([1.0] * 100, {}), "ok", "p50 1.00 ms"),
        (redis_checks.latency([1.0] * 90 + [60.0] * 10, {}), "warning", "p99 60.00 ms"),
        (redis_checks.latency([6.0] * 100, {"command": 120}), "warning", "command, 120 ms"),
        (redis_checks.clock(-0.9), "ok", "behind"),
        (redis_checks.clock(1.1), "warning", "ahead"),
        (redis_checks.clock(None), "information", "TIME"),
        (broker_checks.alarm("", []), "ok", "none"),
        (broker_checks.alarm("low on memory", []), "broken", "low on memory"),
        (broker_checks.alarm("", ["rabbit@a"]), "broken", "rabbit@a"),
        (broker_checks.bound("x", None)[0], "information", "no management API"),
        (broker_checks.bound("x", Management([], [], []))[0], "warning", "go nowhere"),
        (broker_checks.bound("x", Management([], ["q"], [Queue("q", 10_001, 0)]))[0], "warning", "10,001 messages"),
        (broker_checks.bound("x", Management([], ["q"], [Queue("q", 10_000, 1)]))[0], "ok", "1 bound"),
        (broker_checks.exchange("x", Rights(False, True, None, ""), durable=True), "information", "not exist"),
        (broker_checks.may("x", Rights(False, False, None, ""))[0], "broken", "not declare"),
        (broker_checks.may("x", Rights(True, False, False, ""))[0], "broken", "not publish"),
        (broker_checks.may("x", Rights(True, False, True, ""))[0], "ok", "may publish"),
        (broker_checks.may("x", Rights(True, True, None, "low on memory"))[0], "information", "takes nothing now"),
        (broker_checks.backlog([], 300), "ok", "none"),
        (broker_checks.backlog([Backlog("a", 9, 150.0)], 300), "ok", "about 9 events of 1 cameras"),
        (broker_checks.backlog([Backlog("a", 9, 151.0)], 300, video=True), "warning", "about 9 access units of 1"),
        (broker_checks.backlog([Backlog("a", 9, 1.0), Backlog("b", 1, 151.0)], 300), "warning", "151.0 s (b)"),
        (memory_checks.memory_need(NEED, 1000 * MIB, 60), "ok", "about 800.0 MiB: 20 frames/s for 60 s, 683 KiB each"),
        (memory_checks.memory_need(NEED, 999 * MIB, 60), "warning", "of a, b, c and 2 more; maxmemory is 999.0"),
        (memory_checks.memory_need(NEED, 0, 60), "information", "about 800.0 MiB"),
        (memory_checks.memory_need(NEED, None, 60), "information", "about 800.0 MiB"),
        (memory_checks.memory_need(VIDEO_NEED, 0, 60, 9), "information", "2 packets/s of video for 9 s, 683 KiB each"),
        (memory_checks.memory_need(VIDEO_NEED, 1, 60, 300), "warning", "20 frames/s for 60 s, 341 KiB each"),
        (machine_checks.shared_memory(10 * MIB, 10 * MIB, "/dev/shm"), "ok", "10 MiB"),
        (machine_checks.shared_memory(11 * MIB, 10 * MIB, "/dev/shm"), "broken", "10 MiB"),
        (machine_checks.shared_memory(MIB, None, "/nowhere"), "broken", "not a directory"),
        (machine_checks.files(1024, 464, 100), "ok", "1,024"),
        (machine_checks.files(256, 464, 100), "broken", "256"),
        (machine_checks.files(-1, 464, 100), "ok", "unlimited"),
        (machine_checks.clock(True), "ok", "synchronised"),
        (machine_checks.clock(False), "warning", "not synchronised"),
        (machine_checks.clock(None), "information", "cannot be told"),
        (machine_checks.cpu(1.0, 4, 2.2, running=False), "ok", "4 cores"),
        (machine_checks.cpu(1.0, 4, 2.3, running=False), "warning", "2.30"),
        (machine_checks.cpu(1.0, 4, 2.3, running=True), "ok", "in the load"),
        (machine_checks.run_directory(RunDirectory(Path("/x"), True, False, True, 0)), "broken", "written"),
        (machine_checks.run_directory(RunDirectory(Path("/x"), True, True, False, 0)), "broken", "open to others"),
        (machine_checks.disk(RunDirectory(Path("/x"), True, True, True, 100 * MIB)), "warning", "100 MiB"),
    ],
)  # fmt: skip
def test_verdicts(finding, verdict, says):
    assert finding.verdict == verdict, finding
    assert says in finding.found
    # Whoever is told of trouble is told what is good and what to do.
    assert verdict in ("ok", "information") or (finding.good and finding.todo)


def camera(**fields):
    document = {"cameras": [{"id": "door", "url": "rtsp://u:secret@192.0.2.1/x", **fields}]}
    return from_document(document, {}).cameras[0]


@pytest.mark.parametrize(
    ("fields", "facts", "verdict", "says"),
    [
        ({}, {"codec": "MJPG", "mode": "passthrough", "fps": 25.0}, "ok", "MJPG 640x480, 25.0 fps, passthrough"),
        ({}, {"codec": "mpeg4", "mode": "transcode", "fps": 25.0}, "information", "mpeg4 is not MJPEG; about 4%"),
        ({"encoding": "jpeg"}, {"codec": "MJPG", "mode": "transcode"}, "information", "encoding"),
        (
            {"width": 320, "height": 240},
            {"codec": "MJPG", "mode": "transcode"},
            "information",
            "320x240 is asked for",
        ),
        ({"fps": 10}, {"codec": "MJPG", "mode": "passthrough", "fps": 7.9}, "warning", "10 fps asked for"),
        ({}, {"codec": "MJPG", "mode": "passthrough", "fps": 9.0, "corrupt": 3}, "warning", "3 frames"),
        ({}, {"error": "refused"}, "broken", "refused"),
    ],
)
def test_a_camera(fields, facts, verdict, says):
    found = camera_checks.verdict(camera(**fields), CameraFacts("door", width=640, height=480, **facts))
    assert found.verdict == verdict, found
    assert says in found.found


H264 = {"codec": "h264", "mode": "transcode", "packet_fps": 15.0, "fps": 15.0, "key_interval_seconds": 2.0}
VIDEO = {"video": True, "decode": "key"}


@pytest.mark.parametrize(
    ("fields", "facts", "verdict", "found", "todo"),
    [
        (
            {}, {"decode": "all"}, "information",
            "h264 1280x720, 15.0 fps, a key frame every 2.0 s; all pictures transcoded; about 8% of a core",
            'set video = true and decode = "key": about 0.9% of a core',
        ),
        ({"video": True}, {"decode": "all"}, "information", "stored as sent, all", 'set decode = "key": about 0.9%'),
        (VIDEO, {"decode": "key"}, "ok", "stored as sent, JPEGs of key frames; about 0.9% of a core", ""),
        ({"decode": "key"}, {"decode": "key"}, "ok", "every 2.0 s; JPEGs of key frames", ""),
        ({"video": True, "decode": "none"}, {"decode": "none"}, "ok", "stored as sent, no JPEGs; about 0.6% of", ""),
        (VIDEO, {"decode": "key", "key_interval_seconds": 10.1}, "warning", "a key frame every 10.1 s", "I-frame"),
        (VIDEO, {"decode": "key", "key_interval_seconds": 10.0}, "ok", "a key frame every 10.0 s", ""),
        (VIDEO, {"decode": "key", "note": "waits for a key frame"}, "warning", "; waits for a key frame", "I-frame"),
        (VIDEO, {"decode": "key", "note": NO_SETS}, "warning", "have no parameter sets", "send SPS and PPS"),
        ({"fps": 20}, {"decode": "all"}, "warning", "fewer than the 20 fps asked for", "raise the rate"),
        ({"fps": 20, **VIDEO}, {"decode": "key"}, "ok", "15.0 fps", ""),
        (VIDEO, {"decode": "key", "corrupt": 4}, "warning", "4 access units or pictures were damaged", "network"),
        (VIDEO, {"decode": "key", "clock_offset_seconds": -0.12}, "ok", "% of a core; clock -0.12 s", ""),
        (VIDEO, {"decode": "key", "clock_offset_seconds": 61.0, "clock_drift_ppm": -40.2}, "warning",
         "% of a core; clock +61.00 s, drifts by -40 ppm", "NTP"),
        (VIDEO, {"decode": "key", "clock_offset_seconds": 61.0, "corrupt": 4}, "warning", "clock +61.00 s", "network"),
        (VIDEO, {"codec": "MJPG", "mode": "passthrough"}, "warning", "only H.264 and H.265 are", "video = false"),
        (VIDEO, {"decode": "key", "error": "stalled"}, "broken", "stalled", "ffplay"),
    ],
)  # fmt: skip
def test_a_camera_of_h264(fields, facts, verdict, found, todo):
    told = camera_checks.verdict(camera(**fields), CameraFacts("door", width=1280, height=720, **{**H264, **facts}))
    assert told.verdict == verdict, told
    assert found in told.found
    assert todo in told.todo


def test_a_camera_that_fails_has_its_error_and_its_advice_apart():
    told = camera_checks.verdict(camera(), CameraFacts("door", error="no such path (404)", advice="correct the path"))
    assert (told.verdict, told.found, told.todo) == ("broken", "no such path (404)", "correct the path")
    other = camera_checks.verdict(camera(), CameraFacts("door", error="sent nothing; for a while"))
    assert other.found == "sent nothing; for a while"
    assert other.todo


@pytest.mark.parametrize("way", ["answers", "no such name", "refused", "no answer", "unreachable", "no socket"])
def test_each_way_of_not_reaching_a_server_has_its_advice(way):
    found = unreachable("redis", "redis://box:1", Reach(way, "why", "here"), "its error")
    assert found.verdict == "broken"
    assert found.todo
    assert found.found == ("its error" if way == "answers" else f"redis://box:1 from here: {way} (why)")


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (ProbableAuthenticationError("..."), "authentication"),
        (ConnectionClosedByBroker(530, "NOT_ALLOWED"), "vhost"),
        (ChannelClosedByBroker(403, "ACCESS_REFUSED"), "rights"),
        (ChannelClosedByBroker(406, "PRECONDITION_FAILED"), "exchange"),
        (StreamLostError("Stream connection lost"), "reachable"),
    ],
)
def test_a_broker_that_refuses(error, check):
    found = broker_checks.refused(connection_error(parse_amqp_url("amqp://h/v"), error))
    assert (found.verdict, found.check) == ("broken", check)
    assert found.todo
    assert found.todo not in found.found


def test_the_run_directory_is_looked_at_and_not_made(tmp_path):
    assert run_directory(tmp_path / "a" / "b")[:4] == (tmp_path, False, True, True)
    assert not (tmp_path / "a").exists()
    tmp_path.chmod(0o755)
    assert run_directory(tmp_path)[:4] == (tmp_path, True, True, False)
