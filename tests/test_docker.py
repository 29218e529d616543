"""docker/: what can be tested of an image and a composition without a container engine.

The composition is read as YAML, its Redis is run by its own command, and its site runs on that Redis. The image
installs the wheel, which tests/test_deploy.py runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config import load
from engine.shm.site import shared_memory_need
from tests.servers.process import Child
from tests.servers.wait import free_port, wait_until
from tests.test_profiles import sizing_of

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
SITE = DOCKER / "site.toml"
#: Values for the variables of .env.
ENVIRONMENT = {
    "REDIS_PASSWORD": "a-Redis_password",
    "RABBITMQ_USER": "edge",
    "RABBITMQ_PASSWORD": "a-broker_password",
    "RABBITMQ_VHOST": "supermercado_vhost",
    "WEB_TOKEN": "a-token-of-24-characters",
}
#: Where both files mount the site file.
MOUNTED = "/etc/edge-video/site.toml"
#: The arguments of the image's command and health check.
RUN = ["run", "-c", MOUNTED]
HEALTHY = ["status", "--healthy", "-c", MOUNTED]


def services() -> dict[str, Any]:
    """The composition's services, with the variables of .env put in as compose does it."""
    text = (DOCKER / "compose.yaml").read_text()
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: ENVIRONMENT[match[1]], text)
    assert "$" not in text, "each variable is required: ${NAME:?message}"
    found: dict[str, Any] = msgspec.yaml.decode(text)["services"]
    return found


def test_env_example_names_every_secret_and_no_value() -> None:
    example = dict(line.split("=", 1) for line in (DOCKER / ".env.example").read_text().splitlines() if "=" in line)
    assert example == dict.fromkeys(ENVIRONMENT, "")


def test_env_file_stays_out_of_git() -> None:
    assert subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=ROOT, check=False).returncode == 0


def test_engine_waits_for_redis_and_stores_without_a_broker() -> None:
    needs = services()["engine"]["depends_on"]
    assert {name: need["condition"] for name, need in needs.items()} == {
        "redis": "service_healthy",
        "rabbitmq": "service_started",
    }


def test_engine_has_the_shared_memory_and_the_time_that_its_site_takes() -> None:
    engine, config = services()["engine"], load(SITE, ENVIRONMENT)
    assert int(engine["shm_size"].removesuffix("m")) * 2**20 >= shared_memory_need(config)
    assert float(engine["stop_grace_period"].removesuffix("s")) > config.site.drain_seconds
    assert f"./site.toml:{MOUNTED}:ro" in engine["volumes"]


def test_engine_finds_the_servers_by_their_names_and_credentials() -> None:
    found = services()
    config = load(SITE, found["engine"]["environment"])
    assert config.redis_address.host in found
    assert config.redis_address.password == ENVIRONMENT["REDIS_PASSWORD"]
    user, password, vhost = (ENVIRONMENT[f"RABBITMQ_{name}"] for name in ("USER", "PASSWORD", "VHOST"))
    assert config.amqp.amqp_url == f"amqp://{user}:{password}@rabbitmq:5672/{vhost}"
    assert config.vhost == vhost
    broker = found["rabbitmq"]["environment"]
    assert (broker["RABBITMQ_DEFAULT_USER"], broker["RABBITMQ_DEFAULT_PASS"]) == (user, password)
    assert broker["RABBITMQ_DEFAULT_VHOST"] == vhost


def test_redis_is_set_up_as_a_cache_of_frames() -> None:
    command = services()["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "volatile-ttl"
    assert options["--save"] == ""
    assert options["--requirepass"] == ENVIRONMENT["REDIS_PASSWORD"]
    # Expired frames stay in it for a while: up to 38 % were measured.
    assert int(options["--maxmemory"].removesuffix("mb")) * 2**20 > 1.4 * sizing_of(SITE).redis_gb * 1e9


@pytest.fixture
def redis_of_compose(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis started by the composition's own command, found healthy by its own check."""
    port = free_port()
    redis = services()["redis"]
    kind, shell = redis["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    shell = shell.replace("redis-cli", f"redis-cli -p {port}", 1)

    def healthy(password: str = redis["environment"]["REDISCLI_AUTH"]) -> bool:
        environment = {**os.environ, "REDISCLI_AUTH": password}
        return subprocess.run(shell, shell=True, check=False, env=environment).returncode == 0

    server = Child("redis-server", tmp_path / "redis.log")
    server.start([*redis["command"], "--port", str(port), "--bind", "127.0.0.1"], healthy, 20)
    try:
        assert not healthy("wrong"), "the health check does not see a refusal"
        yield port
    finally:
        server.stop(10)


def test_site_of_the_composition_runs_on_its_redis(redis_of_compose: int, tmp_path: Path) -> None:
    engine = services()["engine"]
    environment = os.environ | {
        "REDIS_ADDRESS": f"127.0.0.1:{redis_of_compose}",
        "REDIS_PASSWORD": engine["environment"]["REDIS_PASSWORD"],
        "WEB_TOKEN": engine["environment"]["WEB_TOKEN"],
    }
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert f"\nCMD {json.dumps(RUN)}\n" in dockerfile
    assert f"CMD {json.dumps(['edge-video', *HEALTHY])}\n" in dockerfile
    site = tmp_path / "site.toml"
    # Beside a site of the same name that a person may be running here.
    text = SITE.read_text().replace("[site]", f'[site]\nrun_directory = "{tmp_path}/run"')
    assert 'listen = ":8080"' in text
    assert engine["ports"] == ["127.0.0.1:8080:8080"]
    site.write_text(text.replace('listen = ":8080"', 'listen = ":0"'))

    def words(arguments: list[str]) -> list[str]:
        return [sys.executable, "-m", "engine", *(str(site) if word == MOUNTED else word for word in arguments)]

    def healthy() -> bool:
        done = subprocess.run([*words(HEALTHY), "--json"], cwd=ROOT, env=environment, check=False, capture_output=True)
        if done.returncode:
            return False
        return all(camera["stored"] for camera in json.loads(done.stdout)["cameras"])

    with (tmp_path / "engine.log").open("w") as log:
        process = subprocess.Popen(words(RUN), cwd=ROOT, env=environment, stderr=log, stdout=log)
    try:
        wait_until(healthy, 60, "the engine's health check finds all cameras storing")
        process.terminate()
        assert process.wait(60) == 0, (tmp_path / "engine.log").read_text()
    finally:
        process.kill()
        process.wait()
