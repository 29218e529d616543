"""Sites at the bounds of what ``check`` lets pass, really run: they start, store and stop without a traceback."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from engine.config import from_document
from engine.errors import ConfigError
from tests.servers.wait import free_port, wait_until
from tests.site_documents import Document, documents, to_toml
from tests.system.site import Site, command

#: How many are run; each takes some seconds.
RUNS = 5
#: Which documents: the same in every run of the tests.
SEED = 11
#: Examples among which there are so many that pass.
EXAMPLES = 400


def passing() -> list[Document]:
    """Documents that are sites, without those that say nothing of their own."""
    found: list[Document] = []

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(documents())
    def collect(document: Document) -> None:
        try:
            from_document(document, {})
        except ConfigError:
            return
        if sum(map(len, document.values())) > 4 and document not in found:
            found.append(document)

    collect()
    return found[:RUNS]


#: Only for connections that are encrypted.
TLS_KEYS = ("tls_ca_file", "tls_certificate_file", "tls_key_file", "tls_server_name")


def here(document: Document, site: Site) -> Document:
    """The document with servers, files and sizes that this machine can have: Redis embedded, the broker away."""

    def section(name: str, *without: str, **values: Any) -> Document:
        table = {key: value for key, value in document.get(name, {}).items() if key not in without}
        return {**table, **values}

    memory = min(document.get("ring", {}).get("capacity_mb", 1), 16)
    writers = min(document.get("writer", {}).get("writers", 1), 3)
    return {
        **document,
        "site": section("site", run_directory=str(site.directory / "s"), drain_seconds=20.0),
        "redis": section("redis", "address", "sentinels", "service", "timeout_seconds", *TLS_KEYS),
        "amqp": section(
            "amqp", "timeout_seconds", *TLS_KEYS, amqp_url=f"amqp://u:p@127.0.0.1:{free_port()}/a%2Fb%00%3B"
        ),
        "ring": section("ring", "directory", capacity_mb=memory),
        "writer": section("writer", writers=writers),
        "web": section(
            "web", "token_file", "tenants_file", "tls_certificate_file", "tls_key_file", listen="127.0.0.1:0"
        ),
        "cameras": [{**document["cameras"][0], "id": "a/b:c*\u2028é🎥 \x1b"}, {"id": "plain", "url": "test://?kb=90"}],
    }


@pytest.mark.parametrize("number", range(RUNS))
def test_a_site_that_passes_check_runs_and_stops_without_a_traceback(number: int, site: Site) -> None:
    document = here(passing()[number], site)
    site.file.write_text(to_toml(document))
    done = command("check", "-c", str(site.file))
    assert done.returncode == 0, f"{done.stderr}\n{document}"
    site.start()
    wait_until(lambda: site.camera("plain")["stored"] > 5, 60, "frames are stored", log=site.log_text)
    assert site.stop() == 0, site.log_text()
    log = site.log_text()
    assert "Traceback" not in log
    assert "starting it again" not in log
    assert not site.paths.directory.exists()


def test_captures_give_way_to_the_processes_that_empty_their_rings(site: Site) -> None:
    """A hundred captures that want more CPU than there is would leave the writer a hundredth of it."""
    site.write(
        cameras=[{"id": name, "url": "test://"} for name in ("cam1", "cam2")],
        redis={"address": "embedded"},
        amqp_url=f"amqp://127.0.0.1:{free_port()}",
    )
    site.start()
    wait_until(lambda: site.camera("cam2")["stored"] > 1, 60, "frames are stored", log=site.log_text)

    def ranks() -> dict[str, int]:
        assert site.process is not None
        parent = os.getpriority(os.PRIO_PROCESS, site.process.pid)
        return {
            process["name"]: os.getpriority(os.PRIO_PROCESS, process["pid"]) - parent
            for process in site.status()["processes"]
        }

    expected = {"publisher": 0, "writer": 0, "capture cam1": 10, "capture cam2": 10}
    assert ranks() == expected
    killed = site.pid("capture", "cam1")
    site.kill("capture", "cam1")
    wait_until(lambda: site.pid("capture", "cam1") not in (0, killed), 30, "it runs again", log=site.log_text)
    stored = site.camera("cam1")["stored"]
    wait_until(lambda: site.camera("cam1")["stored"] > stored, 30, "it captures again", log=site.log_text)
    assert ranks() == expected
