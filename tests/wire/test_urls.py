from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import Audience, ConfigError, explain
from engine.wire import urls
from engine.wire.redis_address import RedisAddress, parse_cluster, parse_redis_address
from engine.wire.urls import Pattern
from tests.examples import examples


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("rtsp://u:p@10.0.0.5:554/stream1", "rtsp"),
        ("RTSPS://10.0.0.5/", "rtsp"),
        ("http://cam/mjpeg", "http"),
        ("https://cam/mjpeg", "http"),
        ("file:///var/video/a.mjpg", "file"),
        ("/var/video/a.mp4", "file"),
        ("a.mp4", "file"),
        ("/dev/video0", "device"),
        ("/dev/video12", "device"),
        ("/dev/videos/a.mp4", "file"),
        ("test://", "test"),
        ("test://?fps=5", "test"),
    ],
)
def test_a_url_s_kind_is_seen(url, kind):
    assert urls.source_kind(url) == kind


@pytest.mark.parametrize("scheme", ["ftp", "srt", "", "rtmp", "rtsp2"])
def test_a_scheme_that_no_source_reads_is_refused_with_those_that_are(scheme):
    with pytest.raises(ConfigError, match=f"unsupported URL scheme '{scheme}'; use rtsp://.*/dev/videoN"):
        urls.source_kind(f"{scheme}://host/x")


def test_a_file_s_path_is_taken_from_either_form():
    assert urls.file_path("/a b/c%20d.mp4") == "/a b/c%20d.mp4"
    assert urls.file_path("file:///a%20b/c.mp4") == "/a b/c.mp4"


@pytest.mark.parametrize(
    ("url", "path"),
    [("FILE:///a.mp4", "/a.mp4"), ("file://localhost/a.mp4", "/a.mp4"), ("file:///100%25%3F.mp4", "/100%?.mp4")],
)
def test_a_file_s_url_is_read(url, path):
    assert urls.file_path(url) == path


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("file://192.168.1.5/a.mp4", "three slashes"),
        ("file://u:hunter2@h/a", "three slashes"),
        ("file:///a?b.mp4", "%3F"),
        ("file:///a#b.mp4", "%23"),
        ("file://", "names no file"),
        ("file:///a%00b", "names no file"),
        ("file://[", r"without its \]"),
    ],
)
def test_a_file_s_url_with_another_part_is_refused(url, part):
    with pytest.raises(ConfigError, match=part) as caught:
        urls.file_path(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("192.168.1.5/stream", "rtsp://192.168.1.5/stream"),
        ("192.168.1.5", "rtsp://192.168.1.5"),
        ("192.168.1.5:8554/stream1", "rtsp://192.168.1.5:8554/stream1"),
        ("//192.168.1.5/stream", "rtsp://192.168.1.5/stream"),
        ("[fe80::1]:554/live", "rtsp://[fe80::1]:554/live"),
        ("camera.local:554/live", "rtsp://camera.local:554/live"),
        ("localhost:8554/cam1", "rtsp://localhost:8554/cam1"),
        ("admin:secret@camera/live", "rtsp://admin:secret@camera/live"),
        ("rtsp:/192.168.1.5/stream", "rtsp://192.168.1.5/stream"),
        ("HTTP:camera/mjpeg", "http://camera/mjpeg"),
        ("file:/a/b.mp4", "file:///a/b.mp4"),
    ],
)
def test_an_address_without_its_scheme_is_seen(url, meant):
    assert urls.forgotten_scheme(url) == meant


@pytest.mark.parametrize(
    "url",
    ["a.mp4", "clips/a.mp4", "./192.168.1.5/a.mp4", "/192.168.1.5/stream", "clip@2x.mp4", "v1.2.3/a.mp4", "1.2.3.4.mp4",
     "recordings.old/cam1", "..", "a:b.mp4", "10:30 gate.mp4", "[1] gate.mp4", "C:/a.mp4", ""],
)  # fmt: skip
def test_a_file_s_path_is_no_address(url):
    assert urls.forgotten_scheme(url) == ""


def test_a_pattern_has_defaults():
    assert urls.parse_test_url("test://") == Pattern(1280, 720, 30.0, 60, 0)


def test_a_pattern_takes_all_its_parameters():
    url = "test://?size=640x480&fps=12.5&kb=48&frames=100"
    assert urls.parse_test_url(url) == Pattern(640, 480, 12.5, 48, 100)
    assert urls.parse_test_url(url.replace("//?", "///?")) == Pattern(640, 480, 12.5, 48, 100)


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("size=640", "size '640' is not WIDTHxHEIGHT"),
        ("size=0x480", "size '0x480'"),
        ("size=640x480x3", "size '640x480x3'"),
        ("size=70000x16", "size"),
        ("fps=fast", "fps='fast' is not a number"),
        ("fps=0", "fps=0 is not in"),
        ("fps=nan", "fps=nan is not in"),
        ("fps=1e9", "fps=1e.09 is not in"),
        ("kb=0", "kb=0 is not in"),
        ("kb=1.5", "kb='1.5' is not a number"),
        ("kb=", "kb='' is not a number"),
        ("frames=-1", "frames=-1 is not in"),
        (f"kb={'9' * 400}", "kb=.a huge number. is not in"),
        (f"frames=-{'9' * 400}", "frames=.a huge number. is not in"),
        ("colour=red", "no parameter 'colour'; it takes size, fps, kb, frames"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(query, part):
    with pytest.raises(ConfigError, match=part):
        urls.parse_test_url(f"test://?{query}")


def test_a_pattern_with_a_host_or_path_is_refused():
    for url in ("test://cam1", "test:///cam1"):
        with pytest.raises(ConfigError, match="parameters only"):
            urls.parse_test_url(url)


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("redis:6379", RedisAddress("redis", 6379, "", False, 0, None, None)),
        ("redis", RedisAddress("redis", 6379, "", False, 0, None, None)),
        ("10.0.0.1:7000", RedisAddress("10.0.0.1", 7000, "", False, 0, None, None)),
        ("[::1]:7000", RedisAddress("::1", 7000, "", False, 0, None, None)),
        ("redis://h", RedisAddress("h", 6379, "", False, 0, None, None)),
        ("redis://h/3", RedisAddress("h", 6379, "", False, 3, None, None)),
        ("redis://h?db=4", RedisAddress("h", 6379, "", False, 4, None, None)),
        ("rediss://u:p%40ss@h:1/2", RedisAddress("h", 1, "", True, 2, "u", "p@ss")),
        ("redis://:secret@h", RedisAddress("h", 6379, "", False, 0, None, "secret")),
        ("unix:///run/redis%20a.sock?db=5", RedisAddress("", 0, "/run/redis a.sock", False, 5, None, None)),
        ("unix://u:p@/run/redis.sock", RedisAddress("", 0, "/run/redis.sock", False, 0, "u", "p")),
    ],
)
def test_an_address_of_redis_is_read(address, parsed):
    assert tuple(parse_redis_address(address)) == tuple(parsed)


@pytest.mark.parametrize(
    ("address", "part"),
    [
        (
            "http://h",
            "redis.address: is no address of Redis; use host:port, redis://, rediss://, unix:// or 'embedded'",
        ),
        ("unix://", "no socket path"),
        ("redis://", "no host"),
        (":6379", "no host"),
        ("h:port", "port and database are numbers"),
        ("h:99999", "port and database are numbers"),
        ("redis://h/x", "port and database are numbers"),
        ("redis://h/-1", "database"),
        ("h:0", "port"),
        ("redis://[::1", "redis.address"),
    ],
)
def test_an_address_that_cannot_be_is_refused(address, part):
    with pytest.raises(ConfigError) as caught:
        parse_redis_address(address)
    assert part in explain(caught.value, Audience.SITE)
    assert "redis.address" not in str(caught.value)


def test_an_address_shows_no_password():
    address = parse_redis_address("rediss://user:secret@h:1")
    for text in (str(address), repr(address), f"{address}"):
        assert "secret" not in text
        assert "rediss://h:1" in text
    assert str(parse_redis_address("unix://u:secret@/run/x.sock")) == "unix:///run/x.sock"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://admin:hunter2@10.0.0.5:554/s", "rtsp://***@10.0.0.5:554/s"),
        ("two: amqp://u:hunter2@a/v redis://:hunter2@b", "two: amqp://***@a/v redis://***@b"),
        ("http://cam/mjpeg?user=admin&pwd=hunter2&x=1", "http://cam/mjpeg?user=***&pwd=***&x=1"),
        ("http://cam/?TOKEN=hunter2", "http://cam/?TOKEN=***"),
        ("rtsp://10.0.0.5/a@b", "rtsp://10.0.0.5/a@b"),
        ("no url at all", "no url at all"),
    ],
)
def test_credentials_are_masked_and_the_rest_stays(text, masked):
    assert urls.mask(text) == masked


@pytest.mark.parametrize("password", ["hun/ter2", "hun?ter2", "hun#ter2", "hun@ter2"])
def test_a_password_with_characters_that_should_have_been_encoded_is_masked_all_the_same(password):
    """People write such URLs, and the error that comes of it is just where one is printed."""
    assert "ter2" not in urls.mask(f"camera rtsp://admin:{password}@10.0.0.5/stream refused")


@pytest.mark.parametrize("address", ["u:hunter2@h:port", "redis://:hunter2@h:port", "http://u:hunter2@h", "u:hunter2@"])
def test_an_address_that_is_refused_is_shown_without_its_password(address):
    with pytest.raises(ConfigError) as caught:
        parse_redis_address(address)
    assert "hunter2" not in str(caught.value)


plain = st.text(
    alphabet=st.characters(codec="ascii", exclude_characters="/?#@ \t\n\r\f\v\x1c\x1d\x1e\x1f&"), min_size=4
)


@settings(max_examples=examples(200), deadline=None)
@given(plain.map(lambda text: "S" + text + "S"))
def test_no_password_survives_masking(password):
    assert password not in urls.mask(f"rtsp://user:{password}@host/stream")


hostile_urls = st.builds(
    "".join,
    st.lists(
        st.sampled_from(
            ("redis", "amqp", "test", "unix", "file", "://", "[", "]", "::1", "@", ":", "/", "?", "&", "=", "#", "%",
             "%zz", "size", "fps", "kb", "1x1", "db", "-1", "99999", "nan", "\u2100", "\x00", " ", "\n", "host", "²"),
        ),
        max_size=10,
    ),
) | st.text(max_size=30)  # fmt: skip


@settings(max_examples=examples(500), deadline=None)
@given(hostile_urls)
@example("redis://[::1")
@example("test://[")
@example("redis://a\u2100b")
def test_of_any_text_only_a_config_error_comes_out(url):
    for read in (
        urls.source_kind,
        urls.parse_size,
        urls.parse_test_url,
        parse_redis_address,
        urls.file_path,
    ):
        with contextlib.suppress(ConfigError):
            read(url)
    urls.mask(url)


@pytest.mark.parametrize("text", ["cluster://u:geheim@a:1,u:geheim@b:2", "clusters://u@a,u@b", "cluster://a:1,x@y:2@b"])
def test_a_login_at_each_node_of_a_cluster_is_refused_and_not_shown(text: str):
    with pytest.raises(ConfigError, match="stands once") as raised:
        parse_redis_address(text)
    assert "geheim" not in str(raised.value)


def test_the_nodes_of_a_cluster_are_servers_and_may_stand_apart():
    assert parse_redis_address("cluster://a:1, b:2").cluster == (("a", 1), ("b", 2))
    with pytest.raises(ConfigError, match="each is host:port"):
        parse_cluster(["a:1", "cluster://b:2,c:3"])
