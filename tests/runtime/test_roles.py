"""The table of roles: each process of a site has one name, one status page and one place in the orders."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from engine.config import Config, from_document
from engine.runtime.roles import CHILD_ROLES, ROLES, SUPERVISOR, WRITER, Role, instances
from engine.runtime.status import collect
from engine.shm import segment
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage


def site(directory: Path, *, writers: int = 1, broker: bool = True) -> Config:
    return from_document(
        {
            "site": {"run_directory": str(directory / "run")},
            "ring": {"directory": str(directory), "capacity_mb": 1},
            "amqp": {"amqp_url": "amqp://127.0.0.1/shop"} if broker else {},
            "writer": {"writers": writers},
            "cameras": [{"id": camera, "url": "test://"} for camera in ("cam1", "north door")],
        },
        {},
    )


def test_processes_start_in_the_reverse_of_a_frame_s_order_of_travel(tmp_path: Path) -> None:
    assert [role.name for role in reversed(CHILD_ROLES)] == ["monitor", "capture", "writer", "publisher", "web"]
    assert (SUPERVISOR, *CHILD_ROLES) == ROLES
    names = [instance.name for instance in instances(site(tmp_path, writers=2))]
    assert names == ["web", "publisher", "writer 0", "writer 1", "capture cam1", "capture north door", "monitor"]


def test_a_writer_that_is_alone_has_no_number(tmp_path: Path) -> None:
    names = [instance.name for instance in instances(site(tmp_path, broker=False))]
    assert names == ["web", "writer", "capture cam1", "capture north door", "monitor"]
    (alone,) = WRITER.instances(site(tmp_path))
    assert alone.page.name == "writer 0.status"


def test_each_process_has_a_status_page_of_its_own(tmp_path: Path) -> None:
    config = site(tmp_path, writers=3)
    pages = [SUPERVISOR.instance(config).page, *(instance.page for instance in instances(config))]
    assert len(set(pages)) == 9
    assert {page.parent for page in pages} == {SitePaths.of(config).directory}


def test_status_lists_every_process_by_its_name(tmp_path: Path) -> None:
    config = site(tmp_path, writers=2)
    segment.private_directory(SitePaths.of(config).directory)
    for instance in instances(config):
        StatusPage.create(instance.page)
    (writer, *_) = WRITER.instances(config)
    owned = StatusPage.claim(writer.page)
    report = collect(config, memory=False)
    assert [process.name for process in report.processes] == [instance.name for instance in instances(config)]
    assert [process.name for process in report.processes if process.alive] == ["writer 0"]
    assert {"publisher is down", "writer 1 is down"} <= set(report.troubles)
    owned.close()


@pytest.mark.parametrize("role", CHILD_ROLES, ids=lambda role: role.name)
def test_what_a_role_counts_has_a_place_of_its_own_a_unit_and_a_help_text(role: Role) -> None:
    for count in role.counts or ():
        assert 0 <= count < 64
        assert count.unit
        assert count.help[0].isupper() or count.help.startswith("1 ")
        assert count.help.endswith(".")
    assert not any(
        one == other
        for one, other in itertools.combinations(role.counts.__members__.values() if role.counts else (), 2)
    )
