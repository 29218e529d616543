"""Stored video is sent to an AMQP exchange beside frames, if wanted, with records of its own."""

from __future__ import annotations

import os
import signal
import time

import pytest

from engine.errors import EXIT_NOTHING
from engine.jobs.recover import EXCHANGE, ROUTING_KEY
from engine.wire import keys
from engine.wire.rfc3339 import rfc3339
from tests.client.stocked import Stored, stock
from tests.jobs.test_recover import PREFIX, QUEUE, Archive
from tests.servers.cluster_client import AnyServer
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.wait import wait_until
from tests.stored_video import SECOND, VideoUnit, store_video, video_units

VIDEO_KEY = f"{ROUTING_KEY}.video"


@pytest.fixture
def archive(rabbitmq: RabbitMQ, redis_server: AnyServer, vhost: str) -> Archive:
    made = Archive(rabbitmq, redis_server, vhost)
    made.bind()
    made.channel.queue_bind(QUEUE, EXCHANGE, VIDEO_KEY)
    return made


def fill(archive: Archive, gops: int = 4) -> tuple[list[str], list[VideoUnit]]:
    """A JPEG a second beside video of the same camera; the keys of the JPEGs, and the units."""
    begin = time.time_ns() - 30 * SECOND
    units = video_units("cam1", "K...." * gops, first=begin, fps=10)
    store_video(archive.client, archive.vhost, units)
    frames = [Stored("cam1", begin + number * SECOND // 2, number + 1, b"jpeg %d" % number) for number in range(gops)]
    stock(archive.client, frames, vhost=archive.vhost)
    prefix = keys.frame_key_prefix(archive.vhost, PREFIX, "cam1")
    return [prefix + keys.frame_key_suffix(one.unix_nano, one.sequence) for one in frames], units


def test_video_is_left_out_unless_it_is_wanted(archive: Archive):
    frames, units = fill(archive)
    assert archive.report()["confirmed"] == len(frames)
    assert [message.key for message in archive.take()] == frames
    report = archive.report("--video")
    assert (report["confirmed"], report["units"]) == (len(units), len(units))
    assert archive.recover("--video").returncode == EXIT_NOTHING


def test_both_kinds_are_sent_oldest_first_with_all_that_is_known_of_them(archive: Archive):
    frames, units = fill(archive)
    report = archive.report("--video")
    assert (report["confirmed"], report["units"], report["gone"]) == (len(frames) + len(units), len(units), 0)
    messages = archive.take()
    stamps = [message.properties.headers["timestamp_nano"] for message in messages]
    assert stamps == sorted(stamps)
    assert [message.key for message in messages if message.routing_key == ROUTING_KEY] == frames
    video = [message for message in messages if message.routing_key == VIDEO_KEY]
    assert [(message.key, message.body) for message in video] == [
        (unit.key(archive.vhost), unit.data) for unit in units
    ]
    first = units[0].entry
    assert video[0].properties.headers == {
        "camera_id": "cam1",
        "timestamp": rfc3339(first.unix_nano),
        "timestamp_nano": first.unix_nano,
        "sequence": "00001",
        "redis_key": units[0].key(archive.vhost),
        "vhost": archive.vhost,
        "width": 640,
        "height": 480,
        "encoding": "h264",
        "size_bytes": first.size,
        "keyframe": True,
        "offset_us": 40_000,
        "camera_time_nano": first.unix_nano - 80_000_000,
    }
    assert video[1].properties.headers["keyframe"] is False
    jpeg = next(message for message in messages if message.routing_key == ROUTING_KEY)
    assert not {"keyframe", "camera_time_nano"} & set(jpeg.properties.headers)


def test_a_killed_job_continues_and_leaves_no_unit_out(archive: Archive):
    frames, units = fill(archive, 40)
    record = keys.video_recovery_key(archive.vhost, PREFIX)
    with archive.recovering("--video", "--fps", "100") as process:
        wait_until(lambda: archive.client.hlen(record), 30, "some are written down")
        os.kill(process.pid, signal.SIGKILL)
    report = archive.report("--video")
    assert 0 < report["units"] <= len(units)
    found = [message.key for message in archive.take()]
    assert set(found) == {*frames, *(unit.key(archive.vhost) for unit in units)}
    assert len(found) < 2 * (len(frames) + len(units))


def test_confirmed_units_are_removed_where_that_is_wanted(archive: Archive):
    frames, units = fill(archive)
    archive.client.delete(units[7].key(archive.vhost))
    report = archive.report("--video", "--delete")
    assert report["deleted"] == report["confirmed"] == len(frames) + len(units) - 1
    assert not archive.client.keys(f"engine:{archive.vhost}:video:*")
    assert not archive.client.keys(f"{archive.vhost}:*")
    journal = keys.video_journal_key(archive.vhost, PREFIX, "cam1")
    assert archive.client.xlen(journal) == 1, "what was gone is left to the writer"


@pytest.mark.one_server
def test_without_a_queue_for_video_nothing_of_it_is_removed(archive: Archive):
    _, units = fill(archive)
    archive.channel.queue_unbind(QUEUE, EXCHANGE, VIDEO_KEY)
    done = archive.recover("--video", "--delete")
    assert done.returncode != 0
    assert f"'{VIDEO_KEY}'" in done.stderr
    assert archive.client.exists(*(unit.key(archive.vhost) for unit in units)) == len(units)
