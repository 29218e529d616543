"""A site whose roles a supervisor of the machine runs, each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.run import CAMERAS, FaultRun
from tests.system.roles import RoleSite


@pytest.fixture
def site(short_path: Path) -> Iterator[RoleSite]:
    running = RoleSite(short_path / "run")
    yield running
    running.end()


@pytest.mark.case("roles-killed")
def test_every_role_killed_under_supervisord(run: FaultRun, site: RoleSite) -> None:
    # Rings that outlast a supervisord that waits a second or two before it starts a writer again.
    run.start(ring={"capacity_mb": 2})
    for _ in range(3):
        for role, camera in (("publisher", ""), ("writer", ""), ("capture", run.random.choice(CAMERAS))):
            run.moment()
            site.kill(role, camera)
        run.moment()
        site.kill_captures()
    run.ends()
    # What was captured is stored; rings stay for the next start.
    assert all(not camera["ring"]["held"] for camera in site.status()["cameras"])
