"""A writer's rings come, go, and are made anew under it: nothing is lost, nothing is out of order, all is counted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from engine.shm import ring_file, ring_place
from engine.shm.ring_file import RingCounts
from engine.shm.status_page import CaptureCount, StatusPage
from engine.stages.writer.camera_writer import CameraWriter
from engine.wire.state import CameraStatus, encode_status
from tests.servers.redis_server import RedisServer
from tests.stages.test_writer import NANO, Bench, bench, listed_numbers, stored

__all__ = ["bench"]


def counts(bench: Bench, camera: str) -> RingCounts:
    return bench.producers[camera].counts()


def renew(bench: Bench, camera: str) -> None:
    """What a capture process does when it finds its ring gone."""
    former = bench.producers[camera]
    found = ring_place.renewed(bench._config, former)
    assert found
    bench.producers[camera] = found.producer
    bench.pages[camera].counts[CaptureCount.RING] = found.producer.inode.number
    former.close()


def restart(bench: Bench, camera: str) -> None:
    """The capture process was killed; its successor."""
    bench.producers[camera].close()
    bench.pages[camera].close()
    bench.capture(camera)


def all_stored(bench: Bench) -> bool:
    return not any(producer.counts().held for producer in bench.producers.values())


def balanced(found: RingCounts) -> bool:
    return found.captured == found.stored + found.dropped


def writer_of(bench: Bench, camera: str) -> CameraWriter:
    return bench.agent._streams._rings[0].writers[camera]


def rings_of(bench: Bench) -> set[str]:
    return set(bench.agent._streams._rings[0].writers)


def test_a_camera_that_the_site_file_did_not_name_is_stored_at_once(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 3)
    bench.turn(lambda: stored(bench, "cam1") == 3)
    bench.capture("later")
    bench.pages["later"].text = encode_status(CameraStatus("active", NANO))
    bench.write("later", 5)
    bench.turn(lambda: stored(bench, "later") == 5)
    client = redis_server.client()
    bench.turn(lambda: client.hget("engine:default:cameras:frames", "later"))
    assert listed_numbers(redis_server, "later") == [1, 2, 3, 4, 5]


def test_each_writer_takes_the_rings_that_are_its_own(bench: Bench) -> None:
    config = bench._config
    msgspec.structs.force_setattr(config.writer, "writers", 2)
    names = [f"new{number}" for number in range(12)]
    for camera in names:
        bench.capture(camera)
    mine = {camera for camera in names if config.writer_of(camera) == 0}
    assert 0 < len(mine) < len(names)
    bench.turn(lambda: mine <= rings_of(bench))
    assert not (set(names) - mine) & rings_of(bench)


def test_a_camera_whose_ring_is_gone_is_let_go_with_its_last_state(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 3)
    bench.turn(lambda: stored(bench, "cam1") == 3)
    bench.pages["cam1"].text = encode_status(CameraStatus("offline", NANO, last_error="recording stopped"))
    bench.pages["cam1"].close()
    bench.paths.ring("cam1").unlink()
    with capture_logs() as lines:
        bench.turn(lambda: rings_of(bench) == {"cam2"})
    assert [(line["camera"], line["captured"], line["stored"]) for line in lines if "let go" in line["event"]] == [
        ("cam1", 3, 3)
    ]
    assert b"recording stopped" in redis_server.client().hget("engine:default:cameras:frames", "cam1")
    bench.write("cam2", 3)
    bench.turn(lambda: stored(bench, "cam2") == 3)


@pytest.mark.parametrize("how", ["unlink", "rename"])
def test_a_ring_made_anew_under_its_writer_goes_on_where_the_former_one_was(
    bench: Bench, redis_server: RedisServer, how: str
) -> None:
    bench.write("cam1", 4)
    bench.turn(lambda: stored(bench, "cam1") == 4)
    path = bench.paths.ring("cam1")
    bench.write("cam1", 5)
    path.unlink() if how == "unlink" else path.rename(path.with_name("elsewhere"))
    # The capture process has not noticed yet.
    bench.write("cam1", 6)
    renew(bench, "cam1")
    assert counts(bench, "cam1").held == 11
    bench.write("cam1", 7)
    with capture_logs() as lines:
        bench.turn(lambda: all_stored(bench))
    assert listed_numbers(redis_server, "cam1") == list(range(1, 23))
    found = counts(bench, "cam1")
    assert (found.captured, found.stored, found.dropped) == (22, 22, 0)
    assert sum(found.latency) == 22
    # The longest latency may be one of the ring that was replaced.
    assert found.latency_sum_us >= 1000 * found.latency_max_ms > 0
    assert [line["log_level"] for line in lines if "ring was replaced" in line["event"]] == ["info"]


def test_a_ring_that_its_capture_still_writes_to_is_drained_though_it_has_no_name(
    bench: Bench, redis_server: RedisServer
) -> None:
    bench.paths.ring("cam1").unlink()
    for _ in range(3):
        bench.write("cam1", 3)
        bench.turn(lambda: all_stored(bench))
        bench.agent._look_around()
    assert listed_numbers(redis_server, "cam1") == list(range(1, 10))
    assert "cam1" in rings_of(bench)


def test_an_older_ring_put_back_is_not_opened_while_the_capture_writes_to_its_own(
    bench: Bench, redis_server: RedisServer
) -> None:
    bench.write("cam1", 2)
    bench.turn(lambda: all_stored(bench))
    path = bench.paths.ring("cam1")
    aside = path.with_name("aside")
    path.rename(aside)
    renew(bench, "cam1")
    bench.write("cam1", 2)
    bench.turn(lambda: all_stored(bench))
    aside.rename(path)
    bench.write("cam1", 2)
    bench.turn(lambda: all_stored(bench))
    renew(bench, "cam1")
    bench.write("cam1", 2)
    bench.turn(lambda: all_stored(bench) and writer_of(bench, "cam1").consumer.inode == bench.producers["cam1"].inode)
    assert listed_numbers(redis_server, "cam1") == list(range(1, 9))
    assert counts(bench, "cam1").stored == 8


def test_numbers_go_on_when_ring_and_capture_are_gone_at_once(bench: Bench, redis_server: RedisServer) -> None:
    """What the lost ring held is stored from its mapping first, and its counts are said."""
    bench.write("cam1", 3)
    page = bench.pages["cam1"]
    page.counts[CaptureCount.LAST_SEQUENCE] = bench.producers["cam1"].last_sequence
    page.counts[CaptureCount.LAST_NANO] = bench.producers["cam1"].last_nano
    bench.paths.ring("cam1").unlink()
    restart(bench, "cam1")
    assert bench.producers["cam1"].last_sequence == 3
    bench.write("cam1", 4)
    with capture_logs() as lines:
        bench.turn(lambda: all_stored(bench) and stored(bench, "cam1") == 4)
    assert listed_numbers(redis_server, "cam1") == list(range(1, 8))
    (said,) = [line for line in lines if "do not include" in line["event"]]
    assert (said["camera"], said["captured"], said["stored"], said["dropped"]) == ("cam1", 3, 3, 0)


def test_what_went_with_a_ring_whose_writer_was_killed_is_counted(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 4)
    bench.turn(lambda: stored(bench, "cam1") == 4)
    bench.write("cam1", 5)
    bench.paths.ring("cam1").unlink()
    renew(bench, "cam1")
    bench.write("cam1", 2)
    bench.kill()
    bench.begin()
    bench.turn(lambda: all_stored(bench))
    assert listed_numbers(redis_server, "cam1") == [1, 2, 3, 4, 10, 11]
    found = counts(bench, "cam1")
    assert (found.stored, found.drops["damaged"]) == (6, 5)
    assert balanced(found)


def test_the_counts_of_what_redis_must_have_go_over_to_the_new_ring(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 4)
    bench.turn(lambda: stored(bench, "cam1") == 4)
    bench.paths.ring("cam1").unlink()
    renew(bench, "cam1")
    bench.write("cam1", 3)
    bench.turn(lambda: stored(bench, "cam1") == 7)
    redis_server.kill()
    redis_server.start()
    bench.write("cam1")
    bench.turn(lambda: stored(bench, "cam1") == 1)
    assert counts(bench, "cam1").drops["lost"] == 7


def test_a_ring_is_followed_while_redis_is_away(bench: Bench, redis_server: RedisServer) -> None:
    bench.write("cam1", 4)
    bench.turn(lambda: stored(bench, "cam1") == 4)
    redis_server.pause()
    bench.write("cam1", 3)
    bench.paths.ring("cam1").unlink()
    renew(bench, "cam1")
    bench.write("cam1", 3)
    bench.agent.do_work()
    redis_server.resume()
    bench.turn(lambda: all_stored(bench))
    assert listed_numbers(redis_server, "cam1") == list(range(1, 11))


def test_a_ring_that_came_just_before_the_stop_is_emptied(bench: Bench, redis_server: RedisServer) -> None:
    bench.agent._look_around()
    bench.capture("later")
    bench.write("later", 5)
    for page in bench.pages.values():
        page.close()
    bench.turn(bench.agent.drained)
    assert listed_numbers(redis_server, "later") == [1, 2, 3, 4, 5]


def test_a_ring_of_another_tenant_is_not_opened(bench: Bench) -> None:
    with capture_logs() as lines:
        ring_file.create(bench.paths.ring("foreign"), 2**20, "foreign", owner=b"client-b:frames:embedded")
        bench.capture("later")
        bench.turn(lambda: "later" in rings_of(bench))
    assert "foreign" not in rings_of(bench)
    (said,) = [line for line in lines if line["event"] == "file passed over"]
    assert "client-b" in said["error"]


def test_a_page_that_was_removed_is_found_again(bench: Bench) -> None:
    bench.paths.capture("cam1").unlink()
    bench.pages["cam1"].close()
    bench.pages["cam1"] = StatusPage.claim(bench.paths.capture("cam1"))
    bench.pages["cam2"].close()
    bench.turn(lambda: not bench.agent._streams.pages["cam1"].removed)
    assert not bench.agent.drained(), "a capture process still lives"


def test_where_a_ring_was_taken_away_with_the_whole_directory_it_is_put_back(
    bench: Bench, redis_server: RedisServer
) -> None:
    directory: Path = bench.paths.directory
    bench.write("cam1", 3)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    renew(bench, "cam1")
    bench.write("cam1", 3)
    bench.turn(lambda: all_stored(bench))
    assert listed_numbers(redis_server, "cam1") == list(range(1, 7))
    assert counts(bench, "cam1").stored == 6
