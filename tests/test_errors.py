"""Errors state facts and name causes; each audience gets advice in its own words, and nobody decides by a text."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorSocketConnectError,
)
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

import engine
from engine import FrameConsumer, FrameStore, TlsFiles, errors
from engine.advice import NAMES, SILENT, TABLES, advise, name_of
from engine.config import SECTIONS
from engine.config.tls import tls_refusal
from engine.errors import (
    Audience,
    BrokerUnavailable,
    Cause,
    ConfigError,
    EngineError,
    ServerRefused,
    advice_of,
    explain,
)
from engine.servers.amqp.refusals import REFUSALS, connection_error
from engine.wire.amqp_url import parse_amqp_url
from tests.system.site import command

BROKER = parse_amqp_url("amqp://user:geheim@box:5788/v")
DETAILS = {"server": "redis", "command": "a command", "kind": "direct", "settings": "heartbeat=amqp.heartbeat_seconds"}
#: A key of the site file: ``redis.username``, but not ``camera.metadata`` of an exchange.
SITE_KEY = re.compile(rf"\b({'|'.join(SECTIONS)})\.\w+")
VARIABLE = re.compile(r"\b(REDIS|AMQP)_[A-Z_]+\b")
#: Advice of the site's tables that names no setting, because none would help.
NO_SETTING = {
    Cause.FORBIDDEN, Cause.JOURNALS_FORBIDDEN, Cause.ADDRESS_FORM, Cause.TLS_EXPIRED, Cause.NOT_TLS,
    Cause.EXCHANGE_FORBIDDEN, Cause.EXCHANGE_MISSING, Cause.QUEUE_MISMATCH, Cause.QUEUE_LOCKED,
}  # fmt: skip


@pytest.mark.parametrize("audience", Audience)
@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_advice_for_each_audience_or_none_on_purpose(cause: Cause, audience: Audience):
    advice = advise(cause, audience, DETAILS)
    # A script never logs in as the publisher.
    silent = cause in SILENT or (cause, audience) == (Cause.PUBLISHER_LOGIN, Audience.LIBRARY)
    assert bool(advice) != silent
    assert not re.search(r"[{}]", advice)
    if not silent:
        assert cause in TABLES[audience]


@pytest.mark.parametrize("cause", Cause)
def test_a_script_is_told_of_parameters_and_a_person_of_the_site_file(cause: Cause):
    script = advise(cause, Audience.LIBRARY, DETAILS)
    assert not SITE_KEY.search(script)
    assert not VARIABLE.search(script)
    assert "--" not in script
    site = advise(cause, Audience.SITE, DETAILS)
    if site and cause not in NO_SETTING:
        assert SITE_KEY.search(site)


def test_parameters_that_advice_names_exist():
    named = set(re.findall(r"\b(?:\w+_)+\w+\b(?==)?", " ".join(TABLES[Audience.LIBRARY].values())))
    known = {*inspect.signature(FrameStore).parameters, *inspect.signature(FrameConsumer).parameters}
    assert named <= known | set(TlsFiles._fields) | {"query"}
    for name in NAMES[Audience.LIBRARY].values():
        first, dot, field = name.partition(".")
        assert (field in TlsFiles._fields) if dot else first
    assert set(re.findall(rf"(?:{'|'.join(SECTIONS)})\.\w+", " ".join(TABLES[Audience.SITE].values()))) <= {
        f"{section}.{field}" for section, struct in SECTIONS.items() for field in struct.__struct_fields__
    }


def test_fact_and_advice_meet_where_an_error_is_shown():
    error = ServerRefused("Redis at redis://h refuses the credentials", cause=Cause.LOGIN, subject="Redis at redis://h")
    assert str(error) == f"{error.fact}; {advice_of(error, Audience.LIBRARY)}"
    assert explain(error, Audience.SITE).endswith(
        "; set redis.username and redis.password, or REDIS_USERNAME and REDIS_PASSWORD"
    )
    assert explain(EngineError("just so"), Audience.SITE) == "just so"
    assert explain(OSError("theirs"), Audience.SITE) == "theirs"
    blamed = ConfigError("/x does not exist", setting="redis.tls_ca_file")
    assert str(blamed) == "tls_files.ca_file: /x does not exist"
    assert explain(blamed, Audience.SITE) == "redis.tls_ca_file: /x does not exist"
    assert name_of("redis.address", Audience.OPTIONS) == "--redis"


def test_the_command_line_speaks_of_its_options_and_a_script_of_its_parameters():
    done = command("frames", "latest", "cam1", "--redis", "http://u:geheim@h")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "edge-video: --redis: is no address of Redis; use host:port, redis://, rediss:// or unix://\n"
    )
    with pytest.raises(ConfigError) as refused:
        FrameStore("http://u:geheim@h")
    assert str(refused.value).startswith("Redis address: is no address of Redis; use host:port, ")


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EngineError)]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling_and_show_what_they_are(kind: type[EngineError]):
    error = kind("a fact", cause=Cause.TLS_NAME, subject="Redis at h", setting="redis.address", server="redis")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert str(again) == str(error)
    assert repr(error) == f"{kind.__name__}('a fact', cause=TLS_NAME)"
    assert repr(kind("a fact")) == f"{kind.__name__}('a fact')"
    assert str(kind()) == ""


def test_an_error_as_another_keeps_its_cause():
    error = BrokerUnavailable("away", cause=Cause.EXCHANGE_TYPE, subject="RabbitMQ at h", command="c", kind="direct")
    refused = ServerRefused.of(error)
    assert (refused.fact, refused.cause, refused.subject) == (error.fact, error.cause, error.subject)
    assert refused.exit_code == 2
    assert str(refused) == str(error)


@pytest.mark.parametrize(
    ("error", "cause", "fact"),
    [
        (
            AMQPConnectionError(AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "Connection refused"))),
            Cause.BROKER_AWAY, "refused the connection",
        ),
        (AMQPConnectorSocketConnectError(TimeoutError("TCP timed out")), Cause.BROKER_AWAY, "did not answer in time"),
        (
            AMQPConnectionWorkflowFailed([AMQPConnectorAMQPHandshakeError(ProbableAuthenticationError("lost"))]),
            Cause.BROKER_LOGIN, "refused the user and password",
        ),
        (ProbableAccessDeniedError("lost"), Cause.VHOST, "refused access to vhost v"),
        (
            ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost v not found"),
            Cause.VHOST, "closed the connection: NOT_ALLOWED - vhost v not found (530)",
        ),
        (
            ConnectionClosedByBroker(320, "CONNECTION_FORCED - shutdown"),
            Cause.BROKER_AWAY, "closed the connection: CONNECTION_FORCED - shutdown (320)",
        ),
        (ChannelClosedByBroker(404, "NOT_FOUND"), Cause.EXCHANGE_MISSING, "closed the channel: NOT_FOUND (404)"),
        (OSError(113, "No route to host"), Cause.BROKER_AWAY, "is not connected: No route to host"),
    ],
    ids=lambda value: value.name if isinstance(value, Cause) else "",
)  # fmt: skip
def test_errors_of_pika_become_facts(error: Exception, cause: Cause, fact: str):
    found = connection_error(BROKER, error)
    assert (found.cause, found.fact) == (cause, f"RabbitMQ at box:5788 {fact}")
    assert found.subject == "RabbitMQ at box:5788"
    assert "geheim" not in repr(found)
    assert (cause in REFUSALS) == (cause is not Cause.BROKER_AWAY)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate (_ssl.c:1)", Cause.TLS_AUTHORITY),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] Hostname mismatch, not valid for 'h'. (_ssl.c:1)", Cause.TLS_NAME),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired (_ssl.c:1)", Cause.TLS_EXPIRED),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert certificate required", Cause.TLS_CLIENT_CERTIFICATE),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1)", Cause.NOT_TLS),
    ],
)
def test_each_way_that_tls_fails_has_its_cause(text: str, cause: Cause):
    found = tls_refusal(text)
    assert found is not None
    assert found.cause is cause
    assert tls_refusal("Connection refused") is None
    assert tls_refusal("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF") is None


#: Texts that are compared: two of Redis's replies, which have nothing but their text; and one that is compared with the
#: text before it, so that the same line is not logged twice.
COMPARED = {
    "jobs/journal_rebuild.py": 1,
    "stages/capture/ring_keeper.py": 1,
    "stages/writer/reconcile.py": 1,
}


def texts_compared(tree: ast.Module) -> int:
    """How often the text of what is called an error is compared or searched."""

    def is_text(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node).split(".")[0] in ("str(error)", "repr(error)")

    count = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            count += any(map(is_text, (node.left, *node.comparators)))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            searches = node.func.attr in (
                "startswith",
                "endswith",
                "find",
                "partition",
                "rpartition",
                "split",
                "replace",
            )
            count += searches and is_text(node.func.value)
    return count


def test_nobody_decides_by_the_text_of_an_error_or_cuts_it():
    root = Path(engine.__file__).parent
    found = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        assert not re.search(r"partition\(['\"]; ", text), path
        if count := texts_compared(ast.parse(text)):
            found[path.relative_to(root).as_posix()] = count
    assert found == COMPARED
