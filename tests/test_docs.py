"""What the documents show is so: commands, site files, code, keys, paths."""

from __future__ import annotations

import html
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pika.exceptions
import pytest

from engine.cli import status_view
from engine.config import SECTIONS, AlertsSection, Camera, CameraDefaults, MetadataSection, parse
from engine.errors import Audience, explain
from engine.monitor.rules import RULES
from engine.servers.amqp.refusals import connection_error
from engine.wire.alert import AlertEvent, AlertState, encode_alert_event
from engine.wire.amqp_url import parse_amqp_url
from engine.wire.journal import JournalEntry
from engine.wire.metadata import (
    FrameEvent,
    FrameEvents,
    Gop,
    GopEvent,
    GopEvents,
    StatusEvent,
    encode_batch,
    encode_event,
)
from tests.faults.cases import GROUPS
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import ROOT, Site, command

DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")),
    *sorted((ROOT / "docs").glob("*.md")),
]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_readme_site_file_and_commands_work(tmp_path: Path) -> None:
    (site_file,) = blocks("toml")
    file = tmp_path / "site.toml"
    file.write_text(site_file)
    parse(file.read_bytes(), {})
    shell = blocks("sh")[0]
    assert re.findall(r"bin/edge-video (\w+) -c site.toml", shell) == ["check", "run", "status", "top"]
    assert command("check", "-c", str(file)).returncode == 0


def test_the_readme_code_reads_a_frame(site: Site) -> None:
    (site_file,) = blocks("toml")
    test_camera = tomllib.loads(site_file)["cameras"][-1]
    site.write(cameras=[test_camera])
    site.start()
    wait_until(lambda: site.total("stored") > 10, 30, "frames are stored")
    (code,) = blocks("python")
    assert '"site.toml"' in code
    names: dict[str, Any] = {}
    exec(code.replace("site.toml", str(site.file)), names)
    assert names["newest"].image().shape == (720, 1280, 3)
    assert names["second"] is None or names["second"].unix_nano < names["newest"].unix_nano
    assert names["sizes"]
    assert names["picture"] is None or names["picture"].image.shape == (720, 1280, 3)
    assert site.stop() == 0


def test_the_readme_reading_commands_work(site: Site, tmp_path: Path) -> None:
    """Each as it stands, in a directory with a site file; what needs a broker says so."""
    (site_file,) = blocks("toml")
    site.write(cameras=[tomllib.loads(site_file)["cameras"][-1]])
    site.start()
    wait_until(lambda: site.total("stored") > 10, 30, "frames are stored")
    (tmp_path / "site.toml").write_text(site.file.read_text())
    ends = {"consume": (2, "no broker"), "recover": (2, "no broker"), "migrate": (3, "no old keys")}
    for line in blocks("sh")[1].splitlines():
        words = line.partition("#")[0].split()
        result = command(*words[1:], directory=tmp_path)
        code, said = ends.get(words[1], (0, ""))
        assert result.returncode == code, (line, result.stderr)
        assert said in result.stderr
    assert (tmp_path / "now.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert (tmp_path / "last-minute.mp4").stat().st_size > 10_000
    assert site.stop() == 0


def test_the_readme_s_picture_is_of_the_status_that_the_command_prints() -> None:
    picture = html.unescape((ROOT / "docs/status.svg").read_text()).replace("\xa0", " ")
    assert "edge-video status -c site.toml" in picture
    for columns in (status_view._CAMERA_COLUMNS, status_view._PROCESS_COLUMNS):
        assert re.search(" +".join(re.escape(column.name) for column in columns), picture), "python -m docs.picture"


def test_the_readme_s_faults_are_those_of_the_report() -> None:
    report = (ROOT / "docs/reliability.md").read_text()
    faults, captured, stored, lost = re.search(
        r"(\d+) faults are tested.*?([\d,]+) frames captured, ([\d,]+) stored; the other ([\d,]+) were",
        README,
        re.DOTALL,
    ).groups()
    assert int(faults) == sum(map(len, GROUPS.values()))
    assert f"{captured} frames captured, {stored} stored; missing: {lost} `lost`." in report


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_paths_and_links_in_documents_exist(document: Path) -> None:
    text = document.read_text()
    listed = command("--help", environment={"COLUMNS": "200", "TERM": "dumb"}).stdout
    for name in set(re.findall(r"edge-video ([a-z]+)\b", text)):
        assert re.search(rf"\b{name}\b", listed), f"edge-video {name}"
    for path in set(re.findall(r"`((?:engine|tests|docs|docker|deploy|profiles|benchmarks)[\w/.]*)`", text)):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / link).exists(), link
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def documented() -> dict[str, dict[str, str]]:
    """Keys and the text of their defaults in docs/configuration.md, by section."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for line in (ROOT / "docs/configuration.md").read_text().splitlines():
        if heading := re.match(r"## \[(\w+)\]", line):
            section = heading[1]
            found[section] = {}
        elif row := re.match(r"\| `(\w+)` \| (.*?) ?\|", line):
            found[section][row[1]] = row[2]
    return found


def test_every_key_is_documented_with_its_default() -> None:
    tables = documented()
    assert set(tables) == set(SECTIONS)
    for section, struct in SECTIONS.items():
        kind = Camera if struct is CameraDefaults else struct
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        assert set(tables[section]) == set(fields), section
        for name, text in tables[section].items():
            default = fields[name].default
            if default is msgspec.NODEFAULT:
                assert text == "", name
            elif default is None:
                assert text in ("none", "none; "), name
            else:
                shown = text.strip("`")
                # A list of the file is a tuple of the site's.
                expected = list(default) if isinstance(default, tuple) else default
                assert tomllib.loads(f"x = {shown}")["x"] == expected, name


def test_every_alert_is_documented_with_its_threshold() -> None:
    text = (ROOT / "docs/alerts.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| .* \| `(\w+)` = (\d+) \| (\d+) s \|$", text, re.MULTILINE)
    defaults = AlertsSection()
    assert [(*row[:3], float(row[3]), float(row[4])) for row in rows] == [
        (rule.name, rule.severity, rule.key, rule.threshold(defaults), rule.for_seconds) for rule in RULES
    ]


EVENTS = (ROOT / "docs" / "events.md").read_text()


def event_examples() -> list[str]:
    """The page's JSON, without the spaces that make it readable."""
    return [
        json.dumps(json.loads(block), ensure_ascii=False, separators=(",", ":"))
        for block in re.findall(r"```json\n(.*?)```", EVENTS, re.DOTALL)
    ]


def test_the_events_of_the_page_are_those_that_the_engine_encodes() -> None:
    cam4 = FrameEvents("meu-cliente", "frames", "cam4", 300).event(
        JournalEntry(1731076200123456789, 1, 245678, 1280, 720, "jpeg", True)
    )
    other = FrameEvents("meu-cliente", "frames", "caixa 1", 300).event(
        JournalEntry(1731076200130000000, 99999, 40960, 640, 480, "jpeg", True)
    )
    status = StatusEvent(
        "cam4", "2024-11-08T14:31:10.000000000Z", 1731076270000000000, "offline", 3,
        "401 from 192.0.2.10: wrong user or password",
    )  # fmt: skip
    key_frame = JournalEntry(1731076200123456789, 1, 81204, 1280, 720, "h264", True)
    last = JournalEntry(1731076202056789012, 30, 11873, 1280, 720, "h264", False)
    gop = Gop(key_frame, last, 30, 612480, 1731076202123456789)
    alert = AlertState(
        "camera_down", "cam4", "critical", "raised", 1731076300123456789, 30.5, 30.0,
        "camera cam4 has been offline for 30 s: 401 from 192.0.2.10: wrong user or password",
    )  # fmt: skip
    assert event_examples() == [
        encode_event(cam4).decode(),
        encode_batch([cam4, other]).decode(),
        encode_event(status).decode(),
        encode_event(GopEvents("meu-cliente", "frames", "cam4", 300).event(gop)).decode(),
        encode_alert_event("shop", alert).decode(),
    ]


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("A frame", FrameEvent),
        ("A camera's state", StatusEvent),
        ("A GOP of stored video", GopEvent),
        ("An alert", AlertEvent),
    ],
)
def test_every_field_of_an_event_is_described(heading: str, kind: type[msgspec.Struct]) -> None:
    section = EVENTS.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)
    types = {"str": "text", "int": "integer", "int | None": "integer", "float": "number"}
    types |= dict.fromkeys(("CameraState", "Severity", "AlertPhase"), "text")
    assert rows == [
        ("event_type", "text"),
        *((name, types[kind.__annotations__[name]]) for name in kind.__annotations__),
    ]


def test_the_names_of_the_events_page_are_the_defaults() -> None:
    metadata = MetadataSection()
    table = re.findall(r"^\| (?:frames|states|GOPs|alerts).*?\| `(.*?)` \|", EVENTS, re.MULTILINE)
    keys = metadata.routing_key, metadata.batch_routing_key, metadata.status_routing_key, metadata.video_routing_key
    assert table == [*keys, metadata.system_routing_key]
    error = pika.exceptions.ChannelClosedByBroker(
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '{metadata.exchange}' in vhost 'meu-cliente': "
        "received 'false' but current is 'true'",
    )
    refused = connection_error(parse_amqp_url("amqp://h/meu-cliente"), error)
    assert explain(refused, Audience.SITE).split("`")[3] in EVENTS


@pytest.mark.parametrize("form", ["event", "batch"])
def test_the_code_of_the_events_page_gets_frames(
    form: str, site: Site, rabbitmq: RabbitMQ, redis_server: RedisServer
) -> None:
    tenant = f"events-page-{form}"
    rabbitmq.add_vhost(tenant)
    site.write(
        cameras=[{"id": "cam1", "url": "test://?kb=10&size=320x240"}],
        redis={"address": redis_server.address},
        amqp_url=rabbitmq.url(tenant),
        metadata={"format": form},
    )
    site.start()
    (code,) = re.findall(r"```python\n(.*?)```", EVENTS, re.DOTALL)
    address = "amqp://user:password@rabbitmq:5672/meu-cliente"
    assert address in code
    client, got = redis_server.client(), []
    names: dict[str, Any] = {}

    def handle(camera: str, key: str) -> None:
        got.append((camera, client.get(key)))
        if len(got) == 20:
            names["channel"].stop_consuming()

    names["handle"] = handle
    exec(code.replace(address, rabbitmq.url(tenant)), names)
    names["connection"].close()
    assert len(got) >= 20
    assert all(camera == "cam1" and data[:2] == b"\xff\xd8" for camera, data in got)
    assert site.stop() == 0
