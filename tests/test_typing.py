"""The library as others type against it: a script outside of the engine, checked with mypy --strict."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import sysconfig
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import engine
from engine import errors

ROOT = Path(engine.__file__).parent
#: Taken by ``from_config`` and by constructors, for the command line; scripts give text.
_INSIDE = {"Config", "RedisAddress"}
#: Scripts are given these and do not make them.
_MADE_BY_STORES = (engine.Frames, engine.AsyncFrames, engine.Pictures, engine.AsyncPictures)

SCRIPT = """
import asyncio
import datetime
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from engine import (
    AsyncFrameStore, AsyncFrames, AsyncPictures, Bucket, CameraStatus, Colour, ConsumerCounts, EngineError, Frame,
    FrameConsumer, FrameEntry, FrameEvent, Frames, FrameStore, Picture, Pictures, RedisUnavailable, StatusEvent,
    StoreStats, TlsFiles, UnknownName, VideoEntry, VideoUnit, When,
)


def read(since: When) -> None:
    with FrameStore("rediss://redis:6379", "client-a", tls_files=TlsFiles("ca.pem")) as store:
        assert_type(store, FrameStore)
        assert_type(store.latest("cam1"), Frame | None)
        assert_type(store.range("cam1", since, "now", step=datetime.timedelta(seconds=1)), Frames[Frame])
        assert_type(store.entries("cam1"), Frames[FrameEntry])
        assert_type([entry.size for entry in store.entries("cam1")], list[int])
        assert_type(store.get_many(["a", b"b"]), list[Frame | None])
        assert_type(store.rate("cam1", bucket="1m"), list[Bucket])
        assert_type(store.cameras(), dict[str, CameraStatus])
        assert_type(store.snapshot(), dict[str, Frame])
        assert_type(store.stats(), StoreStats)
        tail = store.tail(since={"cam1": "0-0"})
        assert_type(tail.poll(), Frame | None)
        assert_type(tail.position, dict[str, str])
        frame = store.latest("cam1")
        if frame is not None:
            assert_type(frame.data, bytes)
            assert_type(frame.timestamp, datetime.datetime)
            assert_type(frame.image(), NDArray[np.uint8])


def look(colour: Colour) -> None:
    with FrameStore("redis:6379") as store:
        assert_type(store.video("cam1", "-1m", from_key=True), Frames[VideoUnit])
        assert_type([unit.data for unit in store.video("cam1")], list[bytes])
        assert_type(store.video_entries("cam1", reverse=True, limit=5), Frames[VideoEntry])
        assert_type(store.tail_video(["cam1"]), Frames[VideoUnit])
        assert_type(store.tail_video_entries(), Frames[VideoEntry])
        assert_type(store.count("cam1", video=True), int)
        assert_type(store.picture("cam1", "-5s", colour=colour), Picture | None)
        with store.pictures("cam1", "-1m", fps=0.5, colour="rgb") as pictures:
            assert_type(pictures, Pictures)
            assert_type(pictures.skipped, int)
            for picture in pictures:
                assert_type(picture.image, NDArray[np.uint8])
                entry: FrameEntry = picture.entry
                assert_type(picture.unix_nano, int)
        tail = store.tail_pictures(since={"cam1": "0-0"})
        assert_type(tail.poll(), Picture | None)
        assert_type(tail.position, dict[str, str])


async def read_async() -> None:
    async with AsyncFrameStore.from_site("site.toml", timeout_seconds=1.0) as store:
        assert_type(store, AsyncFrameStore)
        assert_type(await store.latest("cam1"), Frame | None)
        frames = store.range("cam1")
        assert_type(frames, AsyncFrames[Frame])
        async for frame in frames:
            assert_type(frame, Frame)
        assert_type(await store.picture("cam1"), Picture | None)
        async with store.tail_pictures() as pictures:
            assert_type(pictures, AsyncPictures)
            async for picture in pictures:
                assert_type(picture, Picture)


def on_frame(event: FrameEvent, frame: Frame | None) -> None:
    assert_type(event.timestamp_nano, int)


def on_status(event: StatusEvent) -> None:
    print(event.state)


def listen() -> ConsumerCounts:
    consumer = FrameConsumer("amqp://rabbitmq/client-a", "redis:6379", on_frame, queue="q", on_status=on_status)
    other = FrameConsumer.from_site("site.toml", on_frame, attempts=5)
    assert_type(other, FrameConsumer)
    consumer.run()
    return consumer.counts


try:
    read("-30s")
    asyncio.run(read_async())
except (RedisUnavailable, UnknownName) as error:
    base: EngineError = error
"""

MISTAKES = {
    "FrameStore(1)": "arg-type",
    "FrameStore.from_site('site.toml', timeout_second=1.0)": "call-arg",
    "FrameStore('redis:6379').latest(4)": "arg-type",
    "FrameStore('redis:6379').latest('cam1').data": "union-attr",
    "FrameStore('redis:6379').picture('cam1').image": "union-attr",
    "FrameStore('redis:6379').pictures('cam1', colour='gray')": "arg-type",
    "FrameConsumer('amqp://a', 'redis:6379', print, prefetch='5')": "arg-type",
    "FrameConsumer.from_site('site.toml', lambda event: None)": "arg-type",
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which the engine is installed, not checked out: only there does its py.typed count."""
    place = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True, timeout=120)
    (packages,) = (place / "venv/lib").glob("python*/site-packages")
    (packages / "engine").symlink_to(ROOT)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def mypy(place: Path, script: str) -> subprocess.CompletedProcess[str]:
    (place / "script.py").write_text(script)
    words = ["--strict", "--python-executable", str(place / "venv/bin/python"), "--cache-dir", str(place / "cache")]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *words, "script.py"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.slow
def test_a_script_that_uses_the_whole_library_passes_mypy_strict(outside: Path) -> None:
    done = mypy(outside, SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mistakes_of_a_script_are_found(outside: Path) -> None:
    done = mypy(outside, "from engine import FrameConsumer, FrameStore\n\n" + "\n".join(MISTAKES) + "\n")
    found = {int(line): code for line, code in re.findall(r"script\.py:(\d+): error: .*\[([\w-]+)\]", done.stdout)}
    assert found == dict(enumerate(MISTAKES.values(), 3)), done.stdout


PUBLIC = [getattr(engine, name) for name in engine.__all__ if inspect.isclass(getattr(engine, name))]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda kind: kind.__name__)
def test_what_a_public_class_takes_and_returns_is_exported(public: type) -> None:
    missing = {kind.__name__ for kind in mentioned(public)} - set(engine.__all__) - _INSIDE
    assert not missing


def mentioned(public: type) -> Iterator[type]:
    """The engine's own classes in the signatures and fields of a class, and of its public methods."""
    for hint in hints(public).values():
        yield from own_classes(hint)
    for name, member in inspect.getmembers(public):
        if name.startswith("_") and (name != "__init__" or public in _MADE_BY_STORES):
            continue
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) or inspect.ismethod(function):
            for hint in hints(function).values():
                yield from own_classes(hint)


def hints(thing: Any) -> dict[str, Any]:
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return {}
    # Imported for types only.
    return typing.get_type_hints(thing, localns={"np": np, "NDArray": NDArray})


def own_classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        if hint.__module__.startswith("engine."):
            yield hint
        return
    for part in [typing.get_origin(hint), *typing.get_args(hint)]:
        for inner in part if isinstance(part, list) else [part]:
            if inner is not None and inner is not hint:
                yield from own_classes(inner)


def test_what_documented_methods_raise_is_exported() -> None:
    names = {name for name in vars(errors) if isinstance(getattr(errors, name), type)}
    said: set[str] = set()
    for public in PUBLIC:
        texts = [public.__doc__, *(member.__doc__ for _, member in inspect.getmembers(public))]
        said |= {word for text in texts for word in re.findall(r"\b[A-Z]\w+", text or "") if word in names}
    assert {"QueryError", "ConfigError", "InputError", "WireError"} <= said
    assert said <= set(engine.__all__)
    for name in said:
        # Also what they are made from, for `except`.
        assert {kind.__name__ for kind in getattr(errors, name).__mro__ if kind.__module__ == "engine.errors"} <= set(
            engine.__all__
        )


@pytest.mark.parametrize("kind", [engine.FrameStore, engine.AsyncFrameStore, engine.FrameConsumer])
def test_every_parameter_of_a_constructor_is_told_where_it_is_looked_for(kind: type) -> None:
    told = inspect.getdoc(kind.__init__) or ""
    parameters = [name for name in inspect.signature(kind).parameters if name != "self"]
    assert not [name for name in parameters if f"``{name}``" not in told and f"``{name}(" not in told]
    assert "Raises ConfigError" in told or "Raises InputError" in told


@pytest.mark.parametrize(
    ("options", "kind"), [(engine.StoreOptions, engine.FrameStore), (engine.ConsumerOptions, engine.FrameConsumer)]
)
def test_options_of_from_site_are_the_constructor_s(options: Any, kind: type) -> None:
    parameters = inspect.signature(kind).parameters
    taken = typing.get_type_hints(kind.__init__)
    for name, hint in typing.get_type_hints(options).items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert hint == taken[name]
