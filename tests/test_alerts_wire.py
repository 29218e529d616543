"""The JSON of alerts: golden bytes, the file beside the rings, and what a stranger could leave there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config, from_document
from engine.errors import ConfigError, WireError
from engine.runtime.logs import secrets_of
from engine.shm import alerts_file, segment
from engine.shm.site import SitePaths
from engine.wire.alert import (
    FILE_BYTES_MAX,
    STATES_MAX,
    Alert,
    AlertState,
    decode_alert_event,
    decode_states,
    encode_alert_event,
    encode_states,
    raised,
)
from engine.wire.events import OtherEvent, parse_message

STATE = AlertState(
    "camera_down", "cam4", "critical", "raised", 1731076270123456789, 31.5, 30.0,
    "camera cam4 has been offline for 32 s: timed out", "look at the camera's power",
)  # fmt: skip
GOLDEN_STATE = (
    b'[{"name":"camera_down","subject":"cam4","severity":"critical","state":"raised",'
    b'"since_nano":1731076270123456789,"value":31.5,"threshold":30.0,'
    b'"text":"camera cam4 has been offline for 32 s: timed out","advice":"look at the camera\'s power"}]'
)
GOLDEN_EVENT = (
    b'{"event_type":"alert","site":"shop","name":"camera_down","subject":"cam4","severity":"critical","state":"raised",'
    b'"timestamp":"2024-11-08T14:31:10.123456789Z","timestamp_nano":1731076270123456789,"value":31.5,"threshold":30.0,'
    b'"text":"camera cam4 has been offline for 32 s: timed out"}'
)


def site(directory: Path, **alerts: object) -> Config:
    return from_document(
        {
            "site": {"run_directory": str(directory / "run")},
            "ring": {"directory": str(directory)},
            "alerts": alerts,
            "cameras": [{"id": "cam1", "url": "test://"}],
        },
        {},
    )


@pytest.fixture
def paths(tmp_path: Path) -> SitePaths:
    found = SitePaths.of(site(tmp_path))
    segment.private_directory(found.directory)
    return found


def test_golden_bytes() -> None:
    assert encode_states([STATE]) == GOLDEN_STATE
    assert decode_states(GOLDEN_STATE) == [STATE]
    assert encode_alert_event("shop", STATE) == GOLDEN_EVENT
    assert decode_alert_event(GOLDEN_EVENT).timestamp_nano == STATE.since_nano
    assert decode_alert_event(GOLDEN_EVENT).text == STATE.text


def test_consumers_of_frames_see_an_event_of_another_type() -> None:
    assert parse_message(GOLDEN_EVENT) == [OtherEvent("alert")]


def test_raised_alerts_are_listed_critical_first_then_by_age() -> None:
    def state(name: str, severity: str, phase: str, since: int) -> AlertState:
        return AlertState(name, "s", severity, phase, since, 1.0, 1.0, "", "")  # type: ignore[arg-type]

    found = raised(
        [
            state("a", "warning", "raised", 1),
            state("b", "critical", "raised", 3),
            state("c", "critical", "cleared", 2),
            state("d", "critical", "raised", 2),
        ]
    )
    assert [alert.name for alert in found] == ["d", "b", "a"]
    assert isinstance(found[0], Alert)


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_bytes_of_a_stranger_are_states_or_an_error(text: bytes) -> None:
    with contextlib.suppress(WireError):
        decode_states(text)
    with contextlib.suppress(WireError):
        decode_alert_event(text)


@pytest.mark.parametrize(
    "text",
    [
        GOLDEN_STATE.replace(b"31.5", b"1e999"),
        GOLDEN_STATE.replace(b"1731076270123456789", b"-1"),
        GOLDEN_STATE.replace(b'"raised"', b'"burning"'),
        GOLDEN_STATE.replace(b"timed out", b"x" * 401),
        b"[" * 100_000,
        b"[" + b",".join([GOLDEN_STATE[1:-1]] * (STATES_MAX + 1)) + b"]",
    ],
    ids=["infinite", "before 1970", "unknown state", "long text", "deep", "many"],
)
def test_what_no_monitor_writes_is_refused(text: bytes) -> None:
    with pytest.raises(WireError, match=r"^alerts: "):
        decode_states(text)


def test_the_longest_file_fits_its_bound() -> None:
    longest = AlertState(
        "\U0001f525" * 300, "\U0001f525" * 300, "critical", "raised", 2**63 - 1, -1.7976931348623157e308,
        -1.7976931348623157e308, "\U0001f525" * 400, "\U0001f525" * 400,
    )  # fmt: skip
    assert len(encode_states([longest])) * STATES_MAX <= FILE_BYTES_MAX


def test_the_file_is_replaced_at_once_and_private(paths: SitePaths) -> None:
    assert alerts_file.read(paths) == []
    reader = alerts_file.AlertsReader(paths)
    assert reader.states() == []
    alerts_file.write(paths, [STATE])
    assert paths.alerts.stat().st_mode & 0o777 == 0o600
    assert alerts_file.read(paths) == reader.states() == [STATE]
    first = paths.alerts.open("rb")
    alerts_file.write(paths, [])
    assert first.read() == GOLDEN_STATE, "who reads the former file reads it whole"
    first.close()
    assert reader.states() == []
    assert [path.name for path in paths.directory.iterdir()] == ["alerts.json"]


def test_what_is_no_file_of_the_monitor_s_is_no_alert(paths: SitePaths, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(GOLDEN_STATE)
    paths.alerts.symlink_to(tmp_path / "other")
    assert alerts_file.read(paths) == []
    paths.alerts.unlink()
    os.mkfifo(paths.alerts)
    assert alerts_file.read(paths) == [], "a FIFO without a writer does not block"
    paths.alerts.unlink()
    with paths.alerts.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    assert alerts_file.read(paths) == []
    alerts_file.write(paths, [STATE])
    assert alerts_file.read(paths) == [STATE]


@pytest.mark.parametrize(
    ("alerts", "text"),
    [
        ({"webhook": "ftp://host/x"}, "alerts.webhook must be https://host/path"),
        ({"webhook": "https:///x"}, "alerts.webhook must be https://host/path"),
        ({"webhook": "https://host:99999/x"}, "alerts.webhook is no URL"),
        ({"webhook": "https://me:secret-word@host/x"}, "alerts.webhook holds a user"),
        ({"webhook": "https://host/a b"}, "alerts.webhook holds a blank"),
        ({"webhook_token": "secret-word"}, "alerts.webhook_token needs alerts.webhook"),
        ({"webhook": "http://example.org/", "webhook_token": "secret-word"}, "in plain text"),
        ({"webhook": "https://host/", "webhook_token": "secret word"}, "that no header can carry"),
        ({"redis_memory_percent": 101}, "alerts.redis_memory_percent must be a number of at most 100"),
        ({"camera_down_seconds": -1}, "alerts.camera_down_seconds must be a number of at least 0"),
        ({"camera_downseconds": 1}, "did you mean 'camera_down_seconds'"),
        ({"window_seconds": 1}, "alerts.window_seconds must be a number of at least 4"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(f"{key}={text}" for key, text in value.items()),
)
def test_a_section_that_cannot_be_is_refused_without_its_secrets(
    tmp_path: Path, alerts: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError) as error:
        site(tmp_path, **alerts)
    assert text in str(error.value)
    assert "word" not in str(error.value)


def test_webhook_and_token_are_secret(tmp_path: Path) -> None:
    config = site(tmp_path, webhook="https://hooks.example/T0/B0/abcdefgh", webhook_token="token-of-the-site")
    assert {"https://hooks.example/T0/B0/abcdefgh", "/T0/B0/abcdefgh", "token-of-the-site"} <= secrets_of(config)
    assert "abcdefgh" not in repr(config)
    assert "token-of" not in repr(config)
    address = config.alerts.webhook_address
    assert address is not None
    assert address.shown == "https://hooks.example:443"
