"""What is shipped around the metrics: the page, Prometheus's rules, Grafana's dashboard name only what the code has."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from engine.shm.status_page import MonitorCount, PublisherCount, WriterCount
from engine.web.metrics import FAMILIES
from engine.web.metrics_page import filled
from engine.web.metrics_site import COUNTS
from tests.system.site import ROOT

EVERY = [family for families in FAMILIES.values() for family in families]
DOCKER = ROOT / "docker"
RULES = yaml.safe_load((DOCKER / "prometheus-rules.yml").read_text())
DASHBOARD = json.loads((DOCKER / "grafana-dashboard.json").read_text())

#: The names of the Go edition.
GO_NAMES = {
    "edge_video_frames_processed_total": ("camera_id",),
    "edge_video_frames_dropped_total": ("camera_id", "reason"),
    "edge_video_capture_latency_seconds": ("camera_id",),
    "edge_video_publish_latency_seconds": (),
    "edge_video_camera_connected": ("camera_id",),
    "edge_video_frame_size_bytes": ("camera_id",),
    "edge_video_last_successful_capture_timestamp": ("camera_id",),
    "edge_video_camera_reconnect_attempts_total": ("camera_id",),
    "edge_video_active_cameras_total": (),
    "edge_video_storage_operations_total": ("operation", "status"),
    "edge_video_buffer_size": ("camera_id",),
}
#: What Prometheus itself adds.
PROMETHEUS_LABELS = {"instance", "job"}
FUNCTIONS = {"rate", "increase", "abs", "histogram_quantile", "sum", "max"}
KEYWORDS = {"by", "on", "and", "or", "unless", "without", "ignoring"}


def samples() -> dict[str, set[str]]:
    """The labels of each sample that Prometheus stores, by its name."""
    found = {"up": PROMETHEUS_LABELS}
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
    for family in EVERY:
        for suffix in suffixes.get(family.kind, ("",)):
            bounds = ["le"] if suffix == "_bucket" else []
            found[family.name + suffix] = {*family.labels, *PROMETHEUS_LABELS, *bounds}
    return found


SAMPLES = samples()


def check_promql(text: str) -> set[str]:
    """The metrics that an expression names. Fails if it is no PromQL by its brackets, names and labels."""
    plain = re.sub(r'"[^"]*"', '""', text)
    open_brackets = []
    for character in plain:
        if character in "([{":
            open_brackets.append(character)
        elif character in ")]}":
            assert open_brackets, f"a bracket too many: {text}"
            assert open_brackets.pop() + character in ("()", "[]", "{}"), text
    assert not open_brackets, f"not closed: {text}"
    named: set[str] = set()
    for name, selector in re.findall(r"([a-z_]+)\{([^}]*)\}", plain):
        for matcher in filter(None, selector.split(",")):
            label, operator = re.fullmatch(r'(\w+)(=|!=|=~|!~)""', matcher).groups()  # type: ignore[union-attr]
            assert label in SAMPLES[name], f"{name} has no label {label}{operator}"
    labels: set[str] = set()
    for listed in re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", plain):
        labels |= {label.strip() for label in listed.split(",")}
    rest = re.sub(r"\{[^}]*\}|\b(by|on|without|ignoring) \([^)]*\)|\[[^\]]*\]", " ", plain)
    for span in re.findall(r"\[([^\]]*)\]", plain):
        assert re.fullmatch(r"\d+[smhd]|\$__rate_interval", span), span
    for word in re.findall(r"[A-Za-z_]\w*", rest):
        if word not in FUNCTIONS | KEYWORDS:
            assert word in SAMPLES, f"no metric {word}: {text}"
            named.add(word)
    assert named, text
    for label in labels:
        assert any(label in SAMPLES[name] for name in named), f"no metric of {text} has label {label}"
    return named


def rules() -> Iterator[Any]:
    for group in RULES["groups"]:
        yield from (pytest.param(rule, id=rule["alert"]) for rule in group["rules"])


def queries() -> Iterator[Any]:
    for panel in DASHBOARD["panels"]:
        yield from (
            pytest.param(panel["title"], target, id=f"{panel['title']}-{target['refId']}")
            for target in panel.get("targets", [])
        )


def test_families_differ_and_have_sound_names():
    names = [family.name for family in EVERY]
    assert len(set(names)) == len(names)
    assert len(SAMPLES) == 1 + sum({"histogram": 3, "summary": 2}.get(family.kind, 1) for family in EVERY)
    for family in EVERY:
        assert re.fullmatch(r"edge_video_[a-z_]+", family.name)
        assert family.name.endswith("_info") == (family.kind == "info")
        assert family.help.endswith("."), family.name
        assert "|" not in family.help, "it stands in a table"
        if family.kind == "counter":
            assert family.name.endswith("_total")
        elif family.name not in GO_NAMES:
            assert not family.name.endswith("_total"), family.name


def test_the_names_of_the_go_edition_are_there_with_their_labels():
    found = {family.name: family.labels for family in EVERY}
    assert {name: found[name] for name in GO_NAMES} == GO_NAMES
    page = (ROOT / "docs/metrics.md").read_text()
    said = page.partition("names of the Go edition")[2].partition("\n* ")[0]
    assert set(re.findall(r"`(edge_video_\w+)`", said)) == set(GO_NAMES)


def test_every_count_of_the_status_pages_that_is_for_others_is_a_metric():
    shown = [count for _, count, _ in COUNTS]
    for kind in (PublisherCount, WriterCount, MonitorCount):
        for count in kind:
            assert (count in [one for one in shown if type(one) is kind]) == (count.kind != "internal"), count.name


def test_the_page_lists_the_metrics_of_the_code():
    page = (ROOT / "docs/metrics.md").read_text()
    assert page == filled(page), "run python -m engine.web.metrics_page"
    with pytest.raises(ValueError, match="Begin of the tables"):
        filled("# Metrics\n")


@pytest.mark.parametrize("rule", [*rules()])
def test_a_rule_asks_for_metrics_that_are_there(rule: dict[str, Any]):
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["alert"].startswith("EdgeVideo")
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    named = check_promql(rule["expr"])
    available = set().union(*(SAMPLES[name] for name in named))
    for text in rule["annotations"].values():
        assert text.count("{{") == text.count("}}")
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert label in available, f"{rule['alert']}: no label {label}"
        for name in re.findall(r"\bedge_video_\w+", text):
            assert name in SAMPLES, name


def test_rules_have_names_of_their_own():
    names = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
    assert len(set(names)) == len(names)
    assert len({group["name"] for group in RULES["groups"]}) == len(RULES["groups"])


@pytest.mark.parametrize(("title", "target"), [*queries()])
def test_a_panel_asks_for_metrics_that_are_there(title: str, target: dict[str, Any]):
    named = check_promql(target["expr"])
    available = set().union(*(SAMPLES[name] for name in named))
    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
        assert label in available, f"{title}: no label {label}"


def test_the_dashboards_variables_and_places_are_sound():
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)\}?", json.dumps(DASHBOARD["panels"])))
    assert used <= set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            query = variable["query"]["query"]
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()  # type: ignore[union-attr]
            assert label in SAMPLES[next(iter(check_promql(metric)))]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        columns, lines = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        cells = set(itertools.product(columns, lines))
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells


def test_the_scrape_example_asks_where_the_web_process_listens_and_loads_the_rules():
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("edge-video", "/metrics")
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8080"]}]
    for name in config["rule_files"]:
        assert (DOCKER / name).exists()


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(rate(edge_video_frames_processed_total[5m])",
        "edge_video_frames_processed_total)",
        "edge_video_frames_processed",
        'edge_video_frames_processed_total{reason="x"} > 0',
        "sum by (reason) (edge_video_frames_processed_total)",
        "rat(edge_video_frames_processed_total[5m])",
        "rate(edge_video_frames_processed_total[5 minutes])",
        "edge_video_capture_latency_seconds",
        "1 + 1",
    ],
    ids=range(9),
)
def test_a_wrong_expression_is_found(wrong: str):
    with pytest.raises((AssertionError, AttributeError)):
        check_promql(wrong)
