"""docker/: what can be said of an image and a composition without a container engine.

The image's install steps are run in a virtual environment in place of the base image, on the files that the build
context holds; the composition's Redis is run as it is configured there, and takes the composition's site.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pytest
from msgspec import Meta

from engine.config import Config, default_run_directory, load
from engine.shm.site import shared_memory_need
from tests.servers.process import Child
from tests.servers.wait import free_port, wait_until
from tests.test_profiles import sizing_of

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
SITE = DOCKER / "site.toml"
#: https://docs.docker.com/reference/dockerfile/
INSTRUCTIONS = {
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
    *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}
#: Values for the variables of .env, as a careful person would choose them.
ENVIRONMENT = {
    "REDIS_PASSWORD": "a-Redis_password",
    "RABBITMQ_USER": "edge",
    "RABBITMQ_PASSWORD": "a-broker_password",
    "RABBITMQ_VHOST": "supermercado_vhost",
}
#: Words that would tie a build to somebody's package index or registry.
INDEX_WORDS = ("index-url", "index_url", "find-links", "find_links", "trusted-host", "pip.conf", "://")


# The part of the Compose Specification that compose.yaml uses; whatever is not named here is refused.

Bytes = Annotated[str, Meta(pattern=r"^[0-9]+(b|k|kb|m|mb|g|gb)$")]
Duration = Annotated[str, Meta(pattern=r"^([0-9]+(us|ms|s|m|h))+$")]
Image = Annotated[str, Meta(pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)?(:[A-Za-z0-9_.-]+)?$")]
Port = Annotated[str, Meta(pattern=r"^127\.0\.0\.1:[0-9]+:[0-9]+$")]
Mount = Annotated[str, Meta(pattern=r"^(\./)?[A-Za-z0-9_.-]+:/[^:]+(:ro)?$")]


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """A mapping of the composition."""


class Build(Part):
    context: str
    dockerfile: str


class Condition(Part):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Healthcheck(Part):
    test: Annotated[list[str], Meta(min_length=2)]
    interval: Duration
    timeout: Duration
    retries: Annotated[int, Meta(ge=1)]
    start_period: Duration = "0s"


class Service(Part):
    image: Image
    restart: Literal["no", "always", "on-failure", "unless-stopped"]
    build: Build | None = None
    depends_on: dict[str, Condition] = {}
    command: list[str] = []
    environment: dict[str, str] = {}
    volumes: list[Mount] = []
    ports: list[Port] = []
    hostname: str = ""
    healthcheck: Healthcheck | None = None
    shm_size: Bytes = "64m"
    stop_grace_period: Duration = "10s"
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []


class Composition(Part):
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    services: dict[str, Service]
    volumes: dict[str, None] = {}


def bytes_of(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-z]*)", size).groups()  # type: ignore[union-attr]
    return int(number) * {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}[unit[0]]


def seconds_of(duration: str) -> float:
    units = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(us|ms|s|m|h)", duration))


def interpolated(text: str, values: dict[str, str]) -> str:
    """``${NAME:?message}`` by its value, as compose does it; an empty value is an error."""

    def value(match: re.Match[str]) -> str:
        assert values.get(match[1]), f"{match[1]}: {match[2]}"
        return values[match[1]]

    return re.sub(r"\$\{(\w+):\?([^}]*)\}", value, text)


def composition(values: dict[str, str] = ENVIRONMENT) -> Composition:
    text = interpolated((DOCKER / "compose.yaml").read_text(), values)
    return msgspec.yaml.decode(text.encode(), type=Composition)


class Step(NamedTuple):
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments: of the JSON form, or split as a shell would."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def steps() -> list[Step]:
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def only(name: str) -> Step:
    found = [step for step in steps() if step.name == name]
    assert len(found) == 1, f"{name} stands {len(found)} times"
    return found[0]


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a file out: of the patterns that match it or a directory above, the last counts."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().lstrip("!").strip("/")
        if not pattern or line.startswith("#"):
            continue
        parts = re.split(r"(\*\*/|\*|\?)", pattern)
        regex = "".join({"**/": "(.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)) for part in parts)
        if re.fullmatch(f"{regex}(/.*)?", path):
            verdict = not line.startswith("!")
    return verdict


def context() -> list[str]:
    """The files of the build context: what git has or would take, less what .dockerignore names."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [path for path in listed.stdout.split("\0") if path and not ignored(path) and (ROOT / path).is_file()]


# The composition


def test_composition_has_the_structure_of_the_specification() -> None:
    services = composition().services
    assert set(services) == {"engine", "redis", "rabbitmq"}
    for service in services.values():
        assert set(service.depends_on) <= set(services)
        for dependency, condition in service.depends_on.items():
            assert condition.condition != "service_healthy" or services[dependency].healthcheck
        for mount in service.volumes:
            source = mount.split(":")[0]
            assert (DOCKER / source).is_file() if source.startswith("./") else source in composition().volumes


def test_composition_refuses_what_the_specification_does_not_know() -> None:
    text = (DOCKER / "compose.yaml").read_text().replace("shm_size", "shmsize")
    with pytest.raises(msgspec.ValidationError, match="shmsize"):
        msgspec.yaml.decode(text.encode(), type=Composition)


def test_every_secret_comes_from_the_environment_and_is_asked_for() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+):\?set it in \.env\}", text))
    assert text.count("$") == len(re.findall(r"\$\{\w+:\?set it in \.env\}", text))
    example = dict(line.split("=", 1) for line in (DOCKER / ".env.example").read_text().splitlines() if "=" in line)
    assert used == set(example) == set(ENVIRONMENT)
    assert not any(example.values()), "a value in the example would be somebody's password"
    for name in used:
        with pytest.raises(AssertionError, match=name):
            composition({**ENVIRONMENT, name: ""})


def test_env_file_stays_out_of_git_and_of_the_image() -> None:
    assert subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=ROOT, check=False).returncode == 0
    assert ignored("docker/.env")
    assert not ignored("engine/cli/main.py")


def test_engine_waits_for_redis_and_stores_without_a_broker() -> None:
    conditions = {name: need.condition for name, need in composition().services["engine"].depends_on.items()}
    assert conditions == {"redis": "service_healthy", "rabbitmq": "service_started"}


def test_engine_has_the_shared_memory_and_the_time_that_its_site_takes() -> None:
    engine, config = composition().services["engine"], load(SITE, {})
    assert bytes_of(engine.shm_size) >= shared_memory_need(config)
    assert seconds_of(engine.stop_grace_period) > config.site.drain_seconds
    assert "./site.toml:/etc/edge-video/site.toml:ro" in engine.volumes
    assert any(mount.split(":")[1] == only("VOLUME").text for mount in engine.volumes)
    assert engine.build
    assert (DOCKER / engine.build.context).resolve() == ROOT
    assert (ROOT / engine.build.dockerfile).samefile(DOCKER / "Dockerfile")


def site_in_compose() -> Config:
    return load(SITE, composition().services["engine"].environment)


def test_engine_finds_the_servers_by_their_names_and_credentials() -> None:
    services, config = composition().services, site_in_compose()
    assert config.redis_address.host in services
    assert config.redis_address.password == ENVIRONMENT["REDIS_PASSWORD"]
    user, password, vhost = (ENVIRONMENT[f"RABBITMQ_{name}"] for name in ("USER", "PASSWORD", "VHOST"))
    assert config.amqp.amqp_url == f"amqp://{user}:{password}@rabbitmq:5672/{vhost}"
    assert config.vhost == vhost
    broker = services["rabbitmq"].environment
    assert (broker["RABBITMQ_DEFAULT_USER"], broker["RABBITMQ_DEFAULT_PASS"]) == (user, password)
    assert broker["RABBITMQ_DEFAULT_VHOST"] == vhost


def redis_options() -> dict[str, str]:
    command = composition().services["redis"].command
    assert command[0] == "redis-server"
    return dict(zip(command[1::2], command[2::2], strict=True))


def test_redis_is_set_up_as_a_cache_of_frames() -> None:
    options = redis_options()
    assert options["--maxmemory-policy"] == "volatile-ttl"
    assert options["--save"] == ""
    assert options["--requirepass"] == ENVIRONMENT["REDIS_PASSWORD"]
    # Expired frames stand in it for a while: up to 38 % were measured.
    assert bytes_of(options["--maxmemory"]) > 1.4 * sizing_of(SITE).redis_gb * 1e9


# The image


def test_dockerfile_is_made_of_known_instructions() -> None:
    found = steps()
    assert found[0].name == "FROM"
    assert {step.name for step in found} <= INSTRUCTIONS
    assert re.fullmatch(r"python:3\.\d+-slim", only("FROM").text)


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_no_index_and_no_mirror_is_named(name: str) -> None:
    text = (DOCKER / name).read_text().lower().replace("amqp://", "")
    assert not [word for word in INDEX_WORDS if word in text]


def test_image_runs_as_a_user_of_fixed_number_that_owns_the_run_directory() -> None:
    user, _, group = only("USER").text.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    made = next(step.text for step in steps() if "useradd" in step.text)
    assert f"--uid {user} --gid {group}" in made
    # The engine refuses a run directory that others may enter.
    directory = only("VOLUME").text
    assert directory == "/run/edge-video"
    assert f"install -d -m 0700 -o edge-video -g edge-video {directory}" in made
    # Where a site file names no run directory, it lies on the volume, too.
    parent = default_run_directory("site", int(user)).parent
    assert made.endswith(f"ln -s {directory} {parent}")
    order = [step.name for step in steps()]
    assert order.index("USER") > max(number for number, name in enumerate(order) if name == "RUN")


def test_image_starts_the_console_script_on_the_mounted_site() -> None:
    assert only("ENTRYPOINT").words == ["edge-video"]
    assert only("CMD").words == ["run", "-c", "/etc/edge-video/site.toml"]
    assert only("HEALTHCHECK").text.endswith(
        'CMD ["edge-video", "status", "--healthy", "-c", "/etc/edge-video/site.toml"]'
    )
    assert only("STOPSIGNAL").text == "SIGTERM"


def test_context_holds_what_is_copied_and_no_more() -> None:
    files = context()
    copied = [source for step in steps() if step.name == "COPY" for source in step.words[:-1]]
    for source in copied:
        assert any(path == source or path.startswith(f"{source}/") for path in files), f"{source} is not in the context"
    stray = [path for path in files if not any(path == source or path.startswith(f"{source}/") for source in copied)]
    assert not stray


# Run


def base_python() -> str:
    """The base image's Python where this machine has it, else the one that runs the tests."""
    name = only("FROM").text.removesuffix("-slim").replace(":", "")
    found = shutil.which(name)
    if found and subprocess.run([found, "--version"], check=False, capture_output=True).returncode == 0:
        return found
    return sys.executable


def clean_environment() -> dict[str, str]:
    """This machine's, with its way to packages, less what would point a process to this checkout or to servers."""
    own = ("PYTHON", "VIRTUAL_ENV", "REDIS_", "AMQP_URL", "PYTEST")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


@pytest.fixture
def image(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The directory of the image's programs, and an environment that finds them: COPY and pip steps done in a fresh
    virtual environment."""
    subprocess.run([base_python(), "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv" / "bin"
    environment = clean_environment()
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    source = tmp_path / "src"
    source.mkdir()
    files = context()
    for step in steps():
        if step.name == "COPY":
            *names, target = step.words
            for path in files:
                name = next((name for name in names if path == name or path.startswith(f"{name}/")), None)
                if name:
                    # A directory's contents go into the target, a file goes under its own name where that is one.
                    rest = path.removeprefix(name).lstrip("/") or (name if target.endswith("/") else "")
                    place = source / target / rest
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / path, place)
        elif step.name == "RUN" and "pip install" in step.text:
            done = subprocess.run(
                ["/bin/sh", "-c", step.text], cwd=source, env=environment, check=False, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{step.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    # What runs must be what was installed.
    shutil.rmtree(source)
    yield programs, environment
    # pytest keeps the directories of its last runs, and this is some hundred megabytes.
    shutil.rmtree(tmp_path / "venv")


def test_install_steps_of_the_image_give_an_engine_that_runs(
    image: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    programs, environment = image

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    document: dict[str, Any] = json.loads(run(programs / "edge-video", "check", "-c", SITE, "--json"))
    assert document["shared_memory"]["need_bytes"] == shared_memory_need(load(SITE, {}))
    summary = json.loads(run(programs / "edge-video", "demo", "--seconds", "2", "--cameras", "2", "--json"))
    assert summary["cameras"] == 2
    assert summary["captured"] == summary["stored"] > 0
    assert summary["dropped"] == 0
    # The base image has no display libraries, and cv2 must not ask for any, also where a machine has them.
    loaded = run(programs / "python", "-c", "import cv2; print(open('/proc/self/maps').read())")
    assert "cv2" in loaded
    assert not re.findall(r"/lib(?:GL|X11|xcb|gtk|Qt)[\w-]*\.so", loaded)


@pytest.fixture
def redis_of_compose(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis started by the composition's own command, found healthy by its own check."""
    port = free_port()
    command = [*composition().services["redis"].command, "--port", str(port), "--bind", "127.0.0.1"]
    check = composition().services["redis"].healthcheck
    assert check
    assert check.test[0] == "CMD-SHELL"
    password = composition().services["redis"].environment["REDISCLI_AUTH"]

    def healthy(password: str = password) -> bool:
        shell = check.test[1].replace("redis-cli", f"redis-cli -p {port}", 1)
        done = subprocess.run(shell, shell=True, check=False, env={**os.environ, "REDISCLI_AUTH": password})
        return done.returncode == 0

    server = Child("redis-server", tmp_path / "redis.log")
    server.start(command, healthy, 20)
    try:
        assert not healthy("wrong"), "the health check does not see a refusal"
        yield port
    finally:
        server.stop(10)


def test_site_of_the_composition_runs_on_its_redis(redis_of_compose: int, tmp_path: Path) -> None:
    engine = composition().services["engine"]
    environment = clean_environment() | {
        "REDIS_ADDRESS": f"127.0.0.1:{redis_of_compose}",
        "REDIS_PASSWORD": engine.environment["REDIS_PASSWORD"],
    }
    site = tmp_path / "site.toml"
    # Beside a site of the same name that a person may be running here.
    site.write_text(SITE.read_text().replace("[site]", f'[site]\nrun_directory = "{tmp_path}/run"'))
    program = [sys.executable, "-m", "engine"]

    def run(step: Step) -> list[str]:
        words = json.loads(step.text[step.text.index("[") :])
        return program + [
            str(site) if word == "/etc/edge-video/site.toml" else word for word in words if word != "edge-video"
        ]

    def healthy() -> bool:
        done = subprocess.run(
            [*run(only("HEALTHCHECK")), "--json"], cwd=ROOT, env=environment, check=False, capture_output=True
        )
        if done.returncode:
            return False
        return all(camera["stored"] for camera in json.loads(done.stdout)["cameras"])

    with (tmp_path / "engine.log").open("w") as log:
        process = subprocess.Popen(run(only("CMD")), cwd=ROOT, env=environment, stderr=log, stdout=log)
    try:
        wait_until(healthy, 60, "the engine's health check finds all cameras storing")
        process.terminate()
        assert process.wait(seconds_of(engine.stop_grace_period)) == 0, (tmp_path / "engine.log").read_text()
    finally:
        process.kill()
        process.wait()
