"""Targets that read text: configuration, keys, messages, states, journal entries, addresses, times."""

from __future__ import annotations

import contextlib

from engine import config
from engine.client import times
from engine.errors import ConfigError, QueryError, WireError
from engine.shm.site import SitePaths, shared_memory_need
from engine.wire import amqp_url, events, journal, keys, metadata, old_keys, redis_address, rfc3339, state, urls
from engine.wire import test_mark as stamp

#: A moment that offsets count from.
NOW = 1_731_024_000_123_456_789
#: What no output may show where it went in as a password.
PASSWORD = "s3cr3t-Pa55"


def site_file(data: bytes) -> None:
    """A site file is a configuration whose every property can be asked for, or one ConfigError."""
    try:
        site = config.parse(data, {})
    except ConfigError as error:
        str(error).encode()
        return
    paths = SitePaths.of(site)
    assert site.cameras
    assert shared_memory_need(site) > 0
    assert site.vhost
    repr(site)
    for path in (site.run_directory, paths.directory):
        assert path.is_absolute()
        assert "\0" not in str(path)
    for address in (site.redis_address, site.publisher_redis_address):
        str(address).encode()
    for camera in site.cameras:
        assert camera.kind
        assert camera.frame_bytes <= site.ring.capacity
        keys.frame_key_prefix(site.vhost, site.prefix, camera.id)
        assert paths.ring(camera.id).parent == paths.directory
        assert len(paths.capture(camera.id).name.encode()) <= 255
        urls.mask(camera.url)


def key(data: bytes) -> None:
    """A key that parses is the key that its parts build; parts that can be built parse."""
    with contextlib.suppress(WireError):
        assert keys.build_frame_key(keys.parse_frame_key(data)).encode() == data
    with contextlib.suppress(WireError):
        assert keys.build_video_key(keys.parse_video_key(data)).encode() == data
    with contextlib.suppress(WireError):
        assert keys.cameras_key(*keys.parse_cameras_key(data)).encode() == data
    name = data.decode("utf-8", "surrogatepass") if _decodes(data) else data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(WireError):
        part = keys.encode_part(name)
        assert keys.decode_part(part) == name
        built = keys.FrameKey(name, name, name, NOW, 7)
        assert keys.parse_frame_key(keys.build_frame_key(built)) == built
        assert keys.parse_video_key(keys.build_video_key(built)) == built


def old_key(data: bytes) -> None:
    """A key of an older edition names a frame that a key of ours can name, or is refused."""
    with contextlib.suppress(WireError):
        _check_key(old_keys.parse_old_key(data, "frames"))
    with contextlib.suppress(WireError):
        _check_key(events.key_of(data.decode("utf-8", "surrogateescape")))


def message(data: bytes) -> None:
    """A message's events can be sent on and read again, and their frames asked for."""
    try:
        found = events.parse_message(data)
    except WireError:
        pass
    else:
        for event in found:
            if isinstance(event, events.OtherEvent):
                continue
            assert events.parse_message(metadata.encode_event(event)) == [event]
            if isinstance(event, metadata.FrameEvent):
                event.redis_key.encode()
                assert 1 <= int(event.sequence) <= keys.SEQUENCE_MAX
                assert len(str(event.timestamp_nano)) == keys.UNIX_NANO_DIGITS
    with contextlib.suppress(WireError):
        own = metadata.decode_event(data)
        assert metadata.decode_event(metadata.encode_event(own)) == own
    with contextlib.suppress(WireError):
        batch = metadata.decode_batch(data)
        assert metadata.decode_batch(metadata.encode_batch(batch)) == batch


def camera_state(data: bytes) -> None:
    """A state that is read can be written and read again."""
    with contextlib.suppress(WireError):
        found = state.decode_status(data)
        assert state.decode_status(state.encode_status(found)) == found


def journal_entry(data: bytes) -> None:
    """An id, and fields, one a line: an entry that is read is written as one that reads the same."""
    identifier, *fields = data.split(b"\n")
    with contextlib.suppress(WireError):
        entry = journal.parse_entry(identifier, fields)
        again = journal.entry_id(entry.unix_nano, entry.sequence).encode()
        assert journal.parse_entry(again, journal.entry_fields(entry)) == entry
        metadata.encode_event(metadata.FrameEvents("v", "frames", "cam1", 60).event(entry))


def address(data: bytes) -> None:
    """Addresses are read or refused, and never show what stands where credentials stand."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (urls.source_kind, urls.file_path, urls.parse_size, urls.parse_test_url):
        with contextlib.suppress(ConfigError):
            read(text)
    urls.forgotten_scheme(text)
    try:
        broker = amqp_url.parse_amqp_url(text)
    except ConfigError as error:
        str(error).encode()
    else:
        assert broker.host
        assert 0 < broker.port < 65_536
        keys.journal_key(broker.key_vhost, "frames", "c")
        assert broker.password not in repr(broker._replace(host="", vhost="")) or len(broker.password) < 8
    with contextlib.suppress(ConfigError):
        server = redis_address.parse_redis_address(text)
        assert server.path or (server.host and server.port)
        if server.password and len(server.password) > 8:
            assert server.password not in repr(server._replace(host="", path=""))
    if any(char.isspace() for char in text):
        urls.mask(text)
        return
    user = "".join(char for char in text if char not in "/?#@:")
    for secret in (f"://{user}:{PASSWORD}{text}@host/path", f"://{user}:{text.partition('@')[0]}{PASSWORD}@host"):
        assert PASSWORD not in urls.mask(f"camera rtsp{secret} is away")


def moment(data: bytes) -> None:
    """Times and durations are numbers within bounds, or refused."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(QueryError):
        assert 0 <= times.to_nano(text, NOW) <= times.NANO_MAX
    with contextlib.suppress(QueryError):
        assert times.to_span(text) >= 1
    with contextlib.suppress(QueryError):
        first, last = times.window(text, None, NOW)
        assert first <= last
    with contextlib.suppress(WireError):
        nano = rfc3339.parse_rfc3339(text)
        if 0 <= nano < 10**19:
            assert rfc3339.parse_rfc3339(rfc3339.rfc3339(nano)) == nano


def picture_stamp(data: bytes) -> None:
    """A picture's stamp is read as it was written, or is none."""
    with contextlib.suppress(WireError):
        found = stamp.find_mark(data)
        assert stamp.build_mark(found) in data


def _check_key(found: keys.FrameKey) -> None:
    with contextlib.suppress(WireError):
        assert keys.parse_frame_key(keys.build_frame_key(found)) == found
    keys.frame_key_suffix(found.unix_nano, found.sequence)


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
